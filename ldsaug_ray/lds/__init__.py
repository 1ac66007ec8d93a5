"""Latent density: which interpolants exist, how dense each is, which are kept, and what that means.

Arrays in, arrays out; no Ray, and no files but a saved FAISS index. The formulas are those of the paper, kept in log
space throughout.
"""

from typing import TYPE_CHECKING

from ldsaug_ray.common.lazy import lazily

if TYPE_CHECKING:
    from ldsaug_ray.lds.approximate import BoundedPoints, BoundedScores, approximate_pairs, approximate_points
    from ldsaug_ray.lds.diagnostics import HeldOut, Regime, latent_norms, norms_from_mean, regime
    from ldsaug_ray.lds.exact import (
        PairScores,
        score_block,
        score_gradient,
        score_leave_one_out,
        score_pairs,
        score_points,
    )
    from ldsaug_ray.lds.findings import sentences
    from ldsaug_ray.lds.index import Approximation, LatentIndex, latents_fingerprint, load_index, open_index, save_index
    from ldsaug_ray.lds.interpolation import interpolate
    from ldsaug_ray.lds.latents import validate_latents
    from ldsaug_ray.lds.neighbours import Neighbours
    from ldsaug_ray.lds.noise import Noise
    from ldsaug_ray.lds.pairs import Candidates, candidates, n_pairs_for, plan_block, plan_pairs, plan_pairs_range
    from ldsaug_ray.lds.plans import Plan, check_plan, nearest_latents, neighbour_pairs, noise_of, noise_over
    from ldsaug_ray.lds.race import Race, Racer, bracket_of, race_pairs
    from ldsaug_ray.lds.shards import score_candidates
    from ldsaug_ray.lds.sigma import SIGMA_RULES, ChosenSigma, SigmaRule, resolve_sigma, sigma_from_norm
    from ldsaug_ray.lds.weights import lds_weights, log_mean_weight
else:
    __getattr__ = lazily(__name__, __file__)
