"""The GPU check in small, on a CPU: it runs with the packages that docs/gpu.md lists and no others, and can fail."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from importlib.metadata import packages_distributions, requires
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from lds_oracles import score
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytest.importorskip("triton", reason="Triton comes with PyTorch for Linux")

ROOT = Path(__file__).parents[2]
BENCHMARK = ROOT / "benchmarks/gpu.py"

HIDE = """
import sys

class Hidden:  # as if they were not installed
    def __init__(self, finder): self.finder = finder
    def __getattr__(self, name): return getattr(self.finder, name)
    def find_spec(self, name, *rest):
        return None if name.partition(".")[0] in {others} else self.finder.find_spec(name, *rest)

sys.meta_path[:] = map(Hidden, sys.meta_path)
"""


def listed() -> dict[str, str]:
    """Packages of docs/gpu.md and their versions."""
    rows = re.findall(r"^\| ([a-z-]+) \| ([\d.]+) \|$", (ROOT / "docs/gpu.md").read_text(), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in rows}


def with_what_they_need(names: set[str]) -> set[str]:
    """The packages and all that they require here."""
    found, waiting = set(), set(names)
    while waiting:
        found.add(name := waiting.pop())
        needs = [Requirement(r) for r in requires(name) or []]
        asked = {canonicalize_name(r.name) for r in needs if r.marker is None or r.marker.evaluate({"extra": ""})}
        waiting |= asked - found
    return found


def run(*arguments: str, hidden: Path | None = None) -> subprocess.CompletedProcess[str]:
    paths = [str(p) for p in (hidden, os.environ.get("PYTHONPATH")) if p]
    environment = {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, str(BENCHMARK), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


def test_listed_versions_are_those_tested() -> None:
    pinned = dict(re.findall(r"^([\w.-]+)==([\w.]+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    known = {canonicalize_name(name): version for name, version in pinned.items()}
    assert listed().keys() >= {"torch", "triton", "pydantic"}
    assert {name: known[name] for name in listed()} == listed()


def test_small_run(tmp_path: Path) -> None:
    """With every other package hidden; one of the sizes is impossible, so that a section fails and the others go on."""
    allowed = with_what_they_need(set(listed()))
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    others = {
        module
        for module, distributions in packages_distributions().items()
        if module != "ldsaug_ray" and not allowed & {canonicalize_name(name) for name in distributions}
    }
    assert "ray" in others
    (hidden / "sitecustomize.py").write_text(HIDE.format(others=others))
    ended = run("--json", str(tmp_path / "found.json"), "--sides", "16", "24", "--only", "machine", "correctness",
                "scores", "models", "--minutes", "60", hidden=hidden)  # fmt: skip
    found = {(part["section"], part["px"]): part for part in json.loads((tmp_path / "found.json").read_text())}
    assert list(found) == [("machine", None), ("correctness", None), ("scores", None), ("models", 16), ("models", 24)]
    impossible = found.pop(("models", 24))
    assert "24 is not one of" in impossible["error"]
    assert not impossible["rows"]
    assert {key: part["error"] for key, part in found.items()} == dict.fromkeys(found)
    assert ended.returncode == 1
    assert "FAILED" in ended.stdout
    rows = {section: part["rows"] for (section, _), part in found.items()}
    assert len(rows["correctness"]) == 30
    assert all(row["holds"] for row in rows["correctness"])
    assert all(row["s"] > 0 and "goal 60%" in row["of what its arithmetic allows"] for row in rows["scores"])
    done = {(row["what"], row["precision"]) for row in rows["models"]}
    assert done == {("train", "bfloat16"), ("a step, ms", "bfloat16")} | {
        (what, precision) for what in ("encode", "decode") for precision in ("bfloat16", "tf32", "float32")
    }
    titles = re.findall("^### (.+)$", ended.stdout, re.MULTILINE)
    assert titles == ["machine", "correctness", "scores", "models"]
    tables = ended.stdout.split("### ")[1:]
    assert [text.count("\n|") - 2 for text in tables] == [len(rows[title]) for title in titles]


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = spec_from_file_location("gpu_benchmark", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "DEVICE", "cpu")
    return module


@pytest.mark.parametrize("kind", ["linear", "slerp"])
def test_its_truth_is_brute_force(benchmark: ModuleType, kind: str) -> None:
    z = np.random.default_rng(0).standard_normal((30, 5)).astype(np.float32)
    pairs, alphas, sigmas = np.array([[0, 1], [7, 3]]), [0.1, 0.5, 1.2], [0.3, 2.0]
    found = benchmark.truth(z, pairs, alphas, sigmas, arc=kind == "slerp")
    for name, want in score(z, pairs, alphas, sigmas, kind).items():
        np.testing.assert_allclose(getattr(found, name), want, rtol=1e-11, atol=1e-11, err_msg=name)


def test_time_that_is_over(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    monkeypatch.setattr(benchmark, "SMALL", True)
    monkeypatch.setattr(sys, "argv", [str(BENCHMARK), "--json", str(file), "--minutes", "0", "--only", "machine"])
    with pytest.raises(SystemExit) as ended:
        benchmark.main()
    assert ended.value.code == 1
    assert json.loads(file.read_text())[0]["error"] == "its 0 s were over"


def test_a_section_ends_with_the_command(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a session of its own, which neither Ctrl-C nor a batch system's signal reaches."""
    processes = []

    class Stopped(subprocess.Popen[str]):
        def communicate(self, *_: object, **__: object) -> tuple[str, str]:
            processes.append(self)
            raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", Stopped)
    with pytest.raises(KeyboardInterrupt):
        benchmark.in_a_process("machine", None, 60.0)
    with processes[0] as process:  # its pipes are closed
        assert process.wait(60) == -signal.SIGKILL


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_no_gpu(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(BENCHMARK)])
    with pytest.raises(SystemExit, match="finds no GPU here"):
        benchmark.main()


def test_a_wrong_score_is_told(benchmark: ModuleType) -> None:
    right = benchmark.Truth(*np.full((4, 2, 1, 1), 0.5))
    assert benchmark.compared("", right, right)["holds"]
    for field in right._fields:
        for wrong in (0.5 + 1e-3, np.nan):
            off = right._replace(**{field: np.array([[[0.5]], [[wrong]]])})
            assert not benchmark.compared("", off, right)["holds"], (field, wrong)
