"""Interpolants as samples, and the densest of them: candidates about the latents, each latent equally often.

Draw k belongs to the latent b = order[k mod N] and its round r = k // N. `interpolants` takes one candidate of b a
round. `lds` makes `of` of them for every `kept` rounds, ranks these by LDS, and takes one of the `kept` densest a
round, in an order by the seed: draws are as dense whether few or many are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from ldsaug_ray.config import Sampling
from ldsaug_ray.errors import InputError
from ldsaug_ray.lds import nearest_latents, noise_of, sigma_from_norm, validate_latents
from ldsaug_ray.models.priors.base import PRIORS, Fitted, Latents, Prior
from ldsaug_ray.models.priors.noise import noise

ORDER = int.from_bytes(b"order", "big")  # keeps these random numbers apart from others of the same seed
TILE = 2**16  # candidates scored at once, about


class Interpolants(Prior):
    """One candidate of a latent a draw."""

    title = "interpolants between the latents"
    words = "interpolants between the training images' latents"
    reads: ClassVar = "drawn"
    settings: ClassVar = ("candidates",)
    plan, noise = "random", 0.0  # by default

    def fit(self, latents: Latents, settings: Sampling, seed: int, *, of_a: int = 0) -> Fitted:
        """As `Prior.fit`: the radius of the noise, and each latent's nearest where these are wanted."""
        z, how = validate_latents(latents, name="the latents of the prior"), settings.candidates
        plan = self.plan if how.plan == "auto" else how.plan
        share = self.noise if how.noise == "auto" else how.noise
        others = {"random": 1, "neighbours": how.neighbours, "single": 0}[plan]
        if others >= len(z):
            setting = f"neighbours = {how.neighbours}" if plan == "neighbours" else "plan = random"
            raise InputError(f"sample.candidates.{setting} needs more than the {len(z)} latents")
        if plan == "single" and not share:
            raise InputError("sample.candidates.plan = single is noise about latents: noise must be above 0")
        found: dict[str, Any] = {"plan": plan, "noise": share, "radius": 0.0}
        if share:
            found["radius"] = noise_of(z, share, seed, "sample.candidates.noise").radius
        if plan == "neighbours":
            found["nearest"] = nearest_latents(z, how.neighbours, seed)
        found["alphas"] = np.array([0.0] if plan == "single" else how.alphas)
        return found

    def draw(self, fitted: Fitted, latents: Latents, start: int, stop: int, seed: int) -> NDArray[np.float32]:
        k = np.arange(start, stop)
        return made(fitted, latents, _order(len(latents), seed)[k % len(latents)], k, seed)[1]

    def sentence(self, facts: Mapping[str, Any], latents: str) -> str:
        return f"{_PLANS[facts['plan']]} of {latents}{_noisy(facts)}"


class Densest(Interpolants):
    """The densest candidates of a latent."""

    title = "the densest candidates about each latent"
    words = "the densest candidates about each of them (section candidates has how)"
    plan, noise = "single", 0.75

    def fit(self, latents: Latents, settings: Sampling, seed: int, *, of_a: int = 0) -> Fitted:
        """As `Prior.fit`: also the bandwidth."""
        how = settings.candidates
        sigma = sigma_from_norm(latents[: len(latents) - of_a], how.scale)
        kept = max(1, round(how.keep * how.of))
        found = super().fit(latents, settings, seed, of_a=of_a)
        return {**found, "sigma": sigma, "of": how.of, "kept": kept, "exclude_parents": how.exclude_parents}

    def draw(self, fitted: Fitted, latents: Latents, start: int, stop: int, seed: int) -> NDArray[np.float32]:
        from ldsaug_ray.lds import score_candidates

        n, of, kept = len(latents), int(fitted["of"]), int(fitted["kept"])
        base, turn = _order(n, seed)[np.arange(start, stop) % n], np.arange(start, stop) // n
        out = np.empty((stop - start, latents.shape[1]), np.float32)
        group = turn // kept * n + base
        groups, of_draw = np.unique(group, return_inverse=True)
        for first in range(0, len(groups), max(1, TILE // of)):
            some = groups[first : first + max(1, TILE // of)]
            ids = (some[:, None] * of + np.arange(of)).reshape(-1)
            pairs, z = made(fitted, latents, np.repeat(some % n, of), ids, seed)
            scored = score_candidates(latents, pairs, z, [fitted["sigma"]])
            log_lds = scored.log_lds_excluding_parents if fitted["exclude_parents"] else scored.log_lds
            ranked = np.argsort(-log_lds.reshape(-1, of), axis=1, kind="stable")[:, :kept]
            for place, number in enumerate(some):
                draws = np.flatnonzero(of_draw == first + place)
                order = np.random.default_rng([seed, ORDER, int(number)]).permutation(kept)
                out[draws] = z[place * of + ranked[place, order[turn[draws] % kept]]]
        return out

    def sentence(self, facts: Mapping[str, Any], latents: str) -> str:
        without = ", own parents left out" if facts["exclude_parents"] else ""
        return (
            f"of {facts['of']} candidates about each of {latents} ({_PLANS[facts['plan']]}{_noisy(facts)}) the "
            f"{facts['kept']} densest, sigma = {facts['sigma']:.4g}{without}"
        )


_PLANS = {"random": "random pairs", "neighbours": "pairs of neighbours", "single": "single latents"}


def _noisy(facts: Mapping[str, Any]) -> str:
    return f" with noise of {facts['noise']:g} nearest distances" if facts["noise"] else ""


def made(
    fitted: Fitted, latents: Latents, base: NDArray[np.int64], ids: NDArray[np.int64], seed: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Candidates of base latents int64[M], each a function of (seed, id): parents int64[M, 2] and z float32[M, d]."""
    n, d = latents.shape
    u, eps = np.empty(len(ids)), np.empty((len(ids), d + 1))
    for a, b in pairwise([*np.flatnonzero(np.diff(ids, prepend=-2) != 1), len(ids)]):  # ids that follow each other
        u[a:b], eps[a:b] = noise(d + 1, int(ids[a]), int(ids[a]) + int(b - a), seed)
    alphas = fitted["alphas"]
    alpha = alphas[np.minimum((ndtr(eps[:, 0]) * len(alphas)).astype(np.int64), len(alphas) - 1)]
    other = base
    if fitted["plan"] == "random":
        other = (base + 1 + (u * (n - 1)).astype(np.int64)) % n
    elif fitted["plan"] == "neighbours":
        nearest = fitted["nearest"]
        other = nearest[base, (u * nearest.shape[1]).astype(np.int64)]
    z = (1 - alpha)[:, None] * latents[base] + alpha[:, None] * latents[other]
    if fitted["radius"]:
        away = eps[:, 1:]
        z += away * (fitted["radius"] / np.linalg.norm(away, axis=1, keepdims=True))
    return np.stack([base, other], axis=1), z.astype(np.float32)


def _order(n: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, ORDER]).permutation(n)


PRIORS.add("interpolants", Interpolants())
PRIORS.add("lds", Densest())
