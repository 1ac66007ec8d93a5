"""`deploy/Dockerfile` without Docker: hadolint's rules that concern it, what it copies, the command that it is for."""

from __future__ import annotations

import re
import shlex
import tomllib
from importlib import import_module
from pathlib import Path

import yaml

from ldsaug_ray.cli import _parse, _parser
from ldsaug_ray.config import load_config

ROOT = Path(__file__).parents[2]
LINES = [line for line in (ROOT / "deploy/Dockerfile").read_text().splitlines() if line and not line.startswith("#")]
STEPS = [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in LINES)]


def of(word: str) -> list[str]:
    return [rest for w, rest in STEPS if w == word]


def copied() -> set[str]:
    """Top-level names that `COPY .` brings: all but what .dockerignore names."""
    ignored = [line.rstrip("/") for line in (ROOT / ".dockerignore").read_text().splitlines()]
    return {f.name for f in ROOT.iterdir() if not any(Path(f.name).match(p.removeprefix("**/")) for p in ignored)}


def test_hadolints_rules():
    assert {word for word, _ in STEPS} == {"FROM", "COPY", "WORKDIR", "RUN"}
    (image,) = of("FROM")
    assert re.fullmatch(r"[\w./-]+:[\w.-]+", image)  # DL3006: a tag …
    assert not image.endswith(":latest")  # DL3007
    (place,) = of("WORKDIR")
    assert place.startswith("/")  # DL3000
    (copy,) = of("COPY")
    assert copy.split() == ["--chown=ray:users", ".", place]  # the image's user is ray, who installs in it
    (run,) = map(shlex.split, of("RUN"))
    assert run[:3] == ["pip", "install", "--no-cache-dir"]  # DL3042
    assert run[3:5] == ["-c", "constraints.txt"]  # DL3013: versions
    assert not {"sudo", "&&", "cd"} & set(run)  # DL3004, DL3003


def test_it_copies_what_pip_and_the_command_need_and_no_more():
    needed = {"pyproject.toml", "constraints.txt", "README.md", "LICENSE", "ldsaug_ray", "configs", "jobs"}
    assert needed <= copied()
    assert not {".git", ".venv", "runs", "mlflow.db"} & copied()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {project["readme"], *project["license-files"]} <= copied()
    (extra,) = re.findall(r"-e '\.\[(\w+)\]'", of("RUN")[0])
    assert extra in project["optional-dependencies"]


def test_the_command_of_the_ray_job_is_there_and_its_settings_are_valid(monkeypatch):
    module, _, function = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"][
        "ldsaug"
    ].partition(":")
    assert callable(getattr(import_module(module), function))
    program, *words = shlex.split(yaml.safe_load((ROOT / "deploy/rayjob.yaml").read_text())["spec"]["entrypoint"])
    assert program == "ldsaug"
    monkeypatch.chdir(ROOT)  # as WORKDIR
    arguments = _parse(_parser()[0], words)
    config = load_config(arguments.config, arguments.overrides)
    assert arguments.command == "run"
    assert config.run_dir.startswith("s3://")
    assert config.data.source.startswith("s3://")
