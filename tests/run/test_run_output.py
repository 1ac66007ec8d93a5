"""What is printed never makes a failure of what was done: encodings, closed pipes, full disks, names like markup."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import numpy as np
import pytest
import yaml
from PIL import Image
from rich.table import Table

from ldsaug_ray.cli import main
from ldsaug_ray.run.output import forgiving_output
from ldsaug_ray.run.progress import bar, make_console, result_console
from ldsaug_ray.selection import sentence_of

SELECTED = {
    "rows_out": 20,
    "rows_in": 100,
    "which": "lds",
    "threshold_tau": 0.125,
    "threshold_log_lds": -2.079,
    "binding_rule": "top_fraction",
    "paper_tau": 0.28,
}


def narrow(encoding: str) -> TextIO:
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict", newline="\n")


def written(stream: TextIO) -> str:
    stream.flush()
    return stream.buffer.getvalue().decode(stream.encoding)


@pytest.mark.parametrize(
    ("encoding", "text", "shown"),
    [
        ("ascii", "LDS ≥ 0.5 → 3 × σ, naïve 字", r"LDS >= 0.5 -> 3 x sigma, na\xefve \u5b57"),
        ("cp1252", "LDS ≥ 0.5 → 3 × σ, naïve 字", r"LDS >= 0.5 -> 3 × sigma, naïve \u5b57"),
        ("utf-8", "LDS ≥ 0.5 → 字", "LDS ≥ 0.5 → 字"),
        ("utf-8", "a name of no encoding: \udcff", r"a name of no encoding: \udcff"),
    ],
)
def test_what_a_terminal_has_no_sign_for_is_said_otherwise(
    encoding: str, text: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, err = narrow(encoding), narrow(encoding)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with forgiving_output():
        print(text)
        make_console().print(text)
        with bar(make_console(), text, 1, "images"):
            pass
    assert sys.stdout is out
    assert written(out) == f"{shown}\n"
    assert written(err).startswith(f"{shown}\n")


def test_a_summary_on_a_terminal_of_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    out = narrow("ascii")
    monkeypatch.setattr(sys, "stdout", out)
    table = Table("stage", "σ")
    table.add_row("prepare", "→")
    with forgiving_output():
        result_console(60).print(table)
        print(sentence_of(SELECTED))
    lines = written(out).splitlines()
    assert lines[-1].startswith("kept 20 of 100 candidates: LDS >= 0.125 (log -2.079, by top_fraction)")
    assert any("prepare" in line and "->" in line for line in lines)


@pytest.mark.parametrize("console", [make_console, lambda: result_console(80)], ids=["messages", "results"])
def test_names_are_no_markup(console: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", out)
    for text in ("run[/x]", "a:cat:b", "[red]c"):
        table = Table(title=text)
        table.add_column(text)
        table.add_row(text)
        console().print(text)
        console().print(table)
        assert out.getvalue().count(text) == 4
        out.truncate(0)


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """Six images, to be prepared without Ray into a folder whose name rich would take for markup."""
    (tmp_path / "images").mkdir()
    for n in range(6):
        pixels = np.random.default_rng(n).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{n}.png")
    data = {"source": str(tmp_path / "images"), "resolution": 16, "train": 4, "test": 2}
    tree = {"run_dir": str(tmp_path / "run[/x]"), "engine": "inline", "data": data}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree))
    return tmp_path / "config.yaml"


def broken_pipe() -> TextIO:
    read, write = os.pipe()
    os.close(read)
    return open(write, "w")


def full_disk() -> TextIO:
    return open("/dev/full", "w")


@pytest.mark.parametrize("lost", ["stdout", "stderr"])
@pytest.mark.parametrize("stream", [broken_pipe, full_disk], ids=["closed pipe", "full disk"])
def test_a_stage_is_done_though_nobody_reads(
    settings: Path, lost: str, stream: Callable[[], TextIO], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = io.StringIO()
    with stream() as gone:
        monkeypatch.setattr(sys, lost, gone)
        monkeypatch.setattr(sys, "stderr" if lost == "stdout" else "stdout", other)
        assert main(["prepare", str(settings)]) == 0
        monkeypatch.undo()
    assert (tmp_path / "run[/x]" / "manifest.json").exists()
    told = "standard output cannot be written (No space left on device)" in other.getvalue()
    assert told == (lost == "stdout" and gone.name == "/dev/full")


def test_what_is_output_alone_has_failed_where_it_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    with broken_pipe() as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        assert main(["settings", "data."]) == 1
        monkeypatch.undo()


@pytest.mark.parametrize(
    ("words", "environment", "redirected"),
    [
        (["run", "--help"], {"PYTHONIOENCODING": "ascii"}, ""),
        (["settings"], {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}, ""),
        (["settings"], {"PYTHONIOENCODING": "cp1252"}, ""),
        (["settings", "nothing like it"], {}, ">&- 2>&-"),  # descriptors closed: Python has no streams at all
    ],
)
def test_the_command_itself(words: list[str], environment: dict[str, str], redirected: str) -> None:
    command = ["sh", "-c", f'exec "$@" {redirected}', "sh", sys.executable, "-m", "ldsaug_ray", *words]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True)
    assert done.returncode == (1 if redirected else 0)
    assert b"Error" not in done.stderr
    assert bool(done.stdout) == (not redirected)
