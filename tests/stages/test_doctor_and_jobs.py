"""`ldsaug doctor`, `settings`, `--dry-run`, the entry points for jobs, and the errors of what a run stands on."""

from __future__ import annotations

import importlib.util
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from stages_helpers import merge

from ldsaug_ray import __version__
from ldsaug_ray.cli import main
from ldsaug_ray.errors import ResourceError
from ldsaug_ray.run.pipeline import COMMANDS, STAGES
from ldsaug_ray.stages.shared.checks import require_faiss

ROOT = Path(__file__).parents[2]
JOBS = (  # a stage may do without one
    "prepare", "train", "encode", "score", "select", "decode", "finetune", "sample", "evaluate", "report", "frontier",
    "run", "experiment", "tune",
)  # fmt: skip


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
def test_doctor_finds_everything_here(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for subject in ("packages", "devices", "FAISS", "Ray", "MLflow", "weights"):
        assert subject in out
    assert "2 CPUs, 0 GPUs" in out


def test_doctor_says_what_to_do_about_an_absent_mlflow(capsys, monkeypatch):
    from ldsaug_ray.commands.doctor import _mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    found = _mlflow()
    assert found.mark == "fails"
    assert "MLFLOW_TRACKING_URI" in found.advice


def test_an_absent_mlflow_server_is_one_message(tree, save, capsys, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://someone:secret@127.0.0.1:9")
    assert main(["run", str(save(tree))]) == 1
    err = capsys.readouterr().err
    assert "error: MLflow at http://127.0.0.1:9 cannot be used (" in err
    assert "secret" not in err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "error: RAY_ADDRESS=127.0.0.1:9: the cluster does not answer"),
        ({"ray": {"num_cpus": 1}}, "error: ray.num_cpus: limits a local Ray"),
    ],
)
def test_a_cluster_that_cannot_be_used_is_one_message(tree, save, capsys, monkeypatch, changes, message):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # the session of other tests
    assert main(["prepare", str(save(merge(tree, {"engine": "ray", **changes})))]) == 1
    err = capsys.readouterr().err
    assert err.splitlines()[-1].startswith(message)
    assert "Traceback" not in err


def test_settings_may_stand_on_either_side_of_an_option(tree, save, capsys):
    for words in (["--dry-run", "train.steps=31"], ["train.steps=31", "--dry-run"]):
        assert main(["run", str(save(tree)), *words]) == 0
        assert "31 steps" in capsys.readouterr().out


def test_no_faiss_names_the_extras(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "ldsaug_ray.stages.shared.checks.find_spec", lambda name: None if name == "faiss" else found(name)
    )
    with pytest.raises(ResourceError, match=r"ldsaug_ray\[cpu\]"):
        require_faiss()


def test_every_stage_has_a_command_and_these_have_jobs(capsys):
    assert {p.stem for p in (ROOT / "jobs").glob("*.py")} == set(JOBS)
    for name in {*COMMANDS, *JOBS}:
        with pytest.raises(SystemExit) as stopped:
            main([name, "--help"])
        assert stopped.value.code == 0
        assert "--dry-run" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.strip() == f"ldsaug_ray {__version__}"


def test_jobs_are_the_commands(tmp_path, capsys, monkeypatch):
    """Each as `python jobs/NAME.py` runs it; one of them in a process of its own."""

    def run(name: str, *words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *words])
        monkeypatch.setattr(sys, "path", [str(ROOT / "jobs"), *sys.path])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(ROOT / f"jobs/{name}.py"), run_name="__main__")
        return (stopped.value.code, *capsys.readouterr())

    for name in JOBS:
        code, out, _ = run(name, "--help")
        assert (code, f"ldsaug {name} " in out) == (0, True)
        code, _, err = run(name, "absent.yaml")
        assert code == 1
        assert err.startswith("error: cannot read absent.yaml")
    process = [sys.executable, str(ROOT / "jobs/run.py"), "absent.yaml"]
    failed = subprocess.run(process, capture_output=True, text=True, cwd=tmp_path)
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: cannot read absent.yaml")


@pytest.mark.parametrize("name", [p.name for p in sorted((ROOT / "configs").glob("*.yaml"))])
def test_every_config_has_a_plan_and_writes_nothing(name, tmp_path, capsys):
    network = {
        "celeba10k-gan.yaml": "mobilenet_v1_embed.pt",
        "taef2.yaml": "taef2_encoder.pt",
        "molecules-moses.yaml": "chemnet.pt",
    }.get(name)
    assert main(["run", str(ROOT / "configs" / name), "--dry-run"]) == (
        network is not None
    )  # not there, seen from here
    out, err = capsys.readouterr()
    assert (network or "") in err
    for stage in STAGES:
        left_out = stage == "finetune" and name == "vectors.yaml"  # there is nothing to train
        assert stage in out or stage == "evaluate" or left_out  # the former only where an extractor is set
    assert not list(tmp_path.iterdir())


def test_the_papers_experiment_has_a_plan_and_writes_nothing(tmp_path, capsys):
    assert main(["experiment", str(ROOT / "configs/experiments/paper.yaml"), "--dry-run"]) == 1
    out, err = capsys.readouterr()
    assert "mobilenet_v1_embed.pt: cannot be read" in err
    for arm in ("baseline", "continued", "random", "lds-stratified", "typical", "cycle", "prior"):
        assert arm in out
    assert not list(tmp_path.iterdir())


def test_the_search_has_a_plan_and_writes_nothing(tmp_path, capsys):
    assert main(["tune", str(ROOT / "configs/tune-demo.yaml"), "--dry-run"]) == 0
    out = capsys.readouterr().out
    for words in ("score.sigma.scale", "40 trials by tpe, 6 scorings", "no training is needed"):
        assert words in out
    assert not list(tmp_path.iterdir())


def test_the_papers_numbers_are_in_the_configs():
    paper = yaml.safe_load((ROOT / "configs/celebahq.yaml").read_text())
    literal = yaml.safe_load((ROOT / "configs/paper-literal.yaml").read_text())
    assert (paper["data"]["resolution"], paper["data"]["train"], paper["data"]["test"]) == (256, 20000, 10000)
    assert paper["vae"]["latent_dim"] == 512
    assert paper["score"]["sigma"] == {"rule": "norm_fraction", "scale": 0.2}
    assert paper["score"]["n_candidates"] * paper["select"]["top_fraction"] == 10000
    assert literal["select"] == {"tau": 0.28, "top_fraction": None}
    assert {**literal, "run_dir": "", "select": {}} == {**paper, "run_dir": "", "select": {}}


def test_settings_lists_what_matches(capsys):
    assert main(["settings", "sigma"]) == 0
    assert "score.sigma.scale" in capsys.readouterr().out
    assert main(["settings", "no-such-setting"]) == 1
