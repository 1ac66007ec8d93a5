"""A FAISS index over the training latents: built in blocks, saved beside their fingerprint, reused where that matches.

The index holds the latents less their mean: distances do not change, and float32 keeps its digits. What it finds is
measured again on the original vectors, in float64. Works with faiss-cpu and faiss-gpu.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from ldsaug_ray.errors import ConfigError
from ldsaug_ray.lds._frame import EPSILON, Frame, evenly
from ldsaug_ray.lds.latents import row_blocks
from ldsaug_ray.lds.neighbours import Neighbours, squared_distances

Index = NDArray[np.int64]
Kind = Literal["flat", "ivf", "ivfpq"]

FILE, RECORD = "latents.faiss", "latents.faiss.json"
LARGEST_FLAT = 8 * 2**30  # bytes of latents up to which an exhaustive index may hold a copy
PER_LIST = 64  # latents a list is trained on
LEAST_FOR_CODES = 256  # latents: a product quantiser has 256 centres
GPU_LARGEST_K = 2048
ROWS = 4096  # rows searched at a time


@dataclass(frozen=True)
class Approximation:
    """Settings of the approximate backend.

    neighbours: of each parent or point, summed exactly; sample: latents drawn for all the rest; index: auto, flat
    (exhaustive: intervals are certain), ivf (inverted lists) or ivfpq (lists of compressed vectors, whose findings are
    ranked again on the original vectors); lists, probes: of ivf and ivfpq, default about 4 sqrt(N) and a sixteenth of
    them; rerank: how many findings for each neighbour ivfpq ranks again; delta: what an interval may fail with; seed:
    of the sample and of the index's training. Raises ConfigError for impossible values.
    """

    neighbours: int = 64
    sample: int = 8192
    index: Kind | Literal["auto"] = "auto"
    lists: int | None = None
    probes: int | None = None
    rerank: int = 4
    delta: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("neighbours", "sample", "lists", "probes", "rerank"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"approximation.{name} must be at least 1; found {value}")
        if self.index not in ("auto", *get_args(Kind)):
            raise ConfigError(f"approximation.index must be auto, {', '.join(get_args(Kind))}; found {self.index!r}")
        if not 0 < self.delta < 1:
            raise ConfigError(f"approximation.delta must lie between 0 and 1; found {self.delta}")
        if not 0 <= self.seed < 2**31:
            raise ConfigError(f"approximation.seed must be within 0..2**31-1; found {self.seed}")

    def kind(self, n: int, d: int) -> Kind:
        """The index for n latents of d numbers. Raises ConfigError where ivfpq has too few to learn from."""
        if self.index == "ivfpq" and n < LEAST_FOR_CODES:
            raise ConfigError(f"approximation.index = ivfpq needs at least {LEAST_FOR_CODES} latents; found {n}")
        if self.index != "auto":
            return self.index
        # one matrix product after another: faster on CPUs than a sixteenth of the lists, one vector after another
        return "flat" if 4 * n * d <= LARGEST_FLAT else "ivfpq"

    def structure(self, n: int, d: int) -> dict[str, int | str]:
        """What decides how an index over n latents is built: an index with another structure is not reused."""
        kind = self.kind(n, d)
        if kind == "flat":
            return {"kind": kind}
        lists = min(self.lists or min(int(4 * math.sqrt(n)), n // PER_LIST), n)
        codes = max(m for m in range(1, max(1, d // 8) + 1) if d % m == 0) if kind == "ivfpq" else 0
        return {"kind": kind, "lists": max(1, lists), "codes": codes, "seed": self.seed}


class LatentIndex:
    """The index, and the frame that its vectors are in."""

    def __init__(self, index: Any, structure: dict[str, int | str], frame: Frame) -> None:
        self.index, self.structure, self.frame = index, structure, frame
        self._on_gpus: tuple[int, Any] | None = None  # how many lists it probes, and the copy

    @classmethod
    def build(cls, train: NDArray[np.floating], settings: Approximation, frame: Frame | None = None) -> LatentIndex:
        """Train on a sample, add in blocks. train: float[N, d], validated."""
        index = cls.trained(train, settings, frame)
        index.add(train)
        return index

    @classmethod
    def trained(cls, train: NDArray[np.floating], settings: Approximation, frame: Frame | None = None) -> LatentIndex:
        """An index that is trained on a sample and still empty: shards can each be added to a copy, then merged."""
        import faiss

        faiss.omp_set_num_threads(torch.get_num_threads())
        n, d = train.shape
        frame, structure = frame or Frame.over(train), settings.structure(n, d)
        index: Any = faiss.IndexFlatL2(d)
        if structure["kind"] != "flat":
            lists, codes = int(structure["lists"]), int(structure["codes"])
            quantiser = index
            if structure["kind"] == "ivf":
                index = faiss.IndexIVFFlat(quantiser, d, lists)
            else:
                index = faiss.IndexIVFPQ(quantiser, d, lists, codes, 8)
                index.pq.cp.seed = settings.seed + 1
                index.pq.cp.min_points_per_centroid = 1
                index.pq.cp.max_points_per_centroid = PER_LIST
                index.pq.cp.niter = 8  # what 25 improve is ranked again anyway
            index.cp.seed, index.cp.niter = settings.seed + 1, 10
            index.cp.min_points_per_centroid = 1  # small sets train badly; that costs recall, which is measured
            wanted = min(n, max(PER_LIST * lists, PER_LIST * LEAST_FOR_CODES))
            rows = np.sort(np.random.default_rng(settings.seed).choice(n, wanted, replace=False))
            index.train(frame.rows(train[rows], np.float32).vectors)
        return cls(index, structure, frame)

    def add(self, latents: NDArray[np.floating]) -> None:
        """Add latents [K, d], numbered on from those that are there."""
        for block in row_blocks(*latents.shape):
            self.index.add(self.frame.rows(latents[block], np.float32).vectors)

    def merge(self, other: LatentIndex) -> None:
        """Take over the latents of another copy of the same trained index, numbered on; it is empty afterwards."""
        self.index.merge_from(other.index, 0 if self.exhaustive else self.index.ntotal)

    def data(self) -> NDArray[np.uint8]:
        """The index in FAISS's own format."""
        import faiss

        data: NDArray[np.uint8] = faiss.serialize_index(self.index)
        return data

    @classmethod
    def of(cls, data: NDArray[np.uint8], structure: dict[str, int | str], frame: Frame) -> LatentIndex:
        """What `data` gave."""
        import faiss

        return cls(faiss.deserialize_index(np.array(data)), structure, frame)

    def check(self, train: NDArray[np.floating]) -> None:
        """Raise ConfigError where this is not an index over `train`, by its size and by finding some of its rows."""
        found = (self.index.ntotal, self.index.d)
        if found != train.shape:
            raise ConfigError(
                f"the index is over {found[0]} latents of {found[1]} numbers; found {train.shape} to score"
            )
        if self.structure["kind"] == "ivfpq":  # it does not always find a row itself
            return
        rows = evenly(len(train), 8)
        ids = self.index.search(self.frame.rows(train[rows], np.float32).vectors, 1)[1]
        gaps = squared_distances(train, ids, train[rows])[:, 0]
        other = gaps > 1e-6 * self.frame.scale**2 * self.frame.typical_norm
        if other.any():
            raise ConfigError(f"the index is not over these latents: it does not find row {rows[other][0]}")

    @property
    def exhaustive(self) -> bool:
        """Whether a search looks at every latent, so that what it does not find is certainly farther."""
        return self.structure["kind"] == "flat"

    def search(
        self,
        train: NDArray[np.floating],  # [N, d] the original vectors
        points: NDArray[np.floating],  # [R, d]
        own: Index,  # [R] the latent that a point is and that is left out; -1 for none
        settings: Approximation,
    ) -> Neighbours:
        """The nearest latents that the index finds, ranked by their distance on the original vectors."""
        n, k = len(train), min(settings.neighbours, len(train))
        find = min(n, (k + 1) * (settings.rerank if self.structure["kind"] == "ivfpq" else 1))
        index = self._ready(settings, find)
        ids, beyond = np.full((len(points), k), -1, np.int64), np.empty(len(points))
        for top in range(0, len(points), ROWS):
            part = slice(top, min(top + ROWS, len(points)))
            rows = self.frame.rows(points[part], np.float32)
            found = np.ascontiguousarray(index.search(rows.vectors, find)[1])
            found[found == own[part, None]] = -1
            squares = squared_distances(train, found, points[part])
            order = np.argsort(squares, axis=1, kind="stable")[:, :k]
            nearest = np.take_along_axis(squares, order, axis=1)
            ids[part, : order.shape[1]] = np.take_along_axis(found, order, axis=1)
            # float32 may have ranked a latent behind one that is farther: both may be off by as much
            farthest = nearest.max(1)
            size = np.sqrt(rows.norms) * self.frame.scale
            off = (train.shape[1] + 8) * EPSILON * (2 * size + np.sqrt(np.where(farthest < np.inf, farthest, 0))) ** 2
            beyond[part] = np.where(farthest < np.inf, np.maximum(farthest - off, 0), np.inf)
            missing = (ids[part] < 0).sum(1) - (k - np.minimum(k, n - (own[part] >= 0)))
            beyond[part] = np.where(missing > 0, 0.0, beyond[part])  # an inverted list ran out of latents
        return Neighbours(ids, beyond, self.exhaustive or bool((beyond == np.inf).all()))

    def _ready(self, settings: Approximation, find: int) -> Any:
        import faiss

        faiss.omp_set_num_threads(torch.get_num_threads())
        probes = 0
        if not self.exhaustive:
            lists = int(self.structure["lists"])
            probes = min(lists, settings.probes or max(1, lists // 16))
            faiss.extract_index_ivf(self.index).nprobe = probes
        gpus = faiss.get_num_gpus() if hasattr(faiss, "index_cpu_to_all_gpus") else 0
        if not gpus or self.structure["kind"] == "ivfpq":  # GPUs take only some lengths of codes
            return self.index
        if find > GPU_LARGEST_K:
            raise ConfigError(f"approximation.neighbours must be below {GPU_LARGEST_K} on GPUs; found {find - 1}")
        if self._on_gpus is None or self._on_gpus[0] != probes:
            self._on_gpus = probes, faiss.index_cpu_to_all_gpus(self.index)
        return self._on_gpus[1]


def latents_fingerprint(train: NDArray[np.floating]) -> str:
    """BLAKE2b of shape, type and values, 64 hexadecimal digits."""
    digest = hashlib.blake2b(f"{train.shape} {train.dtype.str}".encode(), digest_size=32)
    for block in row_blocks(*train.shape):
        digest.update(train[block].tobytes())
    return digest.hexdigest()


def save_index(folder: str | Path, index: LatentIndex, fingerprint: str) -> None:
    """Write the index and, last, its record; a killed writer leaves no record, so nothing to be reused."""
    import faiss

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).unlink(missing_ok=True)
    for name, write in (
        (FILE, lambda path: faiss.write_index(index.index, path)),
        (RECORD, lambda path: Path(path).write_text(json.dumps(_record(index.structure, fingerprint), indent=1))),
    ):
        partial = folder / f".{name}.{os.getpid()}"
        write(str(partial))
        os.replace(partial, folder / name)


def load_index(
    folder: str | Path, train: NDArray[np.floating], settings: Approximation, fingerprint: str
) -> tuple[LatentIndex | None, str]:
    """The saved index, or None where there is none for these latents and settings; and why, in words.

    Only read a folder that this program's own runs write to: FAISS trusts the file.
    """
    import faiss

    folder, want = Path(folder), _record(settings.structure(*train.shape), fingerprint)
    try:
        found = json.loads((folder / RECORD).read_text())
        other = [name for name in want if not isinstance(found, dict) or found.get(name) != want[name]]
        if other:
            return None, f"the saved index has another {', '.join(other)}"
        index = faiss.read_index(str(folder / FILE))
    except FileNotFoundError:
        return None, "there is no saved index"
    except (RuntimeError, ValueError) as error:
        return None, f"the saved index cannot be read: {str(error).splitlines()[0]}"
    if (index.ntotal, index.d) != train.shape:
        return None, f"the saved index holds {index.ntotal} latents of {index.d} numbers"
    return LatentIndex(index, settings.structure(*train.shape), Frame.over(train)), "the saved index matches"


def open_index(
    folder: str | Path, train: NDArray[np.floating], settings: Approximation, fingerprint: str | None = None
) -> tuple[LatentIndex, str]:
    """The saved index where it matches, else a new one, saved; and what was done, in words."""
    mark = fingerprint or latents_fingerprint(train)
    index, why = load_index(folder, train, settings, mark)
    if index is not None:
        return index, why
    index = LatentIndex.build(train, settings)
    save_index(folder, index, mark)
    return index, f"built a new index: {why}"


def _record(structure: dict[str, int | str], fingerprint: str) -> dict[str, Any]:
    import faiss

    return {"fingerprint": fingerprint, "structure": structure, "faiss": faiss.__version__}
