"""What latents are drawn from to sample images: a prior a file. One that is added here is a file here.

The mixture is scikit-learn's maximum-likelihood fit (EM), which takes no weights of the samples: where A's latents
weigh by LDS, `resampled_rows` draws as many of them, each as often as it weighs.
"""

from ldsaug_ray.common.registry import import_all
from ldsaug_ray.models.priors.base import PRIORS, Draws, Fitted, Prior, facts_of, read_fitted, title_of, write_fitted
from ldsaug_ray.models.priors.kde import kernel_density
from ldsaug_ray.models.priors.mixture import REGULARISED, Mixture, fit_mixture
from ldsaug_ray.models.priors.noise import noise, resampled_rows
from ldsaug_ray.models.priors.normal import Normal

import_all(__name__, __path__)
