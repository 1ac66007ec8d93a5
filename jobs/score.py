"""`ray job submit --working-dir . -- python jobs/score.py CONFIG [name=value …]`: the same as `ldsaug score`."""

import sys

from ldsaug_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["score", *sys.argv[1:]]))
