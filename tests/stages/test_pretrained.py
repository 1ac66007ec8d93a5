"""A run whose autoencoder the user brings: taken as it is, kept in the run directory, of a dimension nobody knew."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pyarrow.dataset as pads
import pytest
import torch
from mlflow import MlflowClient
from stages_helpers import Tree, digests, manifest, merge
from torch import nn

from ldsaug_ray.cli import main
from ldsaug_ray.commands.doctor import _diffusers
from ldsaug_ray.commands.run import run_command
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config
from ldsaug_ray.errors import InputError
from ldsaug_ray.models import load_vae
from ldsaug_ray.run.opening import open_run_dir
from ldsaug_ray.run.tracking import Tracker
from ldsaug_ray.stages.shared.runner import plan_steps

UP_TO_DECODE = ("train", "encode", "score", "select", "decode")


def unshuffled() -> tuple[nn.Module, nn.Module]:
    """Pixels rearranged to latents [48, 4, 4] and mixed by an orthogonal matrix: decoding inverts encoding."""
    mixing = nn.init.orthogonal_(torch.empty(48, 48), generator=torch.Generator().manual_seed(0))
    down, up = nn.Conv2d(48, 48, 1, bias=False), nn.Conv2d(48, 48, 1, bias=False)
    with torch.no_grad():
        down.weight.copy_(mixing[..., None, None])
        up.weight.copy_(mixing.T[..., None, None])
    return nn.Sequential(nn.PixelUnshuffle(4), down), nn.Sequential(up, nn.PixelShuffle(4))


@pytest.fixture
def pretrained(tree: Tree, tmp_path: Path) -> Tree:
    """The tiny pipeline with such a pair of files."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`torch\.jit")
        for name, network in zip(("encoder", "decoder"), unshuffled(), strict=True):
            torch.jit.save(torch.jit.script(network), tmp_path / f"{name}.pt")
    files = {name: str(tmp_path / f"{name}.pt") for name in ("encoder", "decoder")}
    del tree["train"]
    return {
        **tree,
        "vae": {"kind": "torchscript", "pixel_range": "symmetric", **files},
        "score": {"n_candidates": 450},
        "tracking": {"enabled": False},
    }


def run(settings: Tree, *commands: str) -> None:
    for command in commands:
        assert run_command(Config.model_validate(settings), command) == 0


def state(settings: Tree, stage: str) -> str:
    config = Config.model_validate(settings)
    (step,) = plan_steps(config, open_run_dir(config, create=False), [stage])
    return step.state


def test_from_files_to_augmented_images(
    pretrained: Tree, tmp_path: Path, capsys: pytest.CaptureFixture[str], save, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["run", str(save(pretrained)), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "nothing to train" in out

    run(pretrained, "train")
    files = [tmp_path / f"{name}.pt" for name in ("encoder", "decoder")]
    contents = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()  # from here on the run directory is enough
    run(pretrained, *UP_TO_DECODE)
    done = manifest(pretrained)
    assert (done["train"]["rows_in"], done["train"]["rows_out"], done["train"]["latent_dim"]) == (44, 44, 768)
    assert (done["encode"]["latent_dim"], done["decode"]["rows_out"]) == (768, 90)
    assert json.loads((Path(pretrained["run_dir"]) / "train" / "curve.json").read_text()) == []

    folder = Path(pretrained["run_dir"])
    latents = pads.dataset(folder / "latents", format="parquet").to_table()
    images = pads.dataset([str(f) for f in folder.glob("images/*.parquet")], format="parquet").to_table()
    pixels = {k: np.frombuffer(v, np.uint8) for k, v in zip(*(images[c].to_pylist() for c in ("key", "image")))}  # noqa: B905
    encoder, decoder = unshuffled()
    for row in latents.slice(0, 5).to_pylist():
        x = torch.from_numpy(pixels[row["key"]].reshape(16, 16, 3).copy()).permute(2, 0, 1)[None] / 127.5 - 1
        np.testing.assert_allclose(row["z"], encoder(x).detach().flatten(), atol=1e-5)

    # a plan, and the same command again
    assert state(pretrained, "train") == "complete"
    mistyped = merge(pretrained, {"vae": {"encoder": "mistyped.pt"}})
    with pytest.raises(InputError, match=r"vae\.encoder: there is no file mistyped\.pt"):
        run(mistyped, "train")
    before = digests(pretrained)
    run(pretrained, *UP_TO_DECODE)
    assert digests(pretrained) == before

    # moved files are the same model; other contents or another use of them are not
    moved = {name: str(tmp_path / f"moved-{name}.pt") for name in ("encoder", "decoder")}
    for path, content in zip(moved.values(), contents, strict=True):
        Path(path).write_bytes(content)
    elsewhere = merge(pretrained, {"vae": moved})
    run(elsewhere, "train")
    assert digests(elsewhere) == before
    assert state(elsewhere, "encode") == "complete"
    run(merge(elsewhere, {"vae": {"pixel_range": "unit"}}), "train")
    assert state(elsewhere, "train") == "run"
    assert digests(elsewhere)["train"] != before["train"]
    run(elsewhere, "train")
    assert state(elsewhere, "encode") == "complete"

    # trained further on A: both halves learn
    tuned = merge(elsewhere, {"finetune": {"steps": 3, "learning_rate": 1e-3}})
    run(tuned, "finetune")
    after = load_vae(Location.of(folder) / "finetune/vae.safetensors")
    for ours, theirs in zip((after.encoder, after.decoder), unshuffled(), strict=True):
        (new,), (old,) = ours.parameters(), theirs.parameters()
        assert 0 < (new - old).abs().max() < 0.1

    # the page
    config = Config.model_validate(tuned)
    run(tuned, "report")
    page = (folder / "report" / "index.html").read_text()
    assert "none (torchscript)" in page
    assert ">768<" in page

    # MLflow: the logged model needs nothing but itself
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    tracker = Tracker.start(config, open_run_dir(config))
    tracker.send(config, open_run_dir(config), ["train"])
    tracker.end("FINISHED")
    client = MlflowClient()
    (output,) = client.get_run(tracker.run_id).outputs.model_outputs
    model = mlflow.pyfunc.load_model(f"models:/{output.model_id}")
    z = np.random.default_rng(0).standard_normal((3, 768)).astype(np.float32)
    x = decoder(torch.from_numpy(z).view(3, 48, 4, 4)).detach()
    want = ((x + 1) * 127.5).round().clamp(0, 255).permute(0, 2, 3, 1)
    assert np.abs(model.predict(z) - want.numpy()).max() <= 1


@pytest.mark.parametrize("how", ["run", "plan"])
def test_an_autoencoder_that_does_not_fit_ends_a_run_and_its_plan_before_an_image_is_read(
    pretrained: Tree, tmp_path: Path, save, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "model_index.json").write_text("{}")
    swapped = {"encoder": pretrained["vae"]["decoder"], "decoder": pretrained["vae"]["encoder"]}
    wrong = (
        ({**pretrained["vae"], "decoder": str(tmp_path / "nothing.pt")}, "vae.decoder: there is no file"),
        ({**pretrained["vae"], **swapped}, "decoder.pt: the encoder fails on float32[2, 3, 16, 16]"),
        ({"kind": "diffusers", "path": str(tmp_path / "pipeline")}, "is a whole pipeline; give its autoencoder"),
    )
    for vae, message in wrong:
        assert main(["run", str(save({**pretrained, "vae": vae})), *["--dry-run"] * (how == "plan")]) == 1
        printed = capsys.readouterr()
        assert ("plan for" in printed.out) == (how == "plan")
        assert message in printed.err
    assert not Path(pretrained["run_dir"]).exists()


def test_doctor_knows_whether_diffusers_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import PackageNotFoundError

    assert _diffusers().mark in ("ok", "note")

    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("ldsaug_ray.commands.doctor.version", absent)
    found = _diffusers()
    assert found.mark == "note"
    assert "ldsaug_ray[diffusers]" in found.advice
