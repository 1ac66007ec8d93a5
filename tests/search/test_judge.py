"""What a search measures of what is decoded: of molecules the valid ones alone, kept for other trials."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ldsaug_ray.common.storage import Location
from ldsaug_ray.config.load import build_config
from ldsaug_ray.metrics import Members, frechet_distance, open_extractor
from ldsaug_ray.metrics.measures import MEASURES
from ldsaug_ray.search.judge import Judge

pytest.importorskip("rdkit", reason="pip install ldsaug_ray[molecules]")

DECODED = np.array(["CCO", "C1CC", "c1ccccc1", "", "CCN", "CCCl", "C(", "CC(=O)O", "CCBr"], "S12")
VALID = DECODED[[0, 2, 4, 5, 7, 8]]


def test_invalid_molecules_are_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"domain": "molecules", "run_dir": str(tmp_path), "data": {"source": "x"}, "decode": {"batch_size": 4}}
    config = build_config({**given, "evaluate": {"k": 2}}, [])
    extractor = open_extractor("fingerprints", domain="molecules")
    real = extractor(np.array(["CCO", "CCC", "CC=O", "c1ccccc1C", "CCS"], "S12"))
    judge = Judge(config, real, real, Location.of("x"), Location.of(tmp_path / "kept"), "of")
    judge.__dict__.update(_extractor=extractor, _vae=None)
    calls: list[int] = []

    def decode(vae: None, z: np.ndarray, size: int) -> np.ndarray:
        calls.append(len(z))
        return DECODED[z[:, 0].round().astype(int)]

    monkeypatch.setattr("ldsaug_ray.models.decode_batch", decode)
    n = np.arange(len(DECODED))
    a = Members(n[:, None].astype(np.float32), n, n, np.full(len(n), 0.5), "linear", len(n), id=n)
    for _ in range(2):  # the second from what is kept
        sample = judge.sample(config, a)
        np.testing.assert_array_equal(sample.features, extractor(VALID))
    assert calls == [4, 4, 1]
    measure = MEASURES.get("a_frechet")
    wanted = frechet_distance(extractor(VALID), real)
    of_a = Members(a.train, n, n, a.alpha, "linear", len(n), id=n, images=sample)
    assert measure.take(None, of_a) == pytest.approx(wanted)
    none = a.some(np.array([1, 3]))
    for name in ("a_frechet", "a_precision", "a_coverage", "a_authpct"):
        few = Members(a.train, none.i, none.j, none.alpha, "linear", 2, id=none.id, images=judge.sample(config, none))
        assert MEASURES.get(name).take(None, few) is None
