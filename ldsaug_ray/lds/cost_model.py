"""Which way of scoring is predicted to take least time: exact, approximate (`faiss`), or a race for the selection.

Exact scores cost one inner product for each distinct parent and latent, and one kernel value for each candidate and
latent. A search for the parents' neighbours costs the same products again, unless the lists are at hand, an index
narrows it, or the processor multiplies bfloat16 matrices. So the other ways only pay where that search is cheap, or
where each parent has many candidates. The constants were measured on two cores (docs/benchmarks.md); their ratios
matter, not their size. What a race reads depends on the data and sigma: the shares are fitted to the ones measured
without parents, on Gaussian latents and faces.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ldsaug_ray.errors import ConfigError
from ldsaug_ray.lds.index import LEAST_FOR_CODES, PER_LIST, Approximation

PRODUCT = 3.1e-3  # seconds a GFLOP, float32
VALUES_IN_TENTHS, VALUES = 0.064, 0.79  # seconds a G kernel values: alphas 0.1 ... 0.9 on the line, any others
SEARCH = {"float32": 5.2e-3, "bfloat16": 2.9e-3, "flat": 3.8e-3, "ivf": 0.2}  # seconds a GFLOP of what is looked at
TRAINING_PASSES = 10  # of k-means over the vectors an index with lists is trained on
# what near fields and intervals take beside the products: seconds at least, and seconds a candidate
FIXED, OF_ESTIMATE, OF_RACE = 0.3, 1.5e-5, 5e-5


@dataclass(frozen=True)
class Choice:
    """backend: the fastest of those allowed; seconds: predicted for each, by name; sentence: why, for a log."""

    backend: str
    seconds: dict[str, float]
    sentence: str


def choose_backend(
    n: int,
    d: int,
    n_candidates: int,
    *,
    n_alphas: int = 9,
    n_sigmas: int = 1,
    tenths: bool = True,
    block: tuple[int, int] | None = None,
    approximation: Approximation | None = None,
    products: str = "float32",
    lists_at_hand: bool = False,
    index_at_hand: bool = False,
    allow_estimates: bool = False,
    decisions_only: bool = False,
) -> Choice:
    """Compare `exact` with `faiss`, if estimates will do, and `race`, if only the selection must be exact.

    n, d: latents and their length; n_candidates over random pairs, or in blocks of that shape; tenths: whether alphas
    are among 0.1 ... 0.9 on the line; products: of the race's search, see `nearest`; lists_at_hand: the parents'
    neighbours are known; index_at_hand: the index need not be built. Raises ConfigError for counts below 1.
    """
    if min(n, d, n_candidates, n_alphas, n_sigmas) < 1:
        raise ConfigError(f"counts must be at least 1; found {(n, d, n_candidates, n_alphas, n_sigmas)}")
    if products not in ("float32", "bfloat16"):
        raise ConfigError(f"unknown products {products!r}; possible: float32, bfloat16")
    settings = approximation or Approximation()
    draws = 2 * math.ceil(n_candidates / n_alphas)
    parents = n * -math.expm1(draws * math.log1p(-1 / n)) if n > 1 else 1.0  # distinct ones among so many draws
    value = VALUES_IN_TENTHS if tenths else VALUES
    if block is not None:  # a kernel value is a term of two matrix products, for its sum and that of squares
        parents = math.ceil(n_candidates / (n_alphas * block[0] * block[1])) * sum(block)
        value = 4 * PRODUCT
    gigaflop = 2e-9 * parents * n * d
    product, values = PRODUCT * gigaflop, value * 1e-9 * n_candidates * n * n_sigmas
    seconds = {"exact": product + values}
    if allow_estimates:
        share = min(1.0, settings.sample / n)
        search = _index_seconds(settings, n, d, gigaflop, index_at_hand)
        seconds["faiss"] = FIXED + OF_ESTIMATE * n_candidates * n_sigmas + share * seconds["exact"] + search
    if decisions_only:
        read, evaluated = min(1.0, 12 * n**-0.31), min(1.0, 60 * n**-0.5)
        search = 0.0 if lists_at_hand else SEARCH[products] * gigaflop
        # one sigma at a time; whole pairs, or their undecided candidates as points, an exponential each
        seconds["race"] = (
            n_sigmas * (FIXED + OF_RACE * n_candidates + read * product)
            + search
            + min(values, evaluated * values * VALUES / value)
        )
    backend = min(seconds, key=lambda name: seconds[name])
    times = ", ".join(f"{name} {took:.3g} s" for name, took in seconds.items())
    sentence = (
        f"backend {backend}: predicted {times} on two cores, for {n_candidates:,} candidates of {parents:,.0f} parents"
    )
    return Choice(backend, seconds, f"{sentence} and {n:,} latents of {d} numbers")


def _index_seconds(settings: Approximation, n: int, d: int, gigaflop: float, at_hand: bool) -> float:
    """Seconds to build the index, unless it is there, and to search it."""
    structure = settings.structure(n, d)
    if structure["kind"] == "flat":
        return SEARCH["flat"] * gigaflop
    lists = int(structure["lists"])
    trained = min(n, PER_LIST * max(lists, LEAST_FOR_CODES))
    build = 0.0 if at_hand else SEARCH["flat"] * 2e-9 * d * lists * (TRAINING_PASSES * trained + n)
    probed = min(1.0, (settings.probes or max(1, lists // 16)) / lists)
    return build + SEARCH["ivf"] * probed * gigaflop
