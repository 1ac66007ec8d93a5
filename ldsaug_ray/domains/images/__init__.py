"""Images in, training arrays out: sources, decoding, attributes, splits, and the quarantine of what cannot be used.

source = open_source(data)
table = load_attributes(data)
work = plan(source, data, seed, table)
for unit in work.units:
    prepare_unit(source, unit, data, table)
"""

from typing import TYPE_CHECKING

from ldsaug_ray.common.lazy import lazily

if TYPE_CHECKING:
    from ldsaug_ray.domains.images.attributes import (
        AttributeTable,
        load_attributes,
        read_attribute_file,
        require_attribute,
    )
    from ldsaug_ray.domains.images.base import LISTING, Source
    from ldsaug_ray.domains.images.decode import decode_image
    from ldsaug_ray.domains.images.pixels import UnusableImage
    from ldsaug_ray.domains.images.prepare import PreparedUnit, PreparePlan, plan, prepare_unit
    from ldsaug_ray.domains.images.sources import open_source
    from ldsaug_ray.domains.images.split import SPLITS, assign_splits
    from ldsaug_ray.domains.images.tables import QUARANTINE, UNIT, image_array, image_schema, image_table
    from ldsaug_ray.domains.images.walk import IMAGE_EXTENSIONS
else:
    __getattr__ = lazily(__name__, __file__)
