"""`ray job submit --working-dir . -- python jobs/select.py CONFIG [name=value …]`: the same as `ldsaug select`."""

import sys

from ldsaug_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["select", *sys.argv[1:]]))
