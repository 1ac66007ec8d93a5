"""The explorer's data: candidates as typed arrays that its script selects among as `selection/` does, some decoded.

Of more than `EXPLORED` candidates a seeded sample, drawn without regard to score, stands for all.
"""

from __future__ import annotations

import base64
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from ldsaug_ray.config import Config
from ldsaug_ray.domains import domain_of
from ldsaug_ray.domains.images.stored import png_bytes
from ldsaug_ray.lds import Noise, interpolate
from ldsaug_ray.lds.shards import score_candidates
from ldsaug_ray.metrics.classes import shares_of
from ldsaug_ray.models import Codec, decode_batch
from ldsaug_ray.report._scores import data_uri
from ldsaug_ray.report.data import Explorer, Scores
from ldsaug_ray.report.sheets import shown
from ldsaug_ray.run.directory import RunDir, facts_of
from ldsaug_ray.run.latents import Latents
from ldsaug_ray.selection.balance import cells, nearer

EXPLORED = 50_000  # a megabyte of the page
SHELLS, EACH = 8, 12  # decoded: up to EACH of each halving of either ranking, so that few kept ones have pictures too
SIDE = 64  # px, at most
FIELDS = ("which", "rank", "tau", "typical", "top_fraction", "top_count", "stratify", "balance", "exclude_parents")


def explorer_of(
    config: Config, latents: Latents, scores: Scores, run: RunDir, vae: Codec, noise: Noise | None, sigma: float
) -> Explorer:
    """What the page's explorer needs; with `report.sigmas` its candidates are scored again at these bandwidths."""
    rows = np.arange(len(scores))
    if len(rows) > EXPLORED:
        rows = np.sort(np.random.default_rng([config.seed, EXPLORED]).choice(rows, EXPLORED, replace=False))
    ids, i, j = (c[rows] for c in (scores.candidate, scores.parent_i, scores.parent_j))
    alpha = scores.alpha[rows]
    near = np.where(nearer(ids, alpha, config.seed), j, i)

    def points(some: NDArray[np.int64] | slice) -> NDArray[np.float32]:
        how = config.score.interpolation
        return interpolate(latents.z, i[some], j[some], alpha[some], how, noise, ids[some])

    columns = ("log_lds", "log_lds_excluding_parents", "parent_share", "effective_neighbours")
    at = [{"sigma": sigma, **{name: getattr(scores, name)[rows] for name in columns}}]
    if config.report.sigmas:
        others = [sigma * scale for scale in config.report.sigmas]
        found = score_candidates(latents.z, np.stack([i, j], axis=1), points(slice(None)), others)
        at += [{"sigma": s, **{name: getattr(found, name)[:, k] for name in columns}} for k, s in enumerate(others)]
    at.sort(key=lambda bandwidth: bandwidth["sigma"])
    score, each = at[[b["sigma"] for b in at].index(sigma)]["log_lds"], min(EACH, config.report.samples)
    chosen = np.union1d(*(_shown(by, each, config.seed) for by in (score, -_ranks_within(score, near))))
    alphas = config.score.plan_alphas
    own, default = ({f: getattr(s, f) for f in FIELDS} for s in (config.select, type(config.select)()))
    payload = {
        "total": scores.n_total,
        "kept": int(scores.selected.sum()) / len(scores),
        "seed": config.seed,
        "select": own,
        "defaults": default,
        "sigma": config.score.sigma.model_dump(mode="json"),
        "own": [b["sigma"] for b in at].index(sigma),
        "alphas": alphas,
        "alpha": _whole(ids % len(alphas)),
        "sigmas": [
            {"sigma": b["sigma"], **{c: _packed(b[c], "<f4") for c in columns}}  # scores are no more exact
            for b in at
        ],
        "groups": {n: _whole(of[near]) for n, of in _groups(config, latents).items()},
        "labels": [_label(latents, name, near) for name in _asked(config, latents)],
        "shown": chosen.tolist(),
    }
    items = shown(domain_of(config), decode_batch(vae, points(chosen), config.decode.batch_size), facts_of(run.root))
    names = ids[chosen].tolist()
    fragments = items if isinstance(items, list) else list(map(_picture, names, items))
    return Explorer(
        payload, dict(zip(names, fragments, strict=True)), len(rows) if len(rows) < scores.n_total else None
    )


def _picture(candidate: int, tile: NDArray[np.uint8]) -> str:
    if len(tile) > SIDE:
        tile = np.asarray(Image.fromarray(tile).resize((SIDE, SIDE), Image.Resampling.BOX))
    alt = f"Candidate {candidate}, decoded by the baseline."
    return f'<img src="{data_uri("image/png", png_bytes(tile))}" alt="{alt}">'


def _packed(values: ArrayLike, kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, np.dtype(kind)).tobytes()).decode()


def _whole(values: NDArray[np.int64]) -> str:
    """Whole numbers from 0 on, in as few bytes each as the largest needs: 1, 2 or 4."""
    return _packed(values, np.min_scalar_type(values.max()).newbyteorder("<").str)


def _ranks_within(score: NDArray[np.float64], of: NDArray[np.int64]) -> NDArray[np.float64]:
    """Rank of each row in its group, 0 the densest, over the group's size: what balance keeps has pictures too."""
    order = np.lexsort((np.arange(len(score)), -score, of))
    sizes = np.bincount(of)
    ranks = np.empty(len(score))
    ranks[order] = np.arange(len(score)) - (np.cumsum(sizes) - sizes)[of[order]]
    return np.asarray((ranks + 0.5) / sizes[of])


def _shown(score: NDArray[np.float64], each: int, seed: int) -> NDArray[np.int64]:
    """Rows to decode, ascending: up to `each` of each halving of the ranking, the last SHELLS times halved."""
    order, rng = np.lexsort((np.arange(len(score)), -score)), np.random.default_rng([seed, SHELLS])
    edges = [0, *(len(order) >> k for k in range(SHELLS - 1, -1, -1))]
    shells = [order[a:b] for a, b in pairwise(edges)]
    return np.sort(np.concatenate([rng.choice(s, min(each, len(s)), replace=False) for s in shells]))


def _asked(config: Config, latents: Latents) -> list[str]:
    asked = {*latents.categorical, *config.evaluate.attributes, config.select.balance.removeprefix("label:")}
    known = zip(latents.attribute_names, latents.attributes.T, strict=True)
    return [name for name, labels in known if name in asked and labels.any()]


def _groups(config: Config, latents: Latents) -> dict[str, NDArray[np.int64]]:
    """Group of each training latent by every balance that these latents allow, as `selection.balance.grouping`."""
    n, k = len(latents), config.select.clusters
    groups = {"parent": np.arange(n)}
    if k <= n:
        groups["cluster"] = cells(latents.z, k, config.seed)
    for name in _asked(config, latents):
        of = latents.attributes[:, latents.attribute_names.index(name)]
        if of.all():
            groups[f"label:{name}"] = np.unique(of, return_inverse=True)[1].reshape(-1)
    return groups


def _label(latents: Latents, name: str, near: NDArray[np.int64]) -> dict[str, Any]:
    of = latents.attributes[:, latents.attribute_names.index(name)]
    values = np.unique(of[of != 0])
    number = np.where(of == 0, 0, np.searchsorted(values, of) + 1)
    many = name in latents.categorical
    names = [str(v - 1) if many else "yes" if v > 0 else "no" for v in values.tolist()]
    return {"name": name, "values": names, "train": shares_of(of, values).tolist(), "of": _whole(number[near])}
