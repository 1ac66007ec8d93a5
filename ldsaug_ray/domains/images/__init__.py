"""The domain `images`: decoding, near duplicates, sharpness, damage; and the names by which sources are reached.

source = open_source(data)
table = load_attributes(data)
work = plan(IMAGES, source, data, seed, table)
for unit in work.units:
    prepare_unit(IMAGES, source, unit, data, table)
"""

from typing import TYPE_CHECKING

from ldsaug_ray.common.lazy import lazily
from ldsaug_ray.domains.images.domain import IMAGES  # now: it adds the domain

if TYPE_CHECKING:
    from ldsaug_ray.domains.images.decode import decode_image
    from ldsaug_ray.domains.images.pixels import UnusableImage
    from ldsaug_ray.domains.images.stored import image_array
    from ldsaug_ray.domains.prepare import PreparedUnit, PreparePlan, plan, prepare_unit
    from ldsaug_ray.domains.sources.attributes import (
        AttributeTable,
        load_attributes,
        read_attribute_file,
        require_attribute,
    )
    from ldsaug_ray.domains.sources.base import LISTING, Source
    from ldsaug_ray.domains.sources.walk import IMAGE_EXTENSIONS
    from ldsaug_ray.domains.split import SPLITS, assign_splits
    from ldsaug_ray.domains.tables import QUARANTINE, UNIT
else:
    __getattr__ = lazily(__name__, __file__)
