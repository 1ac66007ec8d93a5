"""The share of decoded images that `lds+sharpness` keeps, with ties, against a plain sort."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ldsaug_ray.common.storage import Location
from ldsaug_ray.stages.decode import SharpestWorker, sharpest


@pytest.mark.parametrize("share", [1e-9, 0.1, 0.35, 0.5, 1.0])
@pytest.mark.parametrize("values", [1, 3, 1000])
def test_exactly_the_sharpest_by_sharpness_then_candidate(tmp_path: Path, share: float, values: int) -> None:
    rng = np.random.default_rng(0)
    run, n = Location.of(tmp_path), 41
    candidate = rng.permutation(1000)[:n]
    sharp = rng.integers(values, size=n).astype(np.float64)
    files = []
    for k, rows in enumerate(np.array_split(np.arange(n), 4)):
        files.append(f"part-{k:06d}.parquet")
        (run / "decoded" / files[-1]).write_table(pa.table({"candidate": candidate[rows], "sharpness": sharp[rows]}))
    worker = SharpestWorker(sharpest(run / "decoded", share), run / "decoded", run, "images")
    results = [worker(k, pa.table({"file": [file]})) for k, file in enumerate(files)]
    for result in results:
        result.counts.check("a unit")
    kept = [int(c) for r in results for f in r.files for c in (run / f).read_table()["candidate"].to_pylist()]
    ranked = sorted(zip(-sharp, candidate.tolist(), strict=True))
    count = max(1, int(share * n + 0.5))
    assert sorted(kept) == sorted(c for _, c in ranked[:count])
    assert sum(r.counts.rows_out for r in results) == count
    assert sum(r.counts.rows_in for r in results) == n
