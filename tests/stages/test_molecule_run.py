"""A whole run on molecules: what is counted, what A is, what is measured and shown; one that is killed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from stages_helpers import Tree, digests, manifest

from ldsaug_ray.commands.run import run_command
from ldsaug_ray.common.digest import add_digests, digest_text, table_digest
from ldsaug_ray.config.load import build_config
from ldsaug_ray.domains.split import assign_splits
from ldsaug_ray.errors import DivergedError, InputError
from ldsaug_ray.metrics import OF_SETS
from ldsaug_ray.models import Trainer, decode_batch, load_vae
from ldsaug_ray.stages import prepare

chem = pytest.importorskip("rdkit.Chem", reason="pip install ldsaug_ray[molecules]")

PARTS = ("C", "CC", "N", "O", "c1ccccc1", "C1CC1", "C(=O)O", "F", "Cl")
SMILES = sorted({chem.CanonSmiles(f"{a}C{b}") for a in PARTS for b in PARTS})
BAD = ["C1CC", "[Na+].[Cl-]", "C" * 40]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    folder = tmp_path_factory.mktemp("molecules")
    (folder / "all.csv").write_text("smiles,id\n" + "".join(f"{s},{n}\n" for n, s in enumerate([*SMILES, *BAD])))
    steps = {"steps": 12, "batch_size": 16, "checkpoint_every": 4, "log_every": 4, "horizontal_flip": False}
    return {
        "run_dir": str(folder / "run"),
        "engine": "inline",
        "domain": "molecules",
        "tracking": {"enabled": False},
        "data": {
            "source": str(folder / "all.csv"), "key_column": "id", "max_length": 30, "train": 0.75, "test": 0.25,
            "max_quarantined_fraction": 0.2, "part_rows": 16,
        },
        "vae": {"latent_dim": 4, "hidden": 16, "embedding": 8},
        "train": {**steps, "learning_rate": 0.02},
        "score": {"n_candidates": 450},
        "select": {"top_count": 40},
        "finetune": {**steps, "mixing": 0.5},
        "decode": {"part_rows": 16},
        "evaluate": {"extractor": "fingerprints", "n": 40, "k": 3},
    }  # fmt: skip


def run(settings: Tree) -> None:
    assert run_command(build_config(settings, []), "run") == 0


@pytest.fixture(scope="module")
def finished(settings: Tree) -> Tree:
    run(settings)
    return settings


def test_every_molecule_is_counted(finished):
    prepared = manifest(finished)["prepare"]
    assert (prepared["rows_in"], prepared["rows_quarantined"]) == (len(SMILES) + 3, 3)
    assert prepared["rows_out"] == len(SMILES)
    assert prepared["quarantine_reasons"] == {
        "SMILES Parse Error: unclosed ring": 1,
        "a salt or mixture of 2 parts": 1,
        "canonical SMILES longer than data.max_length = 30": 1,
    }


def test_a_is_what_the_model_decodes(finished):
    root = Path(finished["run_dir"])
    a = pq.read_table(root / "augmented")
    vae = load_vae(root / "train/vae.safetensors")
    z = np.array(a["z"].to_pylist(), np.float32)
    assert a["smiles"].to_pylist() == [s.decode() for s in decode_batch(vae, z, len(z)).tolist()]
    valid = [bool(s) and chem.MolFromSmiles(s) is not None for s in a["smiles"].to_pylist()]
    assert a["valid"].to_pylist() == [float(v) for v in valid]
    assert set(vae.vocabulary.tokens) == {"1", "2", "(", ")", "=", "C", "N", "O", "F", "Cl", "c"}


def test_what_is_measured_is_what_was_drawn(finished):
    root = Path(finished["run_dir"])
    told = json.loads((root / "evaluate/metrics.json").read_text())["sets"]
    drawn = pq.read_table(root / "drawn/train/images")["smiles"].to_pylist()
    forms = [chem.CanonSmiles(s) for s in drawn if s and chem.MolFromSmiles(s) is not None]
    parts = [pq.read_table(file)["smiles"].to_pylist() for file in (root / "images").glob("train-*.parquet")]
    train = {text.rstrip(b"\0").decode() for part in parts for text in part}
    assert told["baseline"]["validity"]["value"] == pytest.approx(len(forms) / len(drawn))
    if forms:
        assert told["baseline"]["uniqueness"]["value"] == pytest.approx(len(set(forms)) / len(forms))
        assert told["baseline"]["novelty"]["value"] == pytest.approx(len(set(forms) - train) / len(set(forms)))
    assert told["train"]["validity"]["value"] == told["test"]["validity"]["value"] == 1


def test_the_page_draws_molecules_and_their_parents(finished):
    page = (Path(finished["run_dir"]) / "report/index.html").read_text()
    assert page.count("<svg") > 2
    assert len(page) < 550_000 + 2_000 * page.count("<svg")
    assert "sharpness" not in page


def test_killed_in_training_it_ends_as_if_undisturbed(finished, tmp_path, monkeypatch):
    again = {**finished, "run_dir": str(tmp_path / "run")}
    step, taken = Trainer.train_step, []

    def stops(self, *given):
        if len(taken) == 6:
            raise DivergedError("stopped")
        taken.append(self.step)
        return step(self, *given)

    monkeypatch.setattr(Trainer, "train_step", stops)
    with pytest.raises(DivergedError):
        run_command(build_config(again, []), "train")
    monkeypatch.undo()
    run(again)
    assert manifest(again)["train"]["resumed_from_step"] == 4
    assert digests(again) == digests(finished)
    shutil.rmtree(tmp_path / "run")


@pytest.mark.parametrize("dies", ["never", "before the marker", "after the marker"])
def test_tokens_that_no_training_molecule_has(settings, tmp_path, monkeypatch, dies):
    """All test molecules of the first unit, and one of the last."""
    smiles = list(SMILES)
    sides = assign_splits([str(n) for n in range(len(smiles))], seed=0, train=0.75, test=0.25)
    *some, last = np.flatnonzero(sides == "test").tolist()
    bad = [n for n in some if n < 16]
    for n in bad:
        smiles[n] = "C" * (n + 1) + "Br"
    smiles[last] = "C[Si](C)(C)C"
    (tmp_path / "all.csv").write_text("smiles,id\n" + "".join(f"{s},{n}\n" for n, s in enumerate(smiles)))
    data = {**settings["data"], "source": str(tmp_path / "all.csv")}
    tree = {**settings, "run_dir": str(tmp_path / "run"), "data": data}
    config = build_config(tree, [])

    def dying(*given):
        if dies == "after the marker":
            mark(*given)
        raise KeyboardInterrupt

    if dies != "never":
        mark = prepare.mark
        with monkeypatch.context() as patch:
            patch.setattr(prepare, "mark", dying)
            with pytest.raises(KeyboardInterrupt):
                run_command(config, "prepare")
    assert [run_command(config, stage) for stage in ("train", "encode")] == [0, 0]
    entry = manifest(tree)["prepare"]
    lost = {"no training molecule has the token Br": len(bad), "no training molecule has the token [Si]": 1}
    assert entry["quarantine_reasons"] == lost
    assert (entry["rows_in"], entry["rows_quarantined"]) == (len(smiles), len(bad) + 1)
    assert entry["rows_out"] == manifest(tree)["encode"]["rows_in"] == len(smiles) - len(bad) - 1
    tables = [pq.read_table(file) for file in (tmp_path / "run/images").glob("*.parquet")]
    assert entry["digest"] == digest_text(add_digests([table_digest(table) for table in tables]))
    assert sorted(int(k) for t in tables for k in t["key"].to_pylist()) == sorted({*range(len(smiles))} - {*bad, last})
    rows = [r for f in (tmp_path / "run/quarantine/prepare").iterdir() for r in pq.read_table(f).to_pylist()]
    assert {(int(r["key"]), r["file"]) for r in rows} == {(n, "") for n in (*bad, last)}


def test_a_column_of_nothing_is_an_error(settings, tmp_path):
    (tmp_path / "empty.csv").write_text("smiles,id\n" + "".join(f",{n}\n" for n in range(20)))
    data = {**settings["data"], "source": str(tmp_path / "empty.csv")}
    with pytest.raises(InputError, match=r"empty\.csv: \d+ of 20 molecules cannot be used so far.*\(\d+ × empty\)"):
        run_command(build_config({**settings, "run_dir": str(tmp_path / "run"), "data": data}, []), "prepare")


def test_a_set_without_a_molecule_has_validity_0() -> None:
    from ldsaug_ray.stages.shared.evaluation import _measured
    from ldsaug_ray.stages.shared.features import SetFeatures

    texts = {"train": [b"CCO", b"CCN"], "test": [b"CCC", b"CCO"], "augmented": [b"C(", b"c1"]}
    of = {n: SetFeatures(np.ones((2, 3), np.float32), {"valid": np.full(2, n != "augmented")}) for n in texts}
    config = build_config({"run_dir": "x", "domain": "molecules", "data": {"source": "x"}, "evaluate": {"k": 1}}, [])
    sets, _ = _measured(
        config, of, [m for m in OF_SETS if "molecules" in m.needs], {n: np.array(t) for n, t in texts.items()}
    )
    assert sets["augmented"].value("validity") == 0
    assert sets["augmented"].value("novelty") is None
    assert sets["augmented"].notes == ("none of 2 molecules can be measured",)
