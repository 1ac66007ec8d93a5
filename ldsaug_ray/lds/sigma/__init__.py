"""The kernel's bandwidth sigma, one number for all latents: a rule a file. A rule that is added here is a file here."""

from ldsaug_ray.common.registry import import_all
from ldsaug_ray.lds.sigma.norm_fraction import sigma_from_norm
from ldsaug_ray.lds.sigma.rule import SIGMA_RULES, ChosenSigma, SigmaRule, resolve_sigma

import_all(__name__, __path__)
