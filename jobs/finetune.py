"""`ray job submit --working-dir . -- python jobs/finetune.py CONFIG [name=value …]`: the same as `ldsaug finetune`."""

import sys

from ldsaug_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["finetune", *sys.argv[1:]]))
