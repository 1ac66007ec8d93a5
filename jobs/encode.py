"""`ray job submit --working-dir . -- python jobs/encode.py CONFIG [name=value …]`: the same as `ldsaug encode`."""

import sys

from ldsaug_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["encode", *sys.argv[1:]]))
