"""`ray job submit --working-dir . -- python jobs/report.py CONFIG [name=value …]`: the same as `ldsaug report`."""

import sys

from ldsaug_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["report", *sys.argv[1:]]))
