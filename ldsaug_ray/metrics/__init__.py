"""Measures of generated images: arrays in, numbers out, with what a reader must know of them as notes. No Ray."""

from typing import TYPE_CHECKING

from ldsaug_ray.common.lazy import lazily

# functions that are called as their modules are: imported now, or the module would be found in their place
from ldsaug_ray.metrics.kernel_distance import KernelDistance, kernel_distance

if TYPE_CHECKING:
    from ldsaug_ray.domains.images.damage import KINDS, Kind, corrupt
    from ldsaug_ray.domains.images.quality import sharpness
    from ldsaug_ray.metrics.balance import (
        Probe,
        ProbeQuality,
        Share,
        attribute_share,
        describe_probe,
        fit_probe,
        measure_probe,
        measure_share,
        share_by_parents,
    )
    from ldsaug_ray.metrics.base import AnyMeasure, Measure, MeasureOfA, Members, Real, Sample
    from ldsaug_ray.metrics.bootstrap import Difference, Mean, mean_and_error, paired_difference
    from ldsaug_ray.metrics.copies import (
        Copies,
        CopyingTest,
        Nearest,
        authenticity,
        copying_test,
        measure_copies,
        nearest_training,
    )
    from ldsaug_ray.metrics.detection import Auroc, Detection, auroc, by_bandwidth, detect
    from ldsaug_ray.metrics.extractors import Extractor, FeatureNetwork, open_extractor
    from ldsaug_ray.metrics.frechet import FeatureStatistics, Frechet, frechet_distance, frechet_from_statistics
    from ldsaug_ray.metrics.manifold import Prdc, prdc
    from ldsaug_ray.metrics.measures import (
        MEASURES,
        OF_A,
        OF_RUNS,
        OF_SETS,
        evaluation_stamp,
        intervals_of,
        measure_set,
        measures_taken,
        own_measures,
    )
    from ldsaug_ray.metrics.record import Attribute, Described, Evaluated, Reading, SetReadings, UsedExtractor
    from ldsaug_ray.metrics.weights import INCEPTION, Weights, weights_folder
else:
    __getattr__ = lazily(__name__, __file__)
