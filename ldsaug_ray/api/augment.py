"""`augment`: from latents to the dense interpolants between them, by the stages `score` and `select` themselves.

Latents at hand are put into a run directory in this process's memory, so the answer is that of the command line. Of a
Dataset they lie in a folder, and the work is Ray's (`api.datasets`).
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from ldsaug_ray.api.arguments import array_of, in_arguments, labels_of, settings_of
from ldsaug_ray.common.storage import Location, Place
from ldsaug_ray.config import Config
from ldsaug_ray.errors import InputError, LdsaugError

if TYPE_CHECKING:
    from ray.data import Dataset

    from ldsaug_ray.lds import Regime
    from ldsaug_ray.run.directory import RunDir
    from ldsaug_ray.run.latents import Latents


@dataclass(frozen=True)
class Findings:
    """In which regime the selection was made: sentences for people, numbers for programs (`ldsaug_ray.lds.Regime`)."""

    sentences: tuple[str, ...]
    numbers: Regime


@dataclass(frozen=True, eq=False)
class Augmented:
    """The candidates that were kept, M of them, by candidate number.

    Attributes:
        z: float32[M, d], the latents, to be decoded.
        parents: int64[M, 2], rows of the latents that were given.
        alpha: float64[M]; z = (1 - alpha) z_i + alpha z_j, or on the arc between them.
        log_lds: float64[M], log LDS at the bandwidth sigma.
        labels: [M], that of the nearer parent (half-way of either, by a hash); none where none were given.
        candidate: int64[M], numbers in the plan, 0..n-1.
        sigma: the bandwidth, in the latents' units.
        regime: what the scores reward on these latents.
    """

    z: NDArray[np.float32]
    parents: NDArray[np.int64]
    alpha: NDArray[np.float64]
    log_lds: NDArray[np.float64]
    labels: NDArray[Any] | None
    candidate: NDArray[np.int64]
    sigma: float
    regime: Findings

    def __len__(self) -> int:
        return len(self.z)


@overload
def augment(
    z: Dataset,
    *,
    n: int = ...,
    plan: str = ...,
    sigma: Any = ...,
    keep: float | None = ...,
    balance: str | None = ...,
    labels: Any = ...,
    held_out: Any = ...,
    seed: int = ...,
    work_dir: Place | None = ...,
    **settings: Any,
) -> Dataset: ...


@overload
def augment(
    z: ArrayLike,
    *,
    n: int = ...,
    plan: str = ...,
    sigma: Any = ...,
    keep: float | None = ...,
    balance: str | None = ...,
    labels: Any = ...,
    held_out: Any = ...,
    seed: int = ...,
    work_dir: Place | None = ...,
    **settings: Any,
) -> Augmented: ...


def augment(
    z: Any,
    *,
    n: int = 50_000,
    plan: str = "random",
    sigma: Any = "norm/5",
    keep: float | None = 0.2,
    balance: str | None = None,
    labels: Any = None,
    held_out: Any = None,
    seed: int = 0,
    work_dir: Place | None = None,
    **settings: Any,
) -> Augmented | Dataset:
    """Interpolate between latents, score every candidate by its Latent Density Score, keep the dense ones.

    The defaults are the paper's. What is kept is what `ldsaug run` keeps with these settings on these latents, when
    their keys sort as the rows do: to the last bit with one thread (`workers={"cpus": 8}` gives the scores eight).

    Args:
        z: float[N, d], N >= 2: an array, or a torch tensor on any device. Or a `ray.data.Dataset` with columns `key`
            (text or whole numbers, each once) and `z` (vectors of one length): then nothing happens before the Dataset
            that comes back is consumed; candidates are scored by Ray, part by part, and never held.
        n: candidates to score.
        plan: "random", "blocks", "neighbours", or "single" (with noise=…), as `score.plan`.
        sigma: bandwidth: a number, "norm/5", the name of a rule ("parent_share", "leave_one_out", "scott", …), or a
            mapping such as {"rule": "parent_share", "share": 0.2}.
        keep: a share of the densest (a float), a count of them (an int), or none where another rule says what is
            kept. The default does not hold beside tau, typical, top_fraction or top_count.
        balance: none, or within which groups the densest are kept, as `select.balance`; "label": those of `labels`.
        labels: [N], one a row, of at most 127 kinds; of a Dataset, the name of a column.
        held_out: float[h, d], latents of real data that the density is not made of: for tau="auto" and typical, and
            for what `regime` says of them.
        seed: of the candidates.
        work_dir: of a Dataset: a folder or URI that every node reaches, where scores are kept; the same call goes on
            where it was stopped. None: a temporary folder, which will do on one node.
        settings: further settings of `score` and `select` by name: which="typical", tau=0.05, alphas=(0.5,),
            noise=0.5, interpolation="slerp", exclude_parents=True, backend="faiss", …; `ldsaug settings` lists them.

    Returns:
        `Augmented`, or a lazy Dataset with columns key, z, candidate, parent_i, parent_j (keys), alpha, log_lds.

    Raises:
        InputError: z, labels or held_out cannot be used. ConfigError: a setting is unknown or impossible.
        NothingSelectedError: no candidate passes; the message lists thresholds that some would pass.

    >>> import numpy as np
    >>> z = np.random.default_rng(0).normal(size=(200, 8))
    >>> a = augment(z, n=900, keep=0.2)
    >>> a.z.shape, a.parents.shape, a.log_lds.dtype
    ((180, 8), (180, 2), dtype('float64'))
    >>> i, j = a.parents[0]
    >>> bool(np.allclose(a.z[0], (1 - a.alpha[0]) * z[i] + a.alpha[0] * z[j], atol=1e-6))
    True
    """
    arguments = {"n": n, "plan": plan, "sigma": sigma, "keep": keep, "balance": balance, "seed": seed, "more": settings}
    arguments |= {"labelled": labels is not None, "held_out": held_out is not None}
    real = None if held_out is None else array_of(held_out, "held_out")
    if type(z).__module__.startswith("ray.data"):
        from ldsaug_ray.api.datasets import selected_of
        from ldsaug_ray.engines.ray.datasets import later

        if not isinstance(labels, str | None):
            raise InputError(f"labels: of a Dataset, the name of a column; found {type(labels).__name__}")
        root = None if work_dir is None else Location.of(work_dir)
        config = settings_of("latents", engine="ray", **arguments)
        return later(partial(selected_of, z, labels, real, config, root))
    if work_dir is not None:
        raise InputError("work_dir is for a Dataset; arrays need no folder")
    given = array_of(z, "z", rows=2)
    if real is not None and real.shape[1] != given.shape[1]:
        raise InputError(f"held_out has {real.shape[1]} columns, z has {given.shape[1]}")
    known, of = (None, None) if labels is None else labels_of(labels, len(given))
    keys = pa.array(np.char.zfill(np.arange(len(given)).astype(str), len(str(len(given)))))
    config = settings_of("latents", engine="inline", **arguments)
    root = Location.of(f"memory://ldsaug-{uuid.uuid4().hex}")
    try:
        from ldsaug_ray.api.staged import selected
        from ldsaug_ray.engines.inline import InlineEngine

        run = selected(root, config, InlineEngine(config), [(keys, given, of)], real)
        return _augmented(run, config, given, known, of)
    except LdsaugError as e:
        raise type(e)(in_arguments(str(e))) from e
    finally:
        root.delete()


def _augmented(
    run: RunDir, config: Config, z: NDArray[np.float32], known: NDArray[Any] | None, of: NDArray[np.int8] | None
) -> Augmented:
    from ldsaug_ray.api.staged import KEPT
    from ldsaug_ray.lds import Noise, interpolate
    from ldsaug_ray.run.latents import read_latents
    from ldsaug_ray.selection.balance import nearer

    tables = [file.read_table(KEPT.names) for file in run.folder("selected").files(".parquet")]
    kept = pa.concat_tables([*tables, KEPT.empty_table()]).sort_by("candidate")
    parents = np.stack([pc.cast(kept[side], "int64").to_numpy() for side in ("parent_i", "parent_j")], axis=1)
    alpha, ids = kept["alpha"].to_numpy(), kept["candidate"].to_numpy()
    noise = Noise.kept(run.require("score"), config.seed)
    nearest = np.where(nearer(ids, alpha, config.seed), parents[:, 1], parents[:, 0])
    return Augmented(
        z=interpolate(z, parents[:, 0], parents[:, 1], alpha, config.score.interpolation, noise, ids),
        parents=parents,
        alpha=alpha,
        log_lds=kept["log_lds"].to_numpy(),
        labels=None if known is None or of is None else known[of[nearest] - 1],
        candidate=ids,
        sigma=run.require("score", "sigma"),
        regime=_findings(run, config, read_latents(run, "train")),
    )


def _findings(run: RunDir, config: Config, latents: Latents) -> Findings:
    from ldsaug_ray.lds import HeldOut, Noise, sentences
    from ldsaug_ray.report._scores import read_scores, regime_of

    score, select = run.require("score"), run.require("select")
    of = read_scores(run, latents, select["ranked_by"], config.seed)
    held_out = None if score["held_out"] is None else HeldOut(**score["held_out"])
    found = regime_of(latents, of, config.score.interpolation, Noise.kept(score, config.seed), held_out)
    bandwidth = f"sigma = {score['sigma']:.4g}, {score['sigma_sentence']}."
    kept = f"{select['sentence'][0].upper()}{select['sentence'][1:]}."
    return Findings((bandwidth, kept, *sentences(found)), found)
