"""ChemNet's features and the Fréchet ChemNet distance are those of fcd-torch; extractors refuse what is not theirs."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from ldsaug_ray.errors import ConfigError, InputError
from ldsaug_ray.metrics import frechet_distance, open_extractor
from ldsaug_ray.metrics.extractors.chemnet import chemnet_tokens

chem = pytest.importorskip("rdkit.Chem", reason="pip install ldsaug_ray[molecules]")
MOSES = Path(__file__).parents[2] / "ldsaug_ray/domains/molecules/moses.smi"
ODD = ["C[Si](C)(C)Cl", "[Se]1C=CC=C1", "Brc1ccri", "C[C@@H](N)C(=O)[O-]", "C1CC%12CC1CC%12", "c1cc[nH]c1", "C" * 400]


@pytest.fixture(scope="module")
def theirs():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("fcd_torch", reason="pip install fcd-torch")


def test_tokens_are_fcd_torchs(theirs):
    texts = [*MOSES.read_text().split()[:200], *ODD]
    tokens = chemnet_tokens(np.array(texts, "S"))
    for text, row in zip(texts, tokens, strict=True):
        wanted = theirs.utils.get_one_hot(text, 350)
        length = int(wanted.any(1).sum())
        assert row[:length].tolist() == wanted[:length].argmax(1).tolist()
        assert (row[length:] > 34).all()


def test_the_distance_is_fcd_torchs(theirs, shared):
    file = shared / "models/chemnet.pt"
    if not file.is_file():
        pytest.skip(f"no weights: {file} is absent")
    texts = MOSES.read_text().split()[:60]
    ours = open_extractor(f"chemnet:{file}", domain="molecules", batch_size=32)(np.array(texts, "S"))
    assert ours.shape == (60, 512)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = theirs.FCD()
        features = other.get_predictions(texts)
        wanted = other(texts[:30], texts[30:])
        halves = features[:30].astype(np.float64), features[30:].astype(np.float64)
        moments = [of for half in halves for of in (half.mean(0), np.cov(half.T))]
        same = theirs.utils.calculate_frechet_distance(*moments)
    np.testing.assert_allclose(ours, features, atol=1e-6)
    assert frechet_distance(ours[:30], ours[30:]) == pytest.approx(wanted, abs=1e-5)
    assert frechet_distance(ours[:30], ours[30:]) == pytest.approx(same, abs=1e-5)


def test_fingerprints_count_substructures():
    extract = open_extractor("fingerprints", domain="molecules")
    from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator

    texts = ["CCO", "c1ccccc1CCN", "C1CC"]
    found = extract(np.array(texts, "S"))
    counts = np.zeros((3, 128))
    for row, text in zip(counts, texts[:2], strict=False):
        fold = GetMorganGenerator(radius=2, fpSize=128).GetCountFingerprint(chem.MolFromSmiles(text))
        for at, n in fold.GetNonzeroElements().items():
            row[at] = n
    np.testing.assert_allclose(found, np.log(1 + counts), rtol=1e-6)


def test_what_is_no_extractor_of_molecules_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="extractor pixels: is of domain=images, not of domain=molecules"):
        open_extractor("pixels", domain="molecules")
    with pytest.raises(ConfigError, match="extractor fingerprints: is of domain=molecules, not of domain=images"):
        open_extractor("fingerprints")
    with pytest.raises(ConfigError, match=r"name its weights, chemnet:FILE\.pt"):
        open_extractor("chemnet", domain="molecules")
    with pytest.raises(InputError, match=r"none\.pt: cannot be read"):
        open_extractor(f"chemnet:{tmp_path / 'none.pt'}", domain="molecules")
