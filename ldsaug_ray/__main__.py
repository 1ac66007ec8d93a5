"""`python -m ldsaug_ray`: the same as `ldsaug`."""

import sys

from ldsaug_ray.cli import main

sys.exit(main())
