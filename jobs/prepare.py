"""`ray job submit --working-dir . -- python jobs/prepare.py CONFIG [name=value …]`: the same as `ldsaug prepare`."""

import sys

from ldsaug_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["prepare", *sys.argv[1:]]))
