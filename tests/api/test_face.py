"""The names of the package: all there, quick to import, with examples that run."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import ldsaug_ray

NAMES = {"augment", "LatentDensity", "LatentSampler", "Encode", "Score", "Decode", "load_run", "Config", "run"}
ROOT = Path(__file__).parents[2]
MODULES = ["arguments", "augment", "batches", "density", "runs", "sampler"]


def test_the_import_is_light_and_the_names_are_there():
    code = (
        "import sys; import ldsaug_ray; "
        "heavy = {'torch', 'ray', 'sklearn', 'scipy', 'numba', 'pyarrow', 'numpy', 'pydantic', 'mlflow'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"
    assert NAMES | {"measure"} <= set(ldsaug_ray.__all__)
    code = "import ldsaug_ray; print(*dir(ldsaug_ray))"  # before any is loaded
    listed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert set(ldsaug_ray.__all__) <= set(listed.stdout.split())
    assert all(callable(getattr(ldsaug_ray, name)) for name in NAMES)
    assert (Path(ldsaug_ray.__file__).parent / "py.typed").exists()
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = ldsaug_ray.nothing


def test_run_is_a_function_whatever_was_imported_before():
    code = (
        "import ldsaug_ray.run.directory as d; import ldsaug_ray as la; from ldsaug_ray import run; assert d.RunDir\n"
        "for f in (run, la.run):\n"
        "    try: f('no-such-file.yaml')\n"
        "    except Exception as e: print(type(e).__name__)"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.split() == ["StorageError", "StorageError"]


@pytest.mark.parametrize("module", MODULES)
def test_examples(module):
    found = doctest.testmod(import_module(f"ldsaug_ray.api.{module}"))
    assert found.failed == 0
    assert found.attempted or module == "runs"


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_the_pages_lines_run(page, capsys):
    """Blocks that need neither a cluster nor a run, one after another as a reader would."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    names: dict[str, object] = {}
    for block in (b for b in blocks if "Dataset" not in b and "la.Decode" not in b and "la.run" not in b):
        exec(block, names)
    assert "In this run" in capsys.readouterr().out
