"""`ray job submit --working-dir . -- python jobs/frontier.py CONFIG [name=value …]`: the same as `ldsaug frontier`."""

import os
import sys

if __name__ == "__main__":
    # not this folder: its select.py would stand before the standard library's module of that name
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    from ldsaug_ray.cli import main

    sys.exit(main(["frontier", *sys.argv[1:]]))
