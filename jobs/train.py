"""`ray job submit --working-dir . -- python jobs/train.py CONFIG [name=value …]`: the same as `ldsaug train`."""

import sys

from ldsaug_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
