"""`measure` and `ldsaug measure`: the packages' numbers on the same features and folders; what is kept, and refused."""

from __future__ import annotations

import base64
import io
import json
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cleanfid.fid import compute_fid, fid_from_feats
from PIL import Image
from prdc import compute_prdc
from scipy.spatial.distance import cdist
from torch_fidelity.metric_kid import kernel_mmd

from ldsaug_ray.api.measure import measure
from ldsaug_ray.cli import main
from ldsaug_ray.errors import ConfigError, InputError, LdsaugError
from ldsaug_ray.metrics.kept import features_folder
from ldsaug_ray.metrics.kernel_distance import SUBSETS, draw_subsets

CODE = """
from ldsaug_ray.metrics import FeatureNetwork, Measure, Reading
import torch
CALLS = []
class Quarters(FeatureNetwork):
    def features(self, network, pixels):
        CALLS.append(len(pixels))
        return torch.nn.functional.adaptive_avg_pool2d(pixels, 2).flatten(1)
class Square(FeatureNetwork):
    def features(self, network, pixels):
        return pixels.flatten(1)
Spread = Measure(name="spread", title="spread", better="more", take=lambda s: Reading(float(s.features.std())))
Notes = Measure(name="notes", title="notes", better="more", take=lambda s: Reading(0.0))
"""
QUARTERS = "their_code:Quarters"
# of torch.jit, and of clean-fid's call of SciPy, about themselves
pytestmark = [pytest.mark.filterwarnings(f"ignore:{text}") for text in (r"`torch\.jit", "The `disp`")]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("LDSAUG_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/ldsaug_ray/features"


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Sizes of the batches that the user's extractor `Quarters` was given."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/their_code.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path / "theirs")
    import their_code

    yield their_code.CALLS
    sys.modules.pop("their_code", None)


def features(n: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 6)) + shift


def pictures(n: int, seed: int, side: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3)).astype(np.uint8)


def folder(root: Path, images: list[np.ndarray] | np.ndarray) -> str:
    root.mkdir()
    for n, image in enumerate(images):
        Image.fromarray(image).save(root / f"{n:03d}.png")
    return str(root)


def test_numbers_are_those_of_the_packages() -> None:
    real, fake, train = features(120, 0), features(90, 1, 0.3), features(80, 2)
    found = measure(real, fake, train=train, k=3, seed=4)
    assert found["frechet"] == pytest.approx(fid_from_feats(fake, real), rel=1e-9)
    theirs = compute_prdc(real, fake, 3)
    assert {name: found[name] for name in theirs} == pytest.approx(theirs)
    how = {"kid_kernel": "poly", "kid_kernel_poly_degree": 3, "kid_kernel_poly_gamma": None, "kid_kernel_poly_coef0": 1}
    rows = zip(*draw_subsets(90, 120, SUBSETS, 45, 4), strict=True)
    assert found["kernel_distance"] == pytest.approx(np.mean([kernel_mmd(fake[a], real[b], **how) for a, b in rows]))
    own = cdist(train, train)
    np.fill_diagonal(own, np.inf)
    near = cdist(fake, train)
    assert found["authenticity"] == pytest.approx(100 * np.mean(own.min(1)[near.argmin(1)] < near.min(1)))
    near = cdist(real, train)
    assert found["real"]["authenticity"] == pytest.approx(100 * np.mean(own.min(1)[near.argmin(1)] < near.min(1)))
    assert found["train"]["frechet"] == pytest.approx(fid_from_feats(train, real), rel=1e-9)  # as if generated
    assert found["n"] == {"real": 120, "fake": 90, "train": 80}
    assert (found["extractor"], found["k"]) == (None, 3)
    assert "sharpness" not in found  # of features
    for name, (low, high) in found["intervals"].items():
        assert low < found[name] < high, name
    assert any("below 1,000" in note for note in found["notes"])
    assert json.loads(json.dumps(found)) == found
    assert found == measure(real, fake, train=train, k=3, seed=4)


def test_folders_as_clean_fid_measures_them(tmp_path: Path) -> None:
    """Images of several sizes, grey ones too, resized as clean-fid resizes."""
    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())
    torch.jit.trace(network, torch.zeros(1, 3, 9, 9)).save(str(tmp_path / "net.pt"))
    sets = [[*pictures(7, n, 24), *pictures(6, n + 10, 40), *pictures(3, n + 20, 16)[..., 0]] for n in (0, 1)]
    real, fake = (folder(tmp_path / name, images) for name, images in zip(("real", "fake"), sets, strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of clean-fid's own calls
        theirs = compute_fid(
            real,
            fake,
            mode="clean",
            num_workers=0,
            batch_size=4,
            device=torch.device("cpu"),
            verbose=False,
            custom_feat_extractor=network,
            use_dataparallel=False,
        )
    found = measure(real, fake, extractor=str(tmp_path / "net.pt"), resize=299)
    assert found["frechet"] == pytest.approx(theirs, rel=1e-4)
    assert "Images of 3 sizes, from 16 x 16 to 40 x 40 px: sharpness compares images of one size." in found["notes"]


def test_features_are_kept_by_content(tmp_path: Path, calls: list[int], cache: Path) -> None:
    images = pictures(20, 0), pictures(20, 1)
    real, fake = (folder(tmp_path / name, x) for name, x in zip(("real", "fake"), images, strict=True))
    (tmp_path / "fake/bad.png").write_bytes(b"no image")
    settings = {"extractor": QUARTERS, "data": {"max_quarantined_fraction": 0.1}}
    first = measure(real, fake, **settings)
    unusable = "fake: 1 of 21 images cannot be used (the first: bad.png: not an image (begins with b'no image'))"
    assert f"{unusable}, and do not count." in first["notes"]
    assert first["n"] == {"real": 20, "fake": 20}
    assert len(list(cache.iterdir())) == 2
    calls.clear()
    (tmp_path / "real").rename(tmp_path / "elsewhere")
    assert measure(str(tmp_path / "elsewhere"), Path(fake), **settings) == first
    assert calls == [1]  # what tells the dimension
    from_arrays = measure(*images, extractor=QUARTERS)
    apart = {"notes", "extractor"}
    assert {n: v for n, v in from_arrays.items() if n not in apart} == {
        n: v for n, v in first.items() if n not in apart
    }
    with Image.open(tmp_path / "elsewhere/003.png") as image:
        image.rotate(90).save(tmp_path / "elsewhere/003.png")
    calls.clear()
    assert measure(str(tmp_path / "elsewhere"), fake, **settings)["frechet"] != first["frechet"]
    assert calls == [1, 20]  # those of one folder


def test_a_damaged_or_unwritable_cache_is_told(
    calls: list[int], cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(tmp_path / f"{name}.npy") for name in ("real", "fake")]
    for seed, file in enumerate(files):
        np.save(file, pictures(20, seed))
    command = ["measure", *files, "--extractor", QUARTERS, "--json", "-"]
    assert main(command) == 0
    first = json.loads(capsys.readouterr().out)
    for file in features_folder().iterdir():
        whole = bytearray(file.read_bytes())
        whole[300] ^= 1  # in the first array
        file.write_bytes(whole)
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == first
    assert "is damaged" in err
    for file in cache.iterdir():
        file.unlink()
    cache.rmdir()
    cache.write_text("a file where the folder belongs")
    assert main(command) == 0
    assert "features are not kept" in capsys.readouterr().err


def test_the_users_own_measure(calls: list[int]) -> None:
    z = features(30, 0), features(30, 1)
    assert measure(*z, measures=["their_code:Spread"])["spread"] == pytest.approx(z[1].std())
    with pytest.raises(ConfigError, match="called notes, as a part of the result is"):
        measure(*z, measures=["their_code:Notes"])


GOOD = features(30, 0)
NAN = np.where(np.arange(30)[:, None] == 4, np.nan, GOOD)


@pytest.mark.parametrize(
    ("given", "settings", "error"),
    [
        ("/nowhere/at all", {}, "fake: /nowhere/at all: there is no such file or folder"),
        ("", {}, "fake: an empty name"),
        ("/nowhere/x.npy", {}, "fake: /nowhere/x.npy: there is no such file"),
        (None, {}, "fake: found NoneType; give images uint8"),
        (NAN, {}, r"fake: 1 of 30 rows hold NaN or infinity \(first: row 4\)"),
        (GOOD[:1], {}, "fake: 1 images; at least 6 are needed with k = 5 neighbours"),
        (GOOD[:, :5], {}, "fake: features of 5 dimensions, real has 6"),
        (GOOD[:, 0], {}, r"fake: found float64\[30\]; give images uint8"),
        (GOOD.astype(str), {}, r"fake: found <U\d+\[30, 6\]; give images"),
        ([[1.0], [1.0, 2.0]], {}, "fake: no array can be made of it"),
        (pictures(9, 0) / 255, {}, r"fake: found float64\[9, 8, 8, 3\]; images are uint8 in 0..255"),
        (pictures(9, 0).transpose(0, 3, 1, 2), {}, r"fake: found uint8\[9, 3, 8, 8\].*the channels come last"),
        (pictures(9, 0), {}, "real features, fake images: give all as images, or all as features"),
        (GOOD, {"extractor": "inception"}, "extractor = inception: features were given, and need none"),
        (GOOD, {"domain": "tables"}, "unknown domain 'tables'; possible: audio, images"),
        (GOOD, {"k": 0}, "k must be at least 1, a whole number; found 0"),
        (GOOD, {"k": "five"}, "k must be at least 1, a whole number; found 'five'"),
        (GOOD, {"seed": 0.5}, "seed must be at least 0, a whole number; found 0.5"),
        (pictures(9, 0), {"extractor": 5}, "extractor: the name or file of one; found int"),
        (GOOD, {"measures": "no_such"}, "evaluate.measures: unknown measure 'no_such'"),
        (GOOD, {"k": 30}, "real: 30 images; at least 31 are needed"),
        (GOOD, {"train": GOOD[:1]}, "train: 1 images; at least 2 are needed"),
        (GOOD, {"measures": ["frechet"]}, "evaluate.measures: frechet is built in"),
    ],
)
def test_what_is_refused(given: Any, settings: dict[str, Any], error: str) -> None:
    with pytest.raises(LdsaugError, match=error):
        measure(GOOD, given, **settings)


def test_what_is_refused_of_images(tmp_path: Path, calls: list[int]) -> None:
    real = pictures(20, 0)
    with pytest.raises(InputError, match="real: extractor their_code:Square: 192 dimensions, after 12288"):
        measure(real, pictures(20, 1), extractor="their_code:Square")
    with pytest.raises(ConfigError, match="unknown extractor 'incept'"):
        measure(real, real, extractor="incept")
    with pytest.raises(ConfigError, match=r"fake: data.resolution does not count here; possible: data.format"):
        measure(real, str(tmp_path), extractor=QUARTERS, data={"resolution": 32})
    with pytest.raises(ConfigError, match=r"fake: data\.format must be"):
        measure(real, str(tmp_path), extractor=QUARTERS, data={"format": "gif"})
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"fake: .*empty: the folder is empty"):
        measure(real, tmp_path / "empty", extractor=QUARTERS)
    some = folder(tmp_path / "some", pictures(8, 2))
    for n in range(2):
        (tmp_path / f"some/z{n}.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"fake: 2 of 10 images cannot be used \(the first: z0.png: empty file\)"):
        measure(real, some, extractor=QUARTERS)
    with pytest.raises(InputError, match="fake: 8 images; at least 10 are needed"):
        measure(real, some, extractor=QUARTERS, k=9, data={"max_quarantined_fraction": 0.5})
    np.save(tmp_path / "objects.npy", np.array([{}, {}]), allow_pickle=True)
    with pytest.raises(InputError, match=r"objects\.npy: not an array of numbers"):
        measure(real, tmp_path / "objects.npy", extractor=QUARTERS)


def test_the_command(tmp_path: Path, calls: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    fake = pictures(20, 1)
    fake[5] = pictures(20, 2)[7]
    names = [folder(tmp_path / n, x) for n, x in (("real", pictures(20, 0)), ("fake", fake), ("<t>", pictures(20, 2)))]
    json_file, page = tmp_path / "n.json", tmp_path / "page.html"
    outputs = ["--json", str(json_file), "--html", str(page)]
    settings = ["evaluate.k=4", "evaluate.measures=[their_code:Spread]", "seed=3"]
    assert main(["measure", *names[:2], "--train", names[2], "--extractor", QUARTERS, *outputs, *settings]) == 0
    out = capsys.readouterr().out
    want = measure(*names[:2], train=names[2], extractor=QUARTERS, k=4, measures=["their_code:Spread"], seed=3)
    assert json.loads(json_file.read_text()) == want
    assert "20 fake against 20 real images, 20 training; features: their_code:Quarters, 12 dimensions; k = 4" in out
    for title in ("Fréchet distance ↓", "coverage ↑", "AuthPct", "C_T", "sharpness", "spread"):
        assert title in out
        assert title in page.read_text()
    text = page.read_text()
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", text)  # it needs nothing else
    assert "&lt;t&gt;" in text
    assert "<t>" not in text
    assert '<td class="key">005.png</td><td class="key">007.png</td><td class="n">0' in text  # the copy, first
    sheets = re.findall(r"src=\"data:image/png;base64,([^\"]+)", text)
    assert len(sheets) == 3
    with Image.open(io.BytesIO(base64.b64decode(sheets[0]))) as image:
        pixels = np.asarray(image.convert("RGB"))
    for top in (0, 68):  # tiles of 64 px: 8 px, each eight times
        np.testing.assert_array_equal(pixels[top : top + 64 : 8, 0:64:8], fake[5])


def test_exit_codes_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "z.npy", features(30, 0))
    z = str(tmp_path / "z.npy")
    assert main(["measure", z, "/nowhere"]) == 1
    assert capsys.readouterr().err == "error: fake: /nowhere: there is no such file or folder\n"
    assert main(["measure", z, z, "score.sigma.scale=1"]) == 2
    assert "measure: score.sigma.scale does not count here; possible: domain, data.NAME, evaluate.extractor" in (
        capsys.readouterr().err
    )
    assert main(["measure", z, z, "--html", str(tmp_path / "p.html")]) == 0
    text = (tmp_path / "p.html").read_text()
    assert "row 3" in text  # features have no pictures, but numbers
    assert "data:image/png" not in text


def test_tables_are_measured_by_their_own_domain(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sets = {name: rng.normal(size=(60, 3)) * [1, 100, 0.01] + shift for name, shift in (("real", 0), ("fake", 0.3))}
    for name, x in sets.items():
        np.savetxt(tmp_path / f"{name}.csv", x, delimiter=",", header="a,b,c", comments="")
    found = measure(tmp_path / "real.csv", tmp_path / "fake.csv", domain="vectors", k=3)
    real, fake = (x.astype(np.float32) for x in sets.values())
    z = [(x - real.mean(0)) / real.std(0) for x in (real, fake)]  # in units of the real rows' spread
    by_hand = measure(*z, k=3)
    assert found["frechet"] == pytest.approx(by_hand["frechet"], rel=1e-4)
    assert found["extractor"]["name"] == "values"
    assert "sharpness" not in found
    (tmp_path / "bad.csv").write_text("a,b,c\n" + "1,x,2\n" * 60)
    with pytest.raises(InputError, match=r"fake: 60 of 60 rows cannot be used \(the first: bad.csv#0: b is no number"):
        measure(tmp_path / "real.csv", tmp_path / "bad.csv", domain="vectors", data={"columns": ["a", "b", "c"]})


PARTS = ("C", "CC", "N", "O", "c1ccccc1", "C1CC1", "C(=O)O", "F", "Cl", "OC", "C(C)C")


def test_molecules_are_measured_as_evaluate_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chem = pytest.importorskip("rdkit.Chem", reason="pip install ldsaug_ray[molecules]")
    forms = sorted({chem.CanonSmiles(f"{a}C{b}") for a in PARTS for b in PARTS})
    real, train = forms[::2], forms[1::2]
    fake = [*train[:9], *train[:3], "OCC(CC)CN", "C1CC", "", "[Na+].[Cl-]", *real[20:24]]
    for name, of in (("real", real), ("train", train), ("fake", fake)):
        (tmp_path / f"{name}.csv").write_text("smiles\n" + "".join(f'"{s}"\n' for s in of))
    names = [str(tmp_path / f"{name}.csv") for name in ("real", "fake", "train")]
    found = measure(names[0], names[1], train=names[2], domain="molecules", k=3)
    # two of twenty are none, and of the eighteen three occur twice; nine distinct ones are training molecules
    assert found["validity"] == pytest.approx(18 / 20)
    assert found["uniqueness"] == pytest.approx(15 / 18)
    assert found["novelty"] == pytest.approx(6 / 15)
    assert found["train"]["validity"] == found["real"]["validity"] == found["train"]["uniqueness"] == 1
    assert {"diversity", "snn", "scaffolds", "log_p", "qed", "weight"} <= found.keys()
    assert found["n"] == {"real": len(real), "fake": 18, "train": len(train)}
    assert "fake: 2 of 20 molecules are invalid: without features." in found["notes"]
    assert found["extractor"]["name"] == "fingerprints"
    page = tmp_path / "page.html"
    given = ["--train", names[2], "--html", str(page), "domain=molecules", "evaluate.k=3"]
    assert main(["measure", *names[:2], *given]) == 0
    assert "18 fake against" in (shown := capsys.readouterr().out)
    assert "validity" in shown
    assert "image" not in re.sub(r"<style>.*</style>|\S*image/\S*", "", page.read_text(), flags=re.DOTALL)
    with pytest.raises(
        InputError, match=r"real: 3 of 20 molecules cannot be used \(the first: fake.csv#15: SMILES Parse"
    ):
        measure(names[1], names[0], domain="molecules", k=3)


def test_clips_are_measured_by_their_own_domain(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed: pip install 'ldsaug_ray[audio]'")
    rng, t = np.random.default_rng(0), np.arange(4_000) / 8_000
    clips = {"real": np.sin(2 * np.pi * rng.uniform(200, 400, (12, 1)) * t) / 2}
    clips |= {
        "same": np.sin(2 * np.pi * rng.uniform(200, 400, (12, 1)) * t) / 2,
        "noise": rng.normal(0, 0.1, (12, 4_000)),
    }
    for name, of in clips.items():
        (tmp_path / name).mkdir()
        for n, clip in enumerate(of):
            soundfile.write(tmp_path / name / f"{n:02d}.wav", clip, 8_000, subtype="FLOAT")
    given: dict[str, Any] = {"domain": "audio", "k": 3, "data": {"rate": 8_000, "seconds": 0.5}}
    same, noise = (measure(tmp_path / "real", tmp_path / name, **given) for name in ("same", "noise"))
    assert noise["frechet"] > 5 * same["frechet"]
    assert same["extractor"]["name"] == "bands"
    from ldsaug_ray.metrics import open_extractor

    bands = open_extractor("bands", domain="audio", facts={"rate": 8_000})
    by_hand = measure(*(bands(clips[name].astype(np.float32)) for name in ("real", "noise")), k=3)
    assert noise["frechet"] == pytest.approx(by_hand["frechet"], rel=1e-5)
    (tmp_path / "noise/00.wav").write_text("no sound")
    with pytest.raises(InputError, match=r"fake: 1 of 12 clips cannot be used \(the first: 00.wav: not audio"):
        measure(tmp_path / "real", tmp_path / "noise", **given)
