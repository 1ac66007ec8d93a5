"""`ray job submit --working-dir . -- python jobs/decode.py CONFIG [name=value …]`: the same as `ldsaug decode`."""

import sys

from ldsaug_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["decode", *sys.argv[1:]]))
