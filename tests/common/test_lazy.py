"""A package's face: every name that it lists is there, and none is a module where a function is meant."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

FACES = ["lds", "metrics", "models", "domains.images"]


def listed(package: str) -> dict[str, str]:
    """Name -> the module that it comes from."""
    tree = ast.parse(Path(str(import_module(f"ldsaug_ray.{package}").__file__)).read_text())
    found = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and str(n.module).startswith("ldsaug_ray.")]
    return {a.asname or a.name: str(n.module) for n in found for a in n.names}


@pytest.mark.parametrize("package", FACES)
def test_a_face_gives_what_it_lists_whatever_was_imported_before(package):
    face = import_module(f"ldsaug_ray.{package}")
    for name, module in listed(package).items():
        assert getattr(face, name) is getattr(import_module(module), name)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = face.nothing


def test_names_that_are_modules_too_are_no_modules():
    code = (
        "import ldsaug_ray.domains.images.quality; from ldsaug_ray.metrics import sharpness; assert callable(sharpness)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_stages_and_settings_are_known_without_torch():
    code = (
        "import sys; from ldsaug_ray.cli import main; from ldsaug_ray.run.pipeline import STAGES; list(STAGES); "
        "main(['settings']); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
