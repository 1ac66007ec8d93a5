"""The stamp of a source: another when its files change, the same when they do not, without reading them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ldsaug_ray.config import Data
from ldsaug_ray.domains.sources.stamp import source_stamp
from ldsaug_ray.errors import InputError, StorageError

NANOSECONDS = 1_700_000_000_000_000_000


def put(path: Path, content: bytes = b"x", at: int = NANOSECONDS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, ns=(at, at))


def stamp(source: Path | str, **settings: object) -> str:
    return source_stamp(Data.model_validate({"source": str(source), **settings}))


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """A folder of files; nothing in it is a real image, since nothing is read."""
    for name in ("a.jpg", "b.jpg", "more/c.jpg"):
        put(tmp_path / "faces" / name)
    return tmp_path / "faces"


def rename(faces: Path) -> None:
    (faces / "a.jpg").rename(faces / "z.jpg")


@pytest.mark.parametrize(
    "change",
    [
        lambda faces: put(faces / "a.jpg", b"xy"),
        lambda faces: put(faces / "a.jpg", at=NANOSECONDS + 1_000),
        lambda faces: put(faces / "more/c.jpg", b"xy"),
        lambda faces: put(faces / "d.jpg"),
        lambda faces: put(faces / "more/new/d.jpg"),
        lambda faces: (faces / "b.jpg").unlink(),
        lambda faces: (faces / "more/c.jpg").rename(faces / "c.jpg"),
        rename,
    ],
)
def test_a_change_of_any_file_changes_the_stamp(faces: Path, change: Callable[[Path], object]) -> None:
    before = stamp(faces)
    change(faces)
    assert stamp(faces) != before


def test_no_change_no_other_stamp(faces: Path, tmp_path: Path) -> None:
    before = stamp(faces)
    assert len(before) == 64
    assert stamp(f"{faces}/") == before
    assert stamp(f"file://{faces}") == before
    put(faces / ".DS_Store")  # left by file managers; no source lists it
    put(faces / "more/.thumbs/a.jpg")
    assert stamp(faces) == before
    shutil.copytree(faces, tmp_path / "copy", copy_function=shutil.copy2)
    assert stamp(tmp_path / "copy") == before


def test_one_file(tmp_path: Path) -> None:
    put(tmp_path / "a.parquet")
    before = stamp(tmp_path / "a.parquet")
    put(tmp_path / "b.parquet")
    assert stamp(tmp_path / "a.parquet") == before != ""
    put(tmp_path / "a.parquet", b"longer")
    assert stamp(tmp_path / "a.parquet") != before


@pytest.mark.parametrize("pattern", ["*.tar", "{0..1}.tar", "?.tar"])
def test_a_pattern_stands_for_the_files_it_matches(tmp_path: Path, pattern: str) -> None:
    for name in ("0.tar", "1.tar"):
        put(tmp_path / name)
    before = stamp(tmp_path / pattern)
    assert before != ""
    put(tmp_path / "notes.txt")
    assert stamp(tmp_path / pattern) == before
    put(tmp_path / "1.tar", b"longer")
    assert stamp(tmp_path / pattern) != before


def test_the_attribute_file_counts(faces: Path, tmp_path: Path) -> None:
    put(tmp_path / "list_attr.txt")
    without, before = stamp(faces), stamp(faces, attributes=str(tmp_path / "list_attr.txt"))
    assert without != before
    assert stamp(faces, attributes="columns") == without
    put(tmp_path / "list_attr.txt", b"longer")
    assert stamp(faces, attributes=str(tmp_path / "list_attr.txt")) != before


def test_built_in_digits_have_no_files(tmp_path: Path) -> None:
    assert stamp("sklearn:digits") == ""
    put(tmp_path / "a.txt")
    assert stamp("sklearn:digits", attributes=str(tmp_path / "a.txt")) != ""


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file or folder"):
        stamp(tmp_path / "nowhere")
    with pytest.raises(InputError, match="there is no file"):
        stamp(tmp_path / "*.tar")
    with pytest.raises(StorageError, match="nope://"):
        stamp("nope://x/y")
