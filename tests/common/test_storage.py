"""Files and folders through `Location`: every kind of address, atomic writing, and errors that name the file."""

from __future__ import annotations

import errno
import os
import pickle
import resource
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from ldsaug_ray.common.storage import Location
from ldsaug_ray.errors import StorageError

TABLE = pa.table({"key": ["a", "b"], "n": [1, 2]})


@pytest.fixture(params=["path", "file", "local", "memory", "fsspec"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Location]:
    """An empty place on every kind of file system that needs no network."""
    if request.param == "memory":
        place = Location.of(f"memory://{uuid.uuid4().hex}/r")
    elif request.param == "fsspec":
        place = Location(pafs.PyFileSystem(pafs.FSSpecHandler(_dir_fs())), str(tmp_path), "fsspec")
    else:
        place = Location.of({"path": "", "file": "file://", "local": "local://"}[request.param] + str(tmp_path))
    yield place
    place.delete()


def _dir_fs() -> object:
    import fsspec

    return fsspec.filesystem("dir", path="/", fs=fsspec.filesystem("local"))


def test_what_is_written_is_read(folder: Location) -> None:
    (folder / "a/b.bin").write_bytes(b"\0\1")
    (folder / "a/b.json").write_json({"é": [1, None], "x": 1.5})
    (folder / "c/t.parquet").write_table(TABLE)
    assert (folder / "a/b.bin").read_bytes() == b"\0\1"
    assert (folder / "a/b.json").read_json() == {"é": [1, None], "x": 1.5}
    assert "é" in (folder / "a/b.json").read_text()
    assert (folder / "c/t.parquet").read_table().equals(TABLE)
    assert (folder / "c/t.parquet").read_table(["n"]).column_names == ["n"]
    (folder / "a/b.bin").write_bytes(b"new")
    assert (folder / "a/b.bin").read_bytes() == b"new"
    assert (folder / "a/b.bin").info().size == 3


def test_files_are_sorted_and_filtered(folder: Location) -> None:
    for name in ("b.json", "a.json", "a/z.json", "a.txt", "a/y/x.json", "B.json"):
        (folder / name).write_bytes(b"x")
    found = folder.files(".json")
    assert [f.path[len(folder.path) + 1 :] for f in found] == ["B.json", "a.json", "a/y/x.json", "a/z.json", "b.json"]
    assert found[0].uri == f"{folder.uri}/B.json"
    assert [f.read_bytes() for f in found] == [b"x"] * 5
    assert [f.name for f in folder.files(recursive=False)] == ["B.json", "a.json", "a.txt", "b.json"]
    assert folder.names() == ["B.json", "a", "a.json", "a.txt", "b.json"]
    assert (folder / "nowhere").files() == []
    assert (folder / "nowhere").names() == []


@pytest.mark.parametrize(
    "name",
    ["with space", "übung", "a#b", "50%", "a%20b", "a?b=c", "日本", "a+b&c", "a=1", "[x]{y}", "-dash", "quote'\""],
)
def test_awkward_names(folder: Location, name: str) -> None:
    file = folder / name / f"{name}.json"
    file.write_json({"name": name})
    (folder / name / "t.parquet").write_table(TABLE)
    assert [f.name for f in folder.files(".json")] == [f"{name}.json"]
    assert folder.files(".json")[0].read_json() == {"name": name}
    assert (folder / name / "t.parquet").read_table().equals(TABLE)
    assert file.name == f"{name}.json"
    if folder.is_local or not any(c in name for c in "*?["):
        file.delete()
        assert not file.exists()


def test_a_signal_does_not_end_a_write_half_way() -> None:
    """Arrow closes, and so publishes, the object of a writer that a signal ends."""
    from fsspec.implementations.memory import MemoryFileSystem

    class Slow(MemoryFileSystem):
        def open(self, *words: object, **options: object) -> object:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            threading.Event().wait(0.3)
            return super().open(*words, **options)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    file = Location(pafs.PyFileSystem(pafs.FSSpecHandler(Slow(skip_instance_cache=True))), "/s/manifest.json", "slow")
    before = signal.signal(signal.SIGALRM, stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            file.write_bytes(b"{}")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert Location.of("memory:///s/manifest.json").read_bytes() == b"{}"


def test_lists_that_fsspec_remembers_are_asked_for_again() -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    class Remembering(MemoryFileSystem):
        """As those of web services do."""

        def find(self, path: str, *rest: object, **options: object) -> object:
            if path not in self.dircache:
                self.dircache[path] = super().find(path, *rest, **options)
            return self.dircache[path]

        def invalidate_cache(self, path: str | None = None) -> None:
            self.dircache.clear()

    here = Location(pafs.PyFileSystem(pafs.FSSpecHandler(Remembering(skip_instance_cache=True))), "/r", "remembering")
    other = Location.of("memory:///r")  # on another machine
    for name in ("a", "b"):
        (other / name).write_bytes(b"")
        assert here.names()[-1] == here.files()[-1].name == name
    other.delete()


def test_a_name_that_fsspec_takes_for_a_pattern_is_not_deleted() -> None:
    """It would delete `run1` where `run[1]` was meant."""
    root = Location.of(f"memory://{uuid.uuid4().hex}")
    (root / "run1/images").write_bytes(b"x")
    for name in ("run[1]", "run*", "run?"):
        with pytest.raises(StorageError, match="fsspec takes"):
            (root / name).delete()
    assert (root / "run1/images").exists()


def test_deleting_twice_is_as_good_as_once(folder: Location) -> None:
    (folder / "a/b/c.txt").write_bytes(b"x")
    (folder / "a.txt").write_bytes(b"x")
    for place in (folder / "a", folder / "a.txt", folder / "never"):
        place.delete()
        place.delete()
        assert not place.exists()


def test_making_a_folder_twice(folder: Location) -> None:
    (folder / "x/y").make_folder()
    (folder / "x/y").make_folder()
    assert (folder / "x/y").info().type == pafs.FileType.Directory


def test_locations_pickle(folder: Location) -> None:
    (folder / "a").write_bytes(b"x")
    again = pickle.loads(pickle.dumps(folder / "a"))
    assert again == folder / "a"
    assert again.read_bytes() == b"x"


def test_nothing_there(folder: Location) -> None:
    gone = folder / "gone.json"
    assert not gone.exists()
    for read in (gone.read_bytes, gone.read_text, gone.read_json, gone.read_table):
        with pytest.raises(StorageError, match=r"cannot read .*gone.json: no such file or folder"):
            read()


def test_broken_contents_name_the_file(folder: Location) -> None:
    file = folder / "f.x"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(StorageError, match=r"f\.x: not a UTF-8 text file \(invalid start byte at byte 0\)"):
        file.read_text()
    file.write_bytes(b'{"a": 1')
    with pytest.raises(StorageError, match=r"f\.x: not valid JSON \("):
        file.read_json()
    file.write_bytes(b"")
    with pytest.raises(StorageError, match=r"f\.x: not valid JSON"):
        file.read_json()


@pytest.mark.parametrize("cut", [0, 4, 10, 0.5, -5, -1])
def test_cut_parquet_names_the_file(folder: Location, cut: float) -> None:
    file = folder / "t.parquet"
    file.write_table(TABLE)
    raw = file.read_bytes()
    file.write_bytes(raw[: int(cut * len(raw)) if isinstance(cut, float) else cut])
    with pytest.raises(StorageError, match=r"cannot read .*t\.parquet: not a readable Parquet file \(.+\)"):
        file.read_table()


def test_damaged_parquet_names_the_file(tmp_path: Path) -> None:
    file = Location.of(tmp_path / "t.parquet")
    file.write_table(TABLE)
    raw = bytearray(file.read_bytes())
    raw[8:20] = b"\xff" * 12
    file.write_bytes(bytes(raw))
    with pytest.raises(StorageError, match=r"t\.parquet: not a readable Parquet file"):
        file.read_table()


def test_a_missing_column_is_an_error(folder: Location) -> None:
    file = folder / "t.parquet"
    file.write_table(TABLE)
    with pytest.raises(StorageError, match=r"t\.parquet: has no column image; it has key, n"):
        file.read_table(["key", "image"])


# Addresses


def test_paths_are_taken_literally(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert Location.of("a/b").path == f"{tmp_path}/a/b"
    assert Location.of("a/b/").path == f"{tmp_path}/a/b"
    assert Location.of(".").path == str(tmp_path)
    assert Location.of("~/x").path == f"{tmp_path}/home/x"
    assert Location.of(Path("a")).uri == "a"
    assert Location.of("a%20b#c?d").path == f"{tmp_path}/a%20b#c?d"
    assert Location.of("/").path == "/"
    assert (Location.of("/") / "tmp").path == "/tmp"
    assert all(Location.of(p).is_local for p in ("a", "~/x", "/"))
    (Location.of("x") / "y").write_bytes(b"z")
    monkeypatch.chdir("/")
    assert Location.of(tmp_path / "x/y").read_bytes() == b"z"


@pytest.mark.parametrize("scheme", ["file", "local"])
def test_file_uris_are_local_and_written_as_uris(tmp_path: Path, scheme: str) -> None:
    for written, meant in (
        ("a b", "a b"),
        ("a%20b", "a b"),
        ("50%25", "50%"),
        ("x%23y", "x#y"),
        ("é", "é"),
        ("%C3%A9", "é"),
    ):
        place = Location.of(f"{scheme}://{tmp_path}/{written}")
        assert (place.path, place.is_local) == (f"{tmp_path}/{meant}", True)
    assert Location.of(f"{scheme}:///").path == "/"


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("nope://a/b", "nope://a/b: neither pyarrow nor fsspec knows this kind of address"),
        ("://a", "a URI begins with its kind"),
        ("file://relative/x", "write file:///folder/name"),
        ("file:///a?b", "as %3F"),
        ("file:///a#b", "write %23"),
        ("s3://bucket/a#b", "write %23"),
        ("", "not a path"),
        ("file://", "write file:///folder/name"),
        ("/a\0b", "not a path"),
        ("~nobody-of-this-name/x", "home directory"),
    ],
)
def test_addresses_that_cannot_be_opened(uri: str, words: str) -> None:
    with pytest.raises(StorageError, match=words):
        Location.of(uri)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    def missing(uri: str) -> None:
        raise ImportError("Install adlfs to access Azure Datalake Gen2")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(StorageError, match="az://x/y: reading az:// needs another package: Install adlfs"):
        Location.of("az://x/y")


def test_an_unreachable_service_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    def down(uri: str) -> None:
        raise OSError("Name or service not known\nand more")

    monkeypatch.setattr(fsspec.core, "url_to_fs", down)
    with pytest.raises(StorageError, match=r"cannot reach ftp://h/x: Name or service not known$"):
        Location.of("ftp://h/x")


# Writing


@pytest.fixture
def old(tmp_path: Path) -> Location:
    """A file that is about to be replaced."""
    file = Location.of(tmp_path / "out" / "f.bin")
    file.write_bytes(b"old")
    return file


def only(file: Location) -> bool:
    return os.listdir(Path(file.path).parent) == [file.name]


def test_a_write_that_stops_half_way_leaves_the_old_file(old: Location) -> None:
    """The kernel itself stops the write, part of the bytes are down."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    table = pa.table({"x": [os.urandom(4096) for _ in range(200)]})
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        for write in (lambda: old.write_bytes(bytes(1_000_000)), lambda: old.write_table(table)):
            with pytest.raises(StorageError, match=r"cannot write .*f\.bin: .+"):
                write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert old.read_bytes() == b"old"
    assert only(old)


def test_a_full_disk(old: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    """The temporary file is a link to /dev/full, so that the kernel answers as a full disk does."""
    name = uuid.UUID(int=7)
    monkeypatch.setattr(uuid, "uuid4", lambda: name)
    temporary = Path(old.path).parent / f".f.bin.{name.hex[:8]}.tmp"
    for write in (lambda: old.write_bytes(bytes(1_000_000)), lambda: old.write_table(TABLE)):
        temporary.symlink_to("/dev/full")
        with pytest.raises(StorageError, match=r"cannot write .*f\.bin: the disk is full; free some space .* kept"):
            write()
        assert old.read_bytes() == b"old"
        assert only(old)
    assert Path("/dev/full").is_char_device()


def test_a_table_that_cannot_be_stored(folder: Location) -> None:
    file = folder / "t.parquet"
    file.write_table(TABLE)
    bad = pa.table({"x": pa.array([(1, 2, 3)], pa.month_day_nano_interval())})
    with pytest.raises(pa.ArrowNotImplementedError):
        file.write_table(bad)
    assert file.read_table().equals(TABLE)
    assert folder.names() == ["t.parquet"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(errno.EDQUOT, "x"), OSError(errno.EROFS, "x"), OSError()])
def test_an_interrupted_replacement_leaves_no_trace(
    old: Location, monkeypatch: pytest.MonkeyPatch, error: BaseException | type[BaseException]
) -> None:
    def stop(*_: object) -> None:
        raise error

    monkeypatch.setattr(os, "replace", stop)
    expected = KeyboardInterrupt if error is KeyboardInterrupt else StorageError
    with pytest.raises(expected):
        old.write_json({})
    assert old.read_bytes() == b"old"
    assert only(old)


def test_a_reader_never_sees_the_temporary_file(old: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    replace = os.replace

    def look(a: str, b: str) -> None:
        seen.append([f.name for f in Location.of(Path(old.path).parent).files(".bin")])
        replace(a, b)

    monkeypatch.setattr(os, "replace", look)
    old.write_bytes(b"new")
    assert seen == [["f.bin"]]
    assert old.read_bytes() == b"new"


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file" / "x", tmp_path / "file" / "x" / "y"):
        with pytest.raises(StorageError, match=r"cannot write .*: a part of the path is a file, not a folder"):
            Location.of(place).write_bytes(b"")
        with pytest.raises(StorageError, match=r"cannot create .*: a part of the path is a file"):
            Location.of(place).make_folder()
        with pytest.raises(StorageError, match=r"cannot write .*: a part of the path is a file"):
            Location.of(place).write_table(TABLE)
    with pytest.raises(StorageError, match=r"cannot write .*: it is a folder, not a file"):
        Location.of(tmp_path).write_bytes(b"")
    with pytest.raises(StorageError, match="cannot write /proc/x"):
        Location.of("/proc/x").write_bytes(b"")
    with pytest.raises(StorageError, match="a name in the path is too long"):
        Location.of(tmp_path / ("x" * 300)).write_bytes(b"")
    with pytest.raises(StorageError, match=r"cannot list .*: a part of the path is a file"):
        Location.of(tmp_path / "file").files()
    assert sorted(os.listdir(tmp_path)) == ["file"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError("Access Denied"), "permission denied; check the owner and rights"),  # as s3fs and gcsfs
        (FileNotFoundError("/x"), "no such file or folder"),
        (OSError(), "OSError"),
        (OSError("first\nsecond"), "first"),
        (pa.ArrowInvalid("odd name\nmore"), "odd name"),
    ],
)
def test_errors_without_a_number(old: Location, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str) -> None:
    class Broken:
        def open_input_file(self, path: str) -> None:
            raise error

    broken = Location(Broken(), old.path, "x://f")
    read: Callable[[], object]
    for read in (broken.read_bytes, broken.read_table):
        with pytest.raises(StorageError) as caught:
            read()
        assert str(caught.value).startswith(f"cannot read x://f: {words}")
        assert "\n" not in str(caught.value)
        assert caught.value.__cause__ is error


def test_a_folder_that_goes_while_it_is_listed_is_empty(tmp_path: Path) -> None:
    real = Location.of(tmp_path / "going")

    class Going:
        def __init__(self) -> None:
            self.asked = 0

        def get_file_info(self, selector: object) -> object:
            self.asked += 1
            if self.asked == 1:
                raise FileNotFoundError(2, "Cannot list directory")
            return real.fs.get_file_info(selector)

    assert Location(Going(), real.path, real.uri).names() == []


def test_a_link_is_deleted_not_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "keep").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    Location.of(tmp_path / "link").delete()
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "keep").read_text() == "x"


def test_tables_are_zstd_unless_asked_otherwise(folder: Location, tmp_path: Path) -> None:
    for options, expected in (({}, "ZSTD"), ({"compression": "snappy", "compression_level": None}, "SNAPPY")):
        (folder / "t").write_table(TABLE, **options)
        meta = pq.ParquetFile(pa.BufferReader((folder / "t").read_bytes())).metadata
        assert meta.row_group(0).column(0).compression == expected
