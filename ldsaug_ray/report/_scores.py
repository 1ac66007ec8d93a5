"""The scores of a run, one file at a time: exact counts over all candidates, and a sample for the figures.

Up to `LIMIT` candidates are all taken. Of more, that many are drawn without regard to score, the same ones for every
reading of the same run.
"""

from __future__ import annotations

import base64
import csv
import io
import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Interpolation
from ldsaug_ray.lds import Candidates, HeldOut, Noise, Regime, latent_norms, norms_from_mean, regime
from ldsaug_ray.report.data import AttributeShare, Parents, Scores
from ldsaug_ray.report.images import evenly
from ldsaug_ray.run.directory import RunDir
from ldsaug_ray.run.latents import Latents
from ldsaug_ray.selection import PAPER_TAU

LIMIT = 200_000
CSV_LIMIT = 20_000
ATTRIBUTES_SHOWN = 10
_COLUMNS = (
    "candidate",
    "parent_i",
    "parent_j",
    "alpha",
    "log_lds",
    "log_lds_excluding_parents",
    "parent_share",
    "effective_neighbours",
)


def read_scores(run: RunDir, latents: Latents, ranked_by: str, seed: int, limit: int = LIMIT) -> Scores:
    """Candidates with their scores and whether they were selected.

    Args:
        ranked_by: the column that `select` ranked by.
    """
    total = run.require("score", "rows_out")
    chosen = _places(total, limit, seed)
    pieces: list[dict[str, NDArray[np.generic]]] = []
    start = above = 0
    largest = -math.inf
    for file in run.folder("scores").files(".parquet"):
        table = file.read_table(list(_COLUMNS))
        score = table[ranked_by].to_numpy()
        above += int((score > math.log(PAPER_TAU)).sum())
        largest = max(largest, float(score.max(initial=-math.inf)))
        first, last = np.searchsorted(chosen, [start, start + len(table)])
        start += len(table)
        if first == last:
            continue
        taken = table.take(pa.array(chosen[first:last] - (start - len(table))))
        piece = {n: taken[n].to_numpy() for n in _COLUMNS if not n.startswith("parent_") or n == "parent_share"}
        pieces.append(piece | {n: latents.rows(taken[n]) for n in ("parent_i", "parent_j")})
    columns = {n: np.concatenate([p[n] for p in pieces]) for n in _COLUMNS}
    order = np.argsort(columns["candidate"], kind="stable")
    columns = {n: c[order] for n, c in columns.items()}
    selected = np.zeros(len(order), bool)
    for file in run.folder("selected").files(".parquet"):
        selected |= np.isin(columns["candidate"], file.read_table(["candidate"])["candidate"].to_numpy())
    return Scores(n_total=total, n_above_paper=above, max_log=largest, selected=selected, **columns)


def read_ranked(run: RunDir, ranked_by: str, samples: int, seed: int) -> pa.Table | None:
    """Up to `samples` selected candidates, evenly spread over their ranking: columns of `scores/` and `rank`, from 1.

    None where none is selected.

    Of more than `LIMIT` selected a sample is ranked, and `rank` is scaled to all of them.
    """
    files = run.folder("selected").files(".parquet")
    total = run.require("select", "rows_out")
    if not total:
        return None
    table = pa.concat_tables(_taken(files, ["candidate", ranked_by], _places(total, LIMIT, seed)))
    order = np.lexsort((table["candidate"].to_numpy(), -table[ranked_by].to_numpy()))
    places = evenly(len(order), samples)
    wanted = table["candidate"].to_numpy()[order[places]]
    found = []
    for file in files:
        part = file.read_table(list(_COLUMNS))
        found.append(part.filter(pa.array(np.isin(part["candidate"].to_numpy(), wanted))))
    rows = pa.concat_tables(found)
    place = {int(c): k for k, c in enumerate(wanted)}
    back = np.argsort([place[c] for c in rows["candidate"].to_pylist()])
    ranks = np.rint(places * (total / len(order))).astype(np.int64) + 1
    return rows.take(pa.array(back)).append_column("rank", pa.array(ranks))


def read_parents(run: RunDir, latents: Latents) -> Parents:
    """How often each training image is a parent of a selected candidate, and what that does to the attributes."""
    uses = np.zeros(len(latents.keys), np.int64)
    for file in run.folder("selected").files(".parquet"):
        table = file.read_table(["parent_i", "parent_j"])
        i, j = (latents.rows(table[side]) for side in ("parent_i", "parent_j"))
        for rows in (i, j[j != i]):  # once where it is the only parent
            uses += np.bincount(rows, minlength=len(uses))
    shares = []
    for name, values in zip(latents.attribute_names, latents.attributes.T, strict=True):
        known = values != 0
        each = np.unique(values[known]).tolist() if name in latents.categorical else [1]
        for value in each if known.any() and uses[known].any() else ():
            yes, shown = values == value, f"{name} {value - 1}" if name in latents.categorical else name
            share = float(yes.sum() / known.sum())
            shares.append(AttributeShare(shown, share, float(uses[yes].sum() / uses[known].sum())))
    shares.sort(key=lambda s: (-abs(s.parents - s.train), s.name))
    return Parents(int((uses > 0).sum()), int(uses.max()), tuple(shares[:ATTRIBUTES_SHOWN]), len(shares))


def selected_csv(run: RunDir) -> str | None:
    """The selected candidates as CSV text, by candidate number; None where there are none, or more than `CSV_LIMIT`."""
    if not 0 < run.require("select", "rows_out") <= CSV_LIMIT:
        return None
    columns = ["candidate", "parent_i", "parent_j", "alpha", "log_lds"]
    table = pa.concat_tables(f.read_table(columns) for f in run.folder("selected").files(".parquet"))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*(table.sort_by("candidate")[c].to_pylist() for c in columns), strict=True))
    return out.getvalue()


def data_uri(kind: str, content: bytes) -> str:
    """`data:KIND;base64,…`."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _places(n: int, limit: int, seed: int) -> NDArray[np.int64]:
    """Ascending places of 0..n-1: all, or `limit` of them drawn at random."""
    if n <= limit:
        return np.arange(n)
    return np.sort(np.random.default_rng([seed, n]).choice(n, limit, replace=False, shuffle=False))


def _taken(files: Sequence[Location], columns: list[str], chosen: NDArray[np.int64]) -> list[pa.Table]:
    taken, start = [], 0
    for file in files:
        table = file.read_table(columns)
        first, last = np.searchsorted(chosen, [start, start + len(table)])
        taken.append(table.take(pa.array(chosen[first:last] - start)))
        start += len(table)
    return taken


def regime_of(
    latents: Latents, scores: Scores, interpolation: Interpolation, noise: Noise | None, held_out: HeldOut | None
) -> Regime:
    """What the scores reward on these latents; noise: of the candidates; held_out: log LDS of test images."""
    candidates = Candidates(scores.candidate, scores.parent_i, scores.parent_j, scores.alpha)
    return regime(
        log_lds=scores.log_lds,
        log_lds_excluding_parents=scores.log_lds_excluding_parents,
        parent_share=scores.parent_share,
        effective_neighbours=scores.effective_neighbours,
        alpha=scores.alpha,
        selected=scores.selected,
        distance_to_mean=norms_from_mean(latents.z, candidates, interpolation, noise),
        train_distance_to_mean=latent_norms(latents.z),
        held_out=held_out,
    )
