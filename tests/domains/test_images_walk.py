"""Folders as the world leaves them: links in circles, sidecars, pipes, odd names. Each file once, the rest counted."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import fsspec
import pytest

from ldsaug_ray.domains.images import IMAGES
from ldsaug_ray.domains.sources.stamp import source_stamp
from ldsaug_ray.errors import InputError

HIDDEN = "hidden (the name begins with a dot)"
BESIDE = "files that programs leave beside others (~$…, SYNOFILE_THUMB…)"
LINKED_FILE = "further names of files already listed"
LINKED_FOLDER = "links to folders already listed"


@pytest.fixture
def tree(tmp_path: Path, encode) -> Path:
    """a/0.png, a/1.png, b/2.png."""
    for name in ("a/0.png", "a/1.png", "b/2.png"):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode())
    return tmp_path / "tree"


def listed(make_data, place) -> tuple[list[str], dict[str, int]]:
    source = IMAGES.open(make_data(place))
    return source.list()["key"].to_pylist(), dict(source.passed_over)


def test_links_in_circles(make_data, tree):
    before = listed(make_data, tree)
    assert before == (["a/0.png", "a/1.png", "b/2.png"], {})
    stamp = source_stamp(make_data(tree))
    (tree / "latest").symlink_to(".")
    assert listed(make_data, tree) == (before[0], {LINKED_FOLDER: 1})
    for name in ("x", "y"):  # with both, an unguarded walk doubles at every level
        (tree / "a" / name).symlink_to("..")
    (tree / "a" / "self").symlink_to("self")
    keys, passed_over = listed(make_data, tree)
    assert keys == before[0]
    assert passed_over == {"no extension": 1, LINKED_FOLDER: 3}
    assert source_stamp(make_data(tree)) == stamp


def test_links_are_followed_once(make_data, tree, tmp_path, encode):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "3.png").write_bytes(encode())
    (outside / "back").symlink_to(tree)
    for name in ("c", "A"):  # capitals sort first: the real folder counts nevertheless, and of two links the first
        (tree / name).symlink_to(outside)
    (tree / "A0").symlink_to("a")
    keys, passed_over = listed(make_data, tree)
    assert keys == ["A/3.png", "a/0.png", "a/1.png", "b/2.png"]
    assert passed_over == {LINKED_FOLDER: 3}


def test_each_file_once(make_data, tree, tmp_path, encode):
    (tree / "0.png").symlink_to("a/0.png")
    os.link(tree / "a/1.png", tree / "b/1.png")
    (tmp_path / "blob").write_bytes(encode())
    (tree / "b/4.png").symlink_to(tmp_path / "blob")  # as the caches of download tools do
    (tree / "b/5.png").symlink_to(tmp_path / "blob")
    keys, passed_over = listed(make_data, tree)
    assert keys == ["a/0.png", "a/1.png", "b/2.png", "b/4.png"]
    assert passed_over == {LINKED_FILE: 3}


def test_the_file_under_a_name_that_no_source_reads(make_data, tree):
    (tree / "store").mkdir()
    (tree / "a/0.png").rename(tree / "store/ab12")
    (tree / "a/0.png").symlink_to("../store/ab12")
    assert listed(make_data, tree) == (["a/0.png", "a/1.png", "b/2.png"], {"no extension": 1})


SIDECARS = [
    *("@eaDir", "#recycle", "lost+found", "__MACOSX", "$RECYCLE.BIN", "@Recycle", "~snapshot", "RECYCLED", "_vti_cnf"),
    *("resource.frk", "@__qini", "@SynoResource", "@upload_cache", "@appstore", "@database", "@Snapshot", "FOUND.000"),
]


@pytest.mark.parametrize("name", SIDECARS)
def test_sidecar_folders(make_data, tree, encode, name):
    for folder in (tree / name / "0.png", tree / "a" / name):
        folder.mkdir(parents=True)
        (folder / "thumb.jpg").write_bytes(encode())
    assert listed(make_data, tree) == (["a/0.png", "a/1.png", "b/2.png"], {f"folders {name}": 2})


@pytest.mark.parametrize("name", ["@eaDir", "#recycle"])
def test_a_link_to_itself_that_is_called_like_a_sidecar(make_data, tree, name):
    (tree / "a" / name).symlink_to(name)
    assert listed(make_data, tree) == (["a/0.png", "a/1.png", "b/2.png"], {"no extension": 1})


def test_what_programs_leave_beside_files(make_data, tree, encode):
    for name in ("a/~$0.png", "b/SYNOFILE_THUMB_M.png", "b/SYNOPHOTO_THUMB_XL.jpg"):
        (tree / name).write_bytes(encode())
    assert listed(make_data, tree) == (["a/0.png", "a/1.png", "b/2.png"], {BESIDE: 3})


def test_hidden_names(make_data, tree, encode):
    for name in (".thumbnails/0.png", ".AppleDouble/1.png", "a/._0.png"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_bytes(encode())
    assert listed(make_data, tree) == (["a/0.png", "a/1.png", "b/2.png"], {HIDDEN: 3})


def test_what_is_no_file(make_data, tree, monkeypatch):
    os.mkfifo(tree / "a/pipe.png")  # reading it would wait for ever
    (tree / "folder.png").mkdir()
    with socket.socket(socket.AF_UNIX) as s:
        monkeypatch.chdir(tree)  # its path must be short
        s.bind("s.png")
        keys, passed_over = listed(make_data, tree)
    assert keys == ["a/0.png", "a/1.png", "b/2.png"]
    assert passed_over == {"pipes, sockets or devices": 2}
    with pytest.raises(InputError, match="a pipe, socket or device"):
        IMAGES.open(make_data(tree / "a/pipe.png"))


def test_odd_names(make_data, tree, encode):
    for name in ("new\nline.png", "e\u0301.PNG", "é.png", "a b.JpG", "#.png", "%20.png"):
        (tree / name).write_bytes(encode())
    keys, _ = listed(make_data, tree)
    assert keys == sorted(keys)
    assert {"new\nline.png", "e\u0301.PNG", "é.png", "a b.JpG", "#.png", "%20.png"} < set(keys)
    source = IMAGES.open(make_data(tree))
    assert all(payload == encode() for payload, _, _ in source.read(source.list()))
    Path(os.fsdecode(os.fsencode(tree / "a") + b"/caf\xe9.png")).write_bytes(b"")
    with pytest.raises(InputError, match=r"caf\\xe9\.png' is not UTF-8"):
        IMAGES.open(make_data(tree))


def test_a_pattern_takes_files_alone(make_data, tree, encode):
    (tree / "0.png").write_bytes(encode())
    (tree / "one.png").symlink_to("0.png")
    (tree / "b.png").mkdir()
    (tree / "x.txt").write_text("x")
    assert listed(make_data, tree / "*.png") == (["0.png"], {LINKED_FILE: 1, "folders (a pattern stands for files)": 1})
    assert listed(make_data, tree / "{one,0}.png")[0] == ["0.png"]
    assert listed(make_data, tree / "one.pn?")[0] == ["one.png"]


def test_a_listing_can_be_interrupted(make_data, tree, monkeypatch):
    def interrupted(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "scandir", interrupted)
    with pytest.raises(KeyboardInterrupt):
        IMAGES.open(make_data(tree))


def test_the_same_words_on_a_store(make_data, tree, encode):
    for name in ("@eaDir/0.png/x.jpg", "a/#recycle/y.png", ".thumbnails/0.png", "a/._0.png", "notes.txt", "x.avif"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(encode())
    fs = fsspec.filesystem("memory")
    try:
        fs.put(str(tree), "/walk", recursive=True)
        assert listed(make_data, "memory://walk") == listed(make_data, tree)
        assert listed(make_data, tree)[1] == {
            ".txt": 1,
            ".avif": 1,
            HIDDEN: 2,
            "folders @eaDir": 1,
            "folders #recycle": 1,
        }
    finally:
        fs.rm("/walk", recursive=True)


def test_a_folder_that_holds_nothing_says_what_it_left_out(make_data, tmp_path, encode):
    (tmp_path / "@eaDir").mkdir()
    (tmp_path / "@eaDir/x.jpg").write_bytes(encode())
    with pytest.raises(InputError, match="the folder is empty; left out: 1 folders @eaDir"):
        IMAGES.open(make_data(tmp_path))
