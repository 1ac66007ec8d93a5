"""`ray job submit --working-dir . -- python jobs/run.py CONFIG [name=value …]`: the same as `ldsaug run`."""

import sys

from ldsaug_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
