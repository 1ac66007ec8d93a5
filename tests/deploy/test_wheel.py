"""The wheel in an environment of its own, which sees the libraries of this one: what the wheel lacks is not there."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.cluster


def ran(*words: str | Path, cwd: Path) -> str:
    """What the command printed; it succeeds, and knows nothing of this checkout."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(cwd)}
    done = subprocess.run(
        list(map(str, words)), cwd=cwd, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the sources, so that nothing is left in them."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "configs", folder / "configs")
    shutil.copytree(
        ROOT / "ldsaug_ray", folder / "ldsaug_ray", symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
    )
    ran(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        "dist",
        ".",
        cwd=folder,
    )
    (built,) = (folder / "dist").glob("*.whl")
    return built


def test_it_holds_what_is_not_python(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    data = [f for f in (ROOT / "ldsaug_ray").rglob("*") if f.suffix in (".j2", ".js", ".typed", ".smi", ".LICENSE")]
    assert len(data) >= 4
    expected = {f.relative_to(ROOT).as_posix() for f in [*data, *(ROOT / "ldsaug_ray").rglob("*.py")]}
    configs = {f"ldsaug_ray/presets/{f.relative_to(ROOT / 'configs')}" for f in (ROOT / "configs").rglob("*.yaml")}
    assert "ldsaug_ray/presets/demo.yaml" in configs
    assert {n for n in names if ".dist-info/" not in n} == expected | configs


def test_installed_it_runs_the_demo_and_init_anywhere(wheel, tmp_path):
    ran(sys.executable, "-m", "venv", "fresh", cwd=tmp_path)
    fresh = tmp_path / "fresh/bin"
    ran(fresh / "pip", "install", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    (site,) = (tmp_path / "fresh").glob("lib/python*/site-packages")
    # folders named in a .pth come last, and their own .pth files (an editable install of this checkout) are not read
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    work = tmp_path / "elsewhere"
    work.mkdir()
    where = ran(fresh / "python", "-c", "import ldsaug_ray; print(ldsaug_ray.__file__)", cwd=work)
    assert Path(where.strip()).is_relative_to(site)
    assert ran(fresh / "ldsaug", "--version", cwd=work).startswith("ldsaug_ray 0.")
    ran(fresh / "ldsaug", "init", cwd=work)
    short = ["train.steps=4", "finetune.steps=4", "score.n_candidates=900", "evaluate.n=300", "tracking.enabled=false"]
    output = ran(fresh / "ldsaug", "demo", "engine=inline", *short, cwd=work)
    assert "its control continued" in output
    assert (work / "runs/demo/experiment/index.html").exists()
