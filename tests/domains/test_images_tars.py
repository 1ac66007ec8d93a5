"""Tars as the world writes them: several images a sample, links, odd names, compression. Nothing is lost uncounted."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import tarfile
from collections.abc import Callable

import fsspec
import numpy as np
import pyarrow as pa
import pytest

from ldsaug_ray.domains.images import IMAGES, decode_image, load_attributes, plan
from ldsaug_ray.errors import InputError

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "tar.gz": gzip.compress,
    "tgz": gzip.compress,
    "tar.bz2": bz2.compress,
    "tar.xz": lzma.compress,
    "tar.zst": lambda data: pa.compress(data, codec="zstd", asbytes=True),
}


def tar_bytes(members: dict[str, bytes] | list[tuple[str, bytes]], **options) -> bytes:
    with io.BytesIO() as buffer:
        with tarfile.open(fileobj=buffer, mode="w", **options) as tar:
            for name, data in members.items() if isinstance(members, dict) else members:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return buffer.getvalue()


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.fixture
def grey(encode):
    """grey(value) -> a PNG of 16 x 16 px of that value."""
    return lambda value: encode(np.full((16, 16), value, np.uint8))


def values(source) -> dict[str, int]:
    """key -> the grey value of its image, through a pickled copy; keys are unique, nothing is unreadable."""
    table = source.list()
    found = {}
    for key, (payload, reason, _) in zip(
        table["key"].to_pylist(), pickle.loads(pickle.dumps(source)).read(table), strict=True
    ):
        assert reason is None
        assert key not in found
        found[key] = int(decode_image(payload, resolution=16)[0, 0, 0])
    return found


# --- several images under what stands before the first dot


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (["rec7.0.png", "rec7.1.png", "rec7.2.png"], ["rec7.0", "rec7.1", "rec7.2"]),
        (["face_0.5.jpg.png", "face_0.7.png"], ["face_0"]),  # of the kinds `5.jpg` and `7` the number
        (["d/face_0.5.png", "d/face_0.12.png"], ["d/face_0.5", "d/face_0.12"]),
        (["22.05.png", "22.06.png", "23.01.png"], ["22.05", "22.06", "23.01"]),
        (["v1.2_a.png", "v1.3_a.png"], ["v1.2_a", "v1.3_a"]),
        (["x.png", "x.1.png", "y.png"], ["x", "x.1", "y"]),
        (["x.1.png", "x.png"], ["x.1", "x"]),
        (["1.05.png", "2.png"], ["1", "2"]),  # nothing to tell apart
        (["a.0.png", "a.0.1.png"], ["a.0", "a.0.1"]),
        (["a.x.PNG", "b.png"], ["a", "b"]),
    ],
)
def test_numbers_tell_samples_apart(make_data, grey, tmp_path, names, keys):
    (tmp_path / "a.tar").write_bytes(tar_bytes({name: grey(i) for i, name in enumerate(names)}))
    source = IMAGES.open(make_data(tmp_path))
    found = values(source)
    assert list(found) == keys
    if len(keys) == len(names):
        assert list(found.values()) == list(range(len(names)))
    assert len(found) + sum(source.passed_over.values()) == len(names)
    assert bool(source.notes) == (len(keys) < len(names))


def test_numbers_are_judged_over_all_tars(make_data, grey, tmp_path):
    (tmp_path / "a.tar").write_bytes(tar_bytes({"s.0.png": grey(0)}))
    (tmp_path / "b.tar").write_bytes(tar_bytes({"s.1.png": grey(1)}))
    assert values(IMAGES.open(make_data(tmp_path))) == {"s.0": 0, "s.1": 1}


def test_of_other_kinds_one_is_taken_and_the_user_told(make_data, grey, tmp_path):
    pairs = [("x.left.png", 1), ("x.right.png", 2), ("y.right.png", 4), ("y.left.png", 3)]  # in either order
    (tmp_path / "a.tar").write_bytes(tar_bytes([(name, grey(v)) for name, v in pairs]))
    source = IMAGES.open(make_data(tmp_path))
    assert values(source) == {"x": 1, "y": 3}
    assert source.passed_over == {"further images of samples (right.png)": 2}
    assert "data.member = right.png" in source.notes[0]
    assert "data.member = all" in source.notes[0]
    for member in ("right.png", "right", "RIGHT.png"):
        source = IMAGES.open(make_data(tmp_path, member=member))
        assert values(source) == {"x": 2, "y": 4}
        assert source.passed_over == {"further images of samples (left.png)": 2}
        assert source.notes == ()
    everything = values(IMAGES.open(make_data(tmp_path, member="all")))
    assert everything == {"x.left.png": 1, "x.right.png": 2, "y.right.png": 4, "y.left.png": 3}
    with pytest.raises(InputError, match=r"data\.member = rihgt.*did you mean 'right\.png'"):
        IMAGES.open(make_data(tmp_path, member="rihgt.png")).list()


def test_a_mask_is_no_image_because_its_sample_lacks_one(make_data, grey, tmp_path):
    members = {"1.jpg": grey(1), "1.seg.png": grey(9), "2.seg.png": grey(9), "3.jpg": grey(3)}
    (tmp_path / "a.tar").write_bytes(tar_bytes(members))
    source = IMAGES.open(make_data(tmp_path))
    assert values(source) == {"1": 1, "3": 3}
    assert source.passed_over == {"further images of samples (seg.png)": 2}
    assert "seg.png" in source.notes[0]


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (["0.jpg", "0.png", "1.png", "1.jpg", "2.png"], ["0.jpg", "1.jpg"]),  # 2.png is a mask too
        (["0.png", "0.jpg", "1.jpg", "1.png", "2.png"], ["0.png", "1.png", "2.png"]),
        (["0.jpg", "0.png", "1.png", "2.png", "3.jpg"], ["0.jpg", "1.png", "2.png", "3.jpg"]),  # PNG mostly alone
        (["0.x.png", "0.x.JPG", "1.x.jpg", "1.x.png"], ["0.x.png", "1.x.png"]),
        (["0.tif", "0.gif", "1.jpg", "1.png", "2.png", "2.jpg"], ["0.tif", "1.jpg", "2.jpg"]),
        (["0.0.jpg", "0.0.png", "0.1.png", "0.1.jpg"], ["0.0.jpg", "0.1.jpg"]),
    ],
)
def test_of_two_formats_one_is_taken_for_all_samples(make_data, grey, tmp_path, names, taken):
    (tmp_path / "a.tar").write_bytes(tar_bytes({name: grey(n) for n, name in enumerate(names)}))
    source = IMAGES.open(make_data(tmp_path))
    assert sorted(names[n] for n in values(source).values()) == taken
    assert sum(source.passed_over.values()) == len(names) - len(taken)
    assert "data.member = " in source.notes[0]


def test_masks_labels_and_formats_beside_images(make_data, grey, tmp_path):
    members = {"1.png": grey(1), "1.seg.png": grey(9), "1.cls": b"0", "1.txt": b"a face", "1.json": b"{}"}
    members |= {"2.jpg": grey(2), "2.png": grey(8), "3.png": grey(3), "._3.png": b"x", "@eaDir/3.png": b"x"}
    (tmp_path / "a.tar").write_bytes(tar_bytes(members))
    (tmp_path / "notes.txt").write_text("x")
    source = IMAGES.open(make_data(tmp_path))
    assert values(source) == {"1": 1, "2": 2, "3": 3}
    assert source.passed_over == {
        ".txt": 2,  # one beside the tar, one in it
        "further images of samples (seg.png)": 1,
        "further images of samples (png)": 1,
        ".cls": 1,
        ".json": 1,
        "hidden (the name begins with a dot)": 1,
        "folders @eaDir": 1,
    }
    assert values(IMAGES.open(make_data(tmp_path, member="seg.png"))) == {"1": 9}


def test_json_of_numbered_samples(make_data, grey, tmp_path):
    yes, no = (json.dumps({"Male": v}).encode() for v in (1, -1))
    members = {"s.0.png": grey(0), "s.0.json": yes, "s.1.png": grey(1), "s.json": no, "t.png": grey(2), "t.json": yes}
    for name, compress in [("a.tar", bytes), ("a.tar.gz", gzip.compress)]:
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_bytes(compress(tar_bytes(members)))
        source = IMAGES.open(make_data(folder, attributes="columns"))
        table = source.list()
        assert table["key"].to_pylist() == ["s.0", "s.1", "t"]
        assert [a["Male"] for _, _, a in source.read(table)] == [1, -1, 1]
        assert ".json" not in source.passed_over


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
@pytest.mark.parametrize(
    ("pairs", "keys"),
    [
        (["p0.0", "p1.1", "p2.2"], ["p0", "p1", "p2"]),
        (["p0.0", "p0.1", "p1.1"], ["p0.0", "p0.1", "p1.1"]),
        (["a.view1", "b.view2", "q"], ["a", "b", "q"]),
        (["J. Smith", "J. Doe", "d.x/e"], ["J. Smith", "J. Doe", "d.x/e"]),
    ],
)
def test_json_beside_its_image_whatever_the_key(make_data, grey, tmp_path, pairs, keys, compress):
    truth = [1 if n % 2 else -1 for n in range(len(pairs))]
    members = {f"{name}.json": json.dumps({"Male": yes}).encode() for name, yes in zip(pairs, truth, strict=True)}
    members |= {f"{name}.png": grey(n) for n, name in enumerate(pairs)}
    (tmp_path / "a.tar").write_bytes(compress(tar_bytes(members)))
    source = IMAGES.open(make_data(tmp_path, attributes="columns"))
    table = source.list()
    assert table["key"].to_pylist() == keys
    assert [a["Male"] for _, _, a in source.read(table)] == truth


def test_json_of_the_image_that_data_member_takes(make_data, grey, tmp_path):
    members = {f"x.{side}.json": json.dumps({"s": yes}).encode() for side, yes in (("left", 1), ("right", -1))}
    members |= {"x.left.png": grey(1), "x.right.png": grey(2)}
    (tmp_path / "a.tar").write_bytes(tar_bytes(members))
    for member, expected in ((None, [1]), ("right", [-1]), ("all", [1, -1])):
        source = IMAGES.open(make_data(tmp_path, attributes="columns", member=member))
        assert [a["s"] for _, _, a in source.read(source.list())] == expected


def test_json_and_its_names_with_accents_taken_apart(make_data, grey, tmp_path):
    members = {"e\u03010.png": grey(1), "\u00e91.png": grey(2)}
    members |= {"\u00e90.json": json.dumps({"fro\u0308h": 1}).encode(), "e\u03011.json": '{"fr\u00f6h": 0}'.encode()}
    (tmp_path / "a.tar").write_bytes(tar_bytes(members))
    source = IMAGES.open(make_data(tmp_path, attributes="columns", attribute_names=("fro\u0308h",)))
    assert [a for _, _, a in source.read(source.list())] == [{"fr\u00f6h": 1}, {"fr\u00f6h": -1}]


def test_a_name_with_dots_and_blanks(make_data, grey, tmp_path):
    names = ["Mr. Bean.jpg", "Mr. Big.jpg", "a b.left.png", "c.d e", "._ f.png"]
    (tmp_path / "a.tar").write_bytes(tar_bytes({name: grey(n) for n, name in enumerate(names)}))
    source = IMAGES.open(make_data(tmp_path))
    assert values(source) == {"Mr. Bean": 0, "Mr. Big": 1, "a b": 2}
    assert source.notes == ()


# --- links and other members


def test_hard_links_are_followed_and_symbolic_ones_named(make_data, grey, tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, value in (("./0.png", 7), ("store/ab12", 8)):
            info = tarfile.TarInfo(name)
            info.size = len(grey(value))
            tar.addfile(info, io.BytesIO(grey(value)))
        tar.addfile(link("1.png", "./0.png", tarfile.LNKTYPE))
        tar.addfile(link("2.png", "1.png", tarfile.LNKTYPE))  # a link to a link
        tar.addfile(link("3.png", "store/ab12", tarfile.LNKTYPE))
        tar.addfile(link("4.png", "nowhere.png", tarfile.LNKTYPE))
        tar.addfile(link("8.png", "/store/ab12", tarfile.LNKTYPE))
        tar.addfile(link("5.png", "0.png", tarfile.SYMTYPE))
        tar.addfile(link("6.png", "", tarfile.FIFOTYPE))
        tar.addfile(link("7.png", "", tarfile.DIRTYPE))
    source = IMAGES.open(make_data(tmp_path))
    table = source.list()
    assert sorted(table["key"].to_pylist()) == ["0", "1", "2", "3", "8"]
    got = dict(zip(table["key"].to_pylist(), (p for p, _, _ in source.read(table)), strict=True))
    assert [decode_image(got[k], resolution=16)[0, 0, 0] for k in "01238"] == [7, 7, 7, 8, 8]
    assert source.passed_over == {
        "no extension": 1,
        "hard links in tars to members that do not stand before them": 1,
        "symbolic links in tars (`tar --dereference` stores what they lead to)": 1,
        "members of tars that are no files": 1,
    }


def test_a_tar_of_symbolic_links_alone(make_data, tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for i in range(3):
            tar.addfile(link(f"{i}.png", f"/data/{i}.png", tarfile.SYMTYPE))
    with pytest.raises(InputError, match=r"passed over: 3 symbolic links in tars \(`tar --dereference`"):
        IMAGES.open(make_data(tmp_path)).list()


def test_sparse_and_empty_members(make_data, grey, tmp_path):
    sparse = tarfile.TarInfo("s.png")
    sparse.type = tarfile.GNUTYPE_SPARSE
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        for info, data in [(tarfile.TarInfo("0.png"), grey(1)), (tarfile.TarInfo("empty.png"), b""), (sparse, b"")]:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    source = IMAGES.open(make_data(tmp_path))
    table = source.list()
    assert table["key"].to_pylist() == ["0", "empty"]
    assert [p for p, _, _ in source.read(table)] == [grey(1), b""]
    assert list(source.passed_over.values()) == [1]
    assert "sparse" in next(iter(source.passed_over))


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names(make_data, grey, tmp_path, form):
    long = "n" * 90 + "/" + "m" * 90
    names = [long, "/abs/0", "./1", "é", "e\u0301", "a b\nc"]
    data = tar_bytes([(f"{n}.png", grey(i)) for i, n in enumerate(names)], format=form)
    (tmp_path / "a.tar").write_bytes(data)
    assert values(IMAGES.open(make_data(tmp_path))) == {n.removeprefix("./"): i for i, n in enumerate(names)}


def test_names_that_are_no_utf8(make_data, grey, tmp_path):
    members = [("caf\udce9.png", grey(1)), ("ok.png", grey(2)), ("caf\udce8.png", grey(3))]
    data = tar_bytes(members, format=tarfile.GNU_FORMAT, encoding="utf-8", errors="surrogateescape")
    assert b"caf\xe9.png" in data
    (tmp_path / "a.tar").write_bytes(data)
    assert values(IMAGES.open(make_data(tmp_path))) == {r"caf\xe9": 1, "ok": 2, r"caf\xe8": 3}
    plan(IMAGES, IMAGES.open(make_data(tmp_path)), make_data(tmp_path), 0)


def test_one_name_twice_is_a_duplicate_and_counted(make_data, grey, tmp_path):
    (tmp_path / "a.tar").write_bytes(
        tar_bytes([("./0.png", grey(1)), ("0.png", grey(2)), ("1.png", grey(3)), ("2.png", grey(3))])
    )
    work = plan(IMAGES, IMAGES.open(make_data(tmp_path)), make_data(tmp_path), 0)
    assert work.quarantine["key"].to_pylist() == ["0"]
    assert work.n_listed == 4


# --- compression


@pytest.mark.parametrize("ending", [*COMPRESS, "tar"])
def test_compressed_tars_are_read(make_data, grey, tmp_path, ending):
    """`tar`: compressed and named as if it were not; what the first bytes say counts."""
    compress = COMPRESS.get(ending, gzip.compress)
    (tmp_path / f"b.{ending}").write_bytes(compress(tar_bytes({f"b{i}.png": grey(i) for i in range(40)})))
    (tmp_path / "a.tar").write_bytes(tar_bytes({f"a{i}.png": grey(100 + i) for i in range(3)}))
    source = IMAGES.open(make_data(tmp_path))
    assert values(source) == {**{f"a{i}": 100 + i for i in range(3)}, **{f"b{i}": i for i in range(40)}}
    assert source.passed_over == {}
    table = source.list()
    order = np.random.default_rng(0).permutation(len(table))
    assert list(source.read(table.take(order))) == [list(source.read(table))[i] for i in order]


@pytest.mark.parametrize("ending", COMPRESS)
def test_compressed_tar_cut_short(make_data, tmp_path, encode, ending):
    noise = np.random.default_rng(0).integers(0, 256, (100, 64, 64, 3), np.uint8)  # so that half the bytes hold half
    payloads = {f"{i}.png": encode(noise[i]) for i in range(100)}
    whole = COMPRESS[ending](tar_bytes(payloads))
    path = tmp_path / f"a.{ending}"
    path.write_bytes(whole[: len(whole) * 5 // 6])
    source = IMAGES.open(make_data(path, format="webdataset"))
    table = source.list()
    readings = list(source.read(table))
    sound = [r for r in readings if r[0] is not None]
    assert [r[0] for r in sound] == list(payloads.values())[: len(sound)]
    assert 60 <= len(sound) <= 84  # bzip2 compresses 900 kB at a time
    assert len(readings) == len(sound) + 1
    assert "truncated" in readings[-1][1].lower()
    path.write_bytes(whole[: len(whole) // 100])
    with pytest.raises(InputError, match=r"truncated: nothing|no image in it is whole"):
        IMAGES.open(make_data(path, format="webdataset")).list()


def zstd_frame(data: bytes, window: int) -> bytes:
    """One uncompressed block in a frame with a window of 2**window bytes (RFC 8878, 3.1.1)."""
    return b"\x28\xb5\x2f\xfd\0" + bytes([window - 10 << 3]) + (len(data) << 3 | 1).to_bytes(3, "little") + data


def test_zstd_frames(make_data, grey, tmp_path):
    data = tar_bytes({"0.png": grey(1), "1.png": grey(2)})
    skippable = b"\x5a\x2a\x4d\x18\3\0\0\0abc"
    for begin in (b"", skippable, skippable * 2):
        (tmp_path / "a.tar.zst").write_bytes(begin + zstd_frame(data, 20))
        assert values(IMAGES.open(make_data(tmp_path))) == {"0": 1, "1": 2}
    (tmp_path / "a.tar.zst").write_bytes(zstd_frame(data, 31))
    with pytest.raises(InputError, match=r"a\.tar\.zst: a zstd file whose window is larger .* without --long"):
        IMAGES.open(make_data(tmp_path)).list()


@pytest.mark.parametrize("ending", COMPRESS)
def test_cut_within_the_first_block(make_data, tmp_path, ending):
    noise = np.random.default_rng(0).bytes(50_000)
    (tmp_path / f"a.{ending}").write_bytes(COMPRESS[ending](tar_bytes({"0.png": noise}))[:60])
    with pytest.raises(InputError, match=f"a.{ending}: truncated: nothing"):
        IMAGES.open(make_data(tmp_path)).list()


@pytest.mark.parametrize(
    ("begin", "what"),
    [
        (lzma.compress(b"x" * 600, lzma.FORMAT_ALONE), "lzma"),
        (pa.compress(b"x" * 600, codec="lz4", asbytes=True), "lz4"),
        (b"\x1f\x9d\x90abc", r"\.Z"),
        (b"PK\3\4abc", "zip"),
    ],
)
def test_other_compressions_are_named(make_data, tmp_path, begin, what):
    (tmp_path / "a.tar").write_bytes(begin)
    with pytest.raises(InputError, match=rf"a\.tar: .*{what}.*, which is not read; write a tar"):
        IMAGES.open(make_data(tmp_path)).list()
    (tmp_path / "a.tar").rename(tmp_path / "a.tar.lzma")
    with pytest.raises(InputError, match=r"\.lzma is not read; unpack it"):
        IMAGES.open(make_data(tmp_path / "a.tar.lzma"))


def test_compressed_tars_on_a_store(make_data, grey):
    fs = fsspec.filesystem("memory")
    try:
        for ending, compress in COMPRESS.items():
            members = {f"{ending}{i}/x.png": grey(i) for i in range(5)}
            fs.pipe(f"/tars/a.{ending}", compress(tar_bytes(members)))
        fs.pipe("/tars/@eaDir/x.tar", b"x")
        fs.pipe("/tars/.hidden.tar", b"x")
        source = IMAGES.open(make_data("memory://tars"))
        assert values(source) == {f"{e}{i}/x": i for e in COMPRESS for i in range(5)}
        assert source.passed_over == {"folders @eaDir": 1, "hidden (the name begins with a dot)": 1}
    finally:
        fs.rm("/tars", recursive=True)


def test_archives_beside_images_do_not_decide(make_data, tmp_path, image_folder):
    (image_folder / "images.tar.gz").write_bytes(gzip.compress(tar_bytes({"0.png": b"x"})))
    source = IMAGES.open(make_data(image_folder))
    assert len(source.list()) == 10
    assert source.passed_over[".tar.gz"] == 1
    assert len(IMAGES.open(make_data(image_folder, format="webdataset")).list()) == 1
    for settings in ({"member": "all"}, {"shard_in_key": True}):
        with pytest.raises(InputError, match=f"data.{next(iter(settings))}"):
            IMAGES.open(make_data(image_folder, **settings))


def test_a_tar_that_is_not_there(make_data, tmp_path):
    (tmp_path / "a.tar").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(InputError, match="git lfs pull"):
        IMAGES.open(make_data(tmp_path)).list()


# --- shards that count from zero


def test_shards_that_differ_in_their_endings(make_data, grey, tmp_path):
    for n, name in enumerate(("0.tar", "0.tar.gz", "1.tar")):
        (tmp_path / name).write_bytes(tar_bytes({"0.png": grey(n)}))
    source = IMAGES.open(make_data(tmp_path, shard_in_key=True))
    assert values(source) == {"0.tar/0": 0, "0.tar.gz/0": 1, "1/0": 2}


def test_the_shard_in_the_key(make_data, grey, tmp_path):
    label = json.dumps({"Male": 1}).encode()
    (tmp_path / "s").mkdir()
    for n, name in enumerate(("s/00.tar", "s/01.tar.gz")):
        data = tar_bytes({f"{i}.png": grey(10 * n + i) for i in range(3)} | {"0.json": label})
        (tmp_path / name).write_bytes(gzip.compress(data) if n else data)
    data = make_data(tmp_path)
    work = plan(IMAGES, IMAGES.open(data), data, 0, load_attributes(data))
    assert len(work.quarantine) == 3
    assert "data.shard_in_key" in " ".join(work.notes)
    source = IMAGES.open(make_data(tmp_path, shard_in_key=True, attributes="columns"))
    expected = {f"s/{n:02d}/{i}": 10 * n + i for n in range(2) for i in range(3)}
    assert values(source) == expected
    table = source.list()
    assert [a is not None for _, _, a in source.read(table)] == [True, False, False] * 2
    assert list(values(IMAGES.open(make_data(tmp_path / "s/00.tar", shard_in_key=True)))) == [
        f"00/{i}" for i in range(3)
    ]
