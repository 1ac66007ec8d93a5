"""What the page shows, as frozen values: everything `gather` read from the run directory, and nothing else.

Logarithms are natural. Pictures are uint8 tiles, already of the size that the page shows. Long, since every value of
the page is listed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ldsaug_ray.lds import HeldOut, Regime
from ldsaug_ray.metrics import Described, Evaluated, SetReadings
from ldsaug_ray.run.quarantine import Quarantine

Floats = NDArray[np.float64]
Tiles = NDArray[np.uint8] | list[str]  # [n, T, T, 3], or of other domains than images a fragment of HTML each


@dataclass(frozen=True)
class StageRow:
    """A line of the accounting; counts are None where the stage was not run."""

    name: str
    does: str
    unit: str
    rows_in: int | None = None
    rows_out: int | None = None
    rows_dropped: int | None = None
    rows_quarantined: int | None = None
    seconds: float | None = None
    rate: float | None = None  # units per second
    resumed: str = ""  # what an earlier, interrupted attempt had done
    digest: str = ""


@dataclass(frozen=True, eq=False)
class Scores:
    """The candidates: all of them, or a sample drawn without regard to score when there are very many."""

    n_total: int
    n_above_paper: int  # of all, by the score that `select` ranks by
    max_log: float  # of all, by the same score
    candidate: NDArray[np.int64]  # [M] and so on
    parent_i: NDArray[np.int64]  # rows of the training latents
    parent_j: NDArray[np.int64]
    alpha: Floats
    log_lds: Floats
    log_lds_excluding_parents: Floats
    parent_share: Floats
    effective_neighbours: Floats
    selected: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.candidate)

    @property
    def sampled(self) -> bool:
        """Whether M is fewer than all."""
        return len(self) < self.n_total

    def ranking(self, ranked_by: str) -> Floats:
        """The score that `select` ranked by, [M]."""
        return self.log_lds if ranked_by == "log_lds" else self.log_lds_excluding_parents


@dataclass(frozen=True)
class Threshold:
    """What `select` found."""

    which: str  # select.which
    sentence: str  # the rule's own, on what it kept
    ranked_by: str  # log_lds or log_lds_excluding_parents
    log: float | None  # lowest log score that was kept; None: no threshold was applied
    rules: Mapping[str, int]  # rule -> how many it alone would keep; empty where none was applied
    binding: str | None
    n_selected: int
    auto_log: float | None  # log tau, where tau is auto
    typical_log: tuple[float, float] | None  # the band, where typical is given


@dataclass(frozen=True)
class Bandwidth:
    """The kernel's σ and where it comes from."""

    sigma: float
    sentence: str  # of the rule that found it
    mean_norm: float  # of the training latents, from the origin
    n_latents: int
    latent_dim: int


@dataclass(frozen=True)
class Estimate:
    """What the scores are, where they are not exact."""

    index: str  # kind of the FAISS index
    width: float  # median width of the intervals of log LDS


@dataclass(frozen=True)
class Shown:
    """A candidate with its picture on the page."""

    candidate: int
    parent_i: str  # keys
    parent_j: str
    alpha: float
    log_lds: float
    parent_share: float
    effective_neighbours: float


@dataclass(frozen=True, eq=False)
class Band:
    """Candidates between two quantiles of log LDS, and a few of them decoded. Number 1 is the densest."""

    number: int
    low: float
    high: float
    n: int  # candidates in the band
    n_selected: int
    median_parent_share: float
    members: tuple[Shown, ...]
    tiles: Tiles


@dataclass(frozen=True, eq=False)
class Pick:
    """A selected candidate between its parents: tiles are parent i, decoded, parent j."""

    shown: Shown
    rank: int  # 1 is the densest of the selected
    tiles: Tiles


@dataclass(frozen=True, eq=False)
class Reconstructions:
    """Items and what the models make of them; errors of images are mean squared, pixel values in 0..1, of others the
    codec's own, and none of their mean."""

    split: str  # test, or train where there are no test images
    originals: Tiles
    before: Tiles
    after: Tiles | None  # None: not fine-tuned
    error_before: float
    error_after: float | None
    error_of_mean: float | None  # of answering with the average of these images


@dataclass(frozen=True, eq=False)
class PriorSamples:
    """Images decoded from the same draws of N(0, I) by both models."""

    before: Tiles
    after: Tiles | None  # None: not fine-tuned


@dataclass(frozen=True)
class Sharpness:
    """Variance of the Laplacian: lower quartile, median, upper quartile."""

    split: str  # of the real images: test, or train where there are no test images
    n_real: int
    real: tuple[float, float, float]
    n_augmented: int
    augmented: tuple[float, float, float]
    n_decoded: int  # before the filter; n_augmented where there is none
    least: float | None  # what the filter asks for; None: no filter


@dataclass(frozen=True)
class Curve:
    """Loss curve of one training: points as logged, `step` among them."""

    stage: str
    points: tuple[Mapping[str, float], ...]


@dataclass(frozen=True)
class AttributeShare:
    """Share of an attribute among images whose value is known."""

    name: str
    train: float  # among training images
    parents: float  # among the parents of A, each counted as often as it is a parent


@dataclass(frozen=True)
class Parents:
    """How A uses the training images."""

    n_distinct: int  # training images that are a parent of a selected candidate
    most_used: int  # selected candidates of the parent with the most
    attributes: tuple[AttributeShare, ...]  # largest change first; empty without attributes
    n_attributes: int


@dataclass(frozen=True, eq=False)
class Gallery:
    """Images of a set, and the real image nearest to each: of the test split, or with `copy` of the training split."""

    set: str
    kind: str  # best, worst, copy
    tiles: Tiles
    nearest: Tiles


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What stage `evaluate` found, and what of it the page shows; AuthPct of held-out real images, where known."""

    found: Evaluated
    measures: tuple[Described, ...]
    sets: Mapping[str, SetReadings]  # in the order of the page's columns
    notes: tuple[str, ...]
    authenticity_held_out: float | None
    galleries: tuple[Gallery, ...]


@dataclass(frozen=True, eq=False)
class Explorer:
    """What the explorer's script looks at: JSON values, arrays in base64, little-endian; and decoded candidates."""

    payload: Mapping[str, Any]
    shown: Mapping[int, str]  # candidate -> fragment of HTML
    sampled: int | None  # candidates that stand for all; None: all are in


@dataclass(frozen=True, eq=False)
class ReportData:
    """One finished run."""

    name: str
    version: str
    config: Mapping[str, Any]
    stages: tuple[StageRow, ...]
    n_train: int
    n_test: int
    quarantine: Quarantine
    scores: Scores
    threshold: Threshold
    bandwidth: Bandwidth
    estimate: Estimate | None  # None: exact scores
    held_out: HeldOut | None  # None: no test images
    regime: Regime
    bands: tuple[Band, ...]
    picks: tuple[Pick, ...]
    parents: Parents
    reconstructions: Reconstructions | None  # None: latents are the items
    prior_samples: PriorSamples | None
    sharpness: Sharpness | None  # None: nothing was decoded
    curves: tuple[Curve, ...]
    evaluation: Evaluation | None  # None: not evaluated
    modes: tuple[str, ...]  # sentences on which of them A has; empty for runs of before they were looked at
    selected_csv: str | None  # None: too many rows, or none
    explorer: Explorer
    beside: tuple[str, ...] = ()  # fragments of HTML: A beside real items, as the domain has it
    frontier: Mapping[str, Any] | None = None  # what `ldsaug frontier` told; None: nothing of these scores

    @property
    def finetuned(self) -> bool:
        """Whether the run has a fine-tuned model."""
        return self.reconstructions is not None and self.reconstructions.after is not None
