"""The pages that users copy from: the tutorial is done as it stands, commands that are shown exist, the site builds."""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ldsaug_ray
from ldsaug_ray.cli import _parse, _parser, main
from ldsaug_ray.config import describe, load_config

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SMALL = [
    *("engine=inline", "tracking.enabled=false", "data.resolution=16", "score.n_candidates=180", "report.samples=4"),
    *("vae.latent_dim=6", "vae.channel_base=128", "vae.channel_max=8"),
    *("train.steps=4", "train.batch_size=8", "finetune.steps=2", "finetune.batch_size=8"),
]
WITH_SETTINGS = ("run", "sample")


def blocks(text: str) -> list[tuple[str, str]]:
    """(language, code) of each fenced block that names one."""
    return re.findall(r"^```(bash|python)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def shown_commands(text: str) -> list[list[str]]:
    """Words after `ldsaug` of every command line in code, continued lines joined."""
    code = re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    code += re.findall(r"(?:^(?: {4}|\t).*\n)+", text, re.MULTILINE)
    lines = "\n".join(code).replace("\\\n", " ").splitlines()
    found = [re.match(r"\s*(?:\.venv/bin/)?ldsaug\s+(.*)", line) for line in lines]
    words = [shlex.split(m[1], comments=True) for m in found if m is not None]
    return [[word for word in line if word != "..."] for line in words]


def test_the_tutorial(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    shutil.copytree(pictures, tmp_path / "photos")
    shown: dict[str, object] = {}
    done = []
    for language, code in blocks((ROOT / "docs/tutorial.md").read_text()):
        if language == "python":
            exec(code, shown)
            continue
        for words in shown_commands(f"```\n{code}```\n"):
            small = SMALL if words[0] in WITH_SETTINGS else []
            assert main([*words, *small]) == 0, f"ldsaug {shlex.join(words)}\n{capsys.readouterr().err}"
            done.append(words[0])
    assert done == ["run", "run", "run", "status", "run", "settings", "sample", "export"]
    assert len(shown["densest"]) == 8
    assert len(shown["augmented"]) == 18  # a tenth of the candidates
    assert (tmp_path / "runs/photos/report/index.html").stat().st_size > 10_000
    assert len(list((tmp_path / "export/dataset/data").glob("train-*.parquet"))) == 1


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_that_are_shown_exist(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Command, options, configuration and settings: what a reader would be told is wrong."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(argparse.ArgumentParser, "exit", lambda *_: pytest.fail("does not parse"))
    for words in shown_commands(page.read_text()):
        given = _parse(_parser()[0], words)
        assert given.command == words[0]
        if "config" in given and Path(given.config).exists():
            load_config(given.config, given.overrides)


@pytest.mark.cluster
def test_the_site(tmp_path: Path) -> None:
    for package in ("mkdocs", "material", "mkdocstrings"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"no {package}: the extra docs is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    settings = (tmp_path / "site/settings.html").read_text().replace("<wbr>", "")
    assert [name for name, _, _ in describe() if f"<code>{name}</code>" not in settings] == []
    examples = (tmp_path / "site/examples.html").read_text()
    assert [file.name for file in (ROOT / "examples").iterdir() if f">{file.name}<" not in examples] == []
    face = (tmp_path / "site/reference.html").read_text()
    assert "<blockquote>" not in face  # doctests are code
    assert "augment generative-model training sets by latent density" in face
    rooms = {p.name for p in (ROOT / "ldsaug_ray").iterdir()}  # run is both a function and one of these
    names = [name for name in getattr(ldsaug_ray, "__all__", ()) if name not in rooms]
    assert [name for name in names if f'id="ldsaug_ray.{name}"' not in face] == []
    for page in (tmp_path / "site").rglob("*.html"):
        tags = re.findall(r"<(?:script|img|link)[^>]*>", page.read_text())
        assert not [t for t in tags if re.search(r'(?:src|href)="?(?:https?:)?//', t)], f"{page.name} fetches"
