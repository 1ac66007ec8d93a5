"""Measures of molecules against hand-computed values, RDKit pair by pair, and SciPy's definition."""

from __future__ import annotations

import numpy as np
import pytest

from ldsaug_ray.metrics import OF_SETS, Sample, intervals_of, measure_set

pytest.importorskip("rdkit", reason="pip install ldsaug_ray[molecules]")

# two of ethanol, one with another spelling; benzene; one that is none
MADE = np.array(["CCO", "OCC", "c1ccccc1", "C1CC", "c1ccc2ccccc2c1C"])
REAL = np.array(["CCO", "CCN", "c1ccccc1O", "c1ccc2ccccc2c1", "Cc1ccc2ccccc2c1", "C1CC1C1CC1"])
TRAIN = np.array(["CCO", "CCC"])
MEASURES = [m for m in OF_SETS if "molecules" in m.needs]


def sample(made=MADE, real=REAL, train=TRAIN) -> Sample:
    items = {"features": made.astype("S"), "reference": real.astype("S"), "train": train.astype("S")}
    n = np.zeros((1, 1), np.float32)
    return Sample(np.zeros((4, 1), np.float32), n, n, items={"molecules": items})


@pytest.fixture(scope="module")
def found() -> dict[str, float | None]:
    return {name: reading.value for name, reading in measure_set(sample(), MEASURES).readings.items()}


def test_shares_by_hand(found):
    assert found["validity"] == pytest.approx(4 / 5)
    assert found["uniqueness"] == pytest.approx(3 / 4)  # ethanol twice
    assert found["novelty"] == pytest.approx(2 / 3)  # ethanol is a training molecule


def test_limits_of_shares_are_wilsons():
    """By his formula; beyond 0 and 1 a share cannot be."""
    z = 1.959964
    for n, k in ((20, 18), (50, 50), (50, 0)):
        made = np.array(["CCO"] * k + ["C1CC"] * (n - k))
        limits = intervals_of(sample(made), measure_set(sample(made), MEASURES[:1]), MEASURES[:1])["validity"]
        middle, half = k / n + z * z / (2 * n), z * np.sqrt(k * (n - k) / n**3 + z * z / (4 * n * n))
        expected = np.clip([(middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)], 0, 1)
        assert limits == pytest.approx(expected, abs=1e-6)


def tanimoto(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """By RDKit, one pair after the other."""
    from rdkit.Chem import MolFromSmiles
    from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator
    from rdkit.DataStructs import TanimotoSimilarity

    bits = GetMorganGenerator(radius=2, fpSize=1024).GetFingerprint
    return np.array([[TanimotoSimilarity(bits(MolFromSmiles(x)), bits(MolFromSmiles(y))) for y in b] for x in a])


def test_similarities_are_rdkits(found):
    valid = MADE[[0, 1, 2, 4]]
    assert found["diversity"] == pytest.approx(1 - tanimoto(valid, valid).mean(), abs=1e-12)
    assert found["snn"] == pytest.approx(tanimoto(valid, REAL).max(1).mean(), abs=1e-12)


def test_scaffolds_by_hand(found):
    # made: naphthalene once (benzene has one ring); real: naphthalene twice, and two cyclopropanes with a bond once
    assert found["scaffolds"] == pytest.approx(2 / np.sqrt(1 * (4 + 1)))


def test_distances_of_properties(found):
    # equal weights of both sets: 4 made and 6 real; the integral of |F - G|
    from rdkit.Chem import Crippen, Descriptors, MolFromSmiles

    def gap(of, a, b) -> float:
        x, y = (np.array([of(MolFromSmiles(s)) for s in side]) for side in (a, b))
        grid = np.sort(np.concatenate([x, y]))
        steps = [abs((x <= left).mean() - (y <= left).mean()) for left in grid[:-1]]
        return float(np.diff(grid) @ steps)

    valid = MADE[[0, 1, 2, 4]]
    assert found["log_p"] == pytest.approx(gap(Crippen.MolLogP, valid, REAL), abs=1e-9)
    assert found["weight"] == pytest.approx(gap(Descriptors.MolWt, valid, REAL), abs=1e-9)
    assert found["weight"] > found["log_p"] > 0


def test_a_set_of_itself_is_at_no_distance():
    found = measure_set(sample(made=REAL), MEASURES)
    assert [found.value(name) for name in ("log_p", "qed", "weight")] == [0, 0, 0]
    assert [found.value(name) for name in ("scaffolds", "snn")] == pytest.approx([1, 1])


def test_nothing_valid_is_a_note_and_no_number():
    found = measure_set(sample(made=np.array(["C1CC", "((", ""])), MEASURES)
    assert found.value("validity") == 0
    assert all(found.value(m.name) is None for m in MEASURES if m.name != "validity")
    assert any("none of the 3 molecules is valid" in note for note in found.notes)


def test_images_have_none_of_these():
    x = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    assert not {m.name for m in MEASURES} & measure_set(Sample(x, x[:10])).readings.keys()
