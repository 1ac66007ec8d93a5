"""What a user can get wrong: a quarantine row with its reason and exact accounting, or one message and exit code 1."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from stages_helpers import manifest, merge

from ldsaug_ray.cli import main


@pytest.fixture
def fails(save, capsys):
    """fails(settings, *options, command="run") -> the one error message; exit code 1, no traceback."""

    def run(settings, *options, command="run"):
        assert main([command, str(save(settings)), *options]) == 1
        err = capsys.readouterr().err
        assert "Traceback" not in err
        message = err[err.index("error: ") :]
        assert "unexpected" not in message
        return message

    return run


def png(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(array).save(out, "PNG")
    return out.getvalue()


def bomb() -> bytes:
    """A PNG whose header claims 30,000 x 30,000 px."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(b"\0"), b"IEND")
    framed = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def test_every_kind_of_bad_image_is_quarantined_and_counted(tree, pictures, tmp_path, save):
    folder = tmp_path / "mixed"
    shutil.copytree(pictures, folder)
    rng = np.random.default_rng(0)
    good = rng.integers(0, 256, (40, 30, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(good).save(buffer, "JPEG")
    bad = {
        "truncated.jpg": (buffer.getvalue()[: len(buffer.getvalue()) // 2], "truncated"),
        "empty.png": (b"", "empty"),
        "text.png": (b"hello, I am not an image", "not an image"),
        "small.png": (png(good[:8, :8]), "smaller than"),
        "bomb.png": (bomb(), "bomb"),
    }
    for name, (data, _) in bad.items():
        (folder / name).write_bytes(data)
    Image.fromarray(good).convert("CMYK").save(folder / "fine-cmyk.jpg")
    Image.fromarray(good[..., 0]).save(folder / "fine-grey.png")
    Image.fromarray(good[..., 0].astype(np.uint16) * 257).save(folder / "fine-16-bit.png")
    settings = merge(
        tree,
        {"data": {"source": str(folder), "train": 0.7, "test": 0.3, "max_quarantined_fraction": 0.1}},
    )
    assert main(["prepare", str(save(settings))]) == 0
    entry = manifest(settings)["prepare"]
    assert (entry["rows_in"], entry["rows_out"], entry["rows_dropped"], entry["rows_quarantined"]) == (68, 63, 0, 5)
    files = (Path(settings["run_dir"]) / "quarantine/prepare").glob("*.parquet")
    rows = {r["key"]: r["reason"] for f in files for r in pq.read_table(f).to_pylist()}
    assert set(rows) == set(bad)
    for name, (_, reason) in bad.items():
        assert reason in rows[name]
    kept = [
        k for f in (Path(settings["run_dir"]) / "images").glob("*.parquet") for k in pq.read_table(f)["key"].to_pylist()
    ]
    assert {"fine-cmyk.jpg", "fine-grey.png", "fine-16-bit.png"} <= set(kept)
    assert len(kept) == len(set(kept)) == 63


def test_too_many_bad_images(tree, pictures, tmp_path, fails):
    folder = tmp_path / "mixed"
    shutil.copytree(pictures, folder)
    for n in range(20):
        (folder / f"bad-{n}.png").write_bytes(b"nothing")
    message = fails(merge(tree, {"data": {"source": str(folder), "train": 0.8, "test": 0.2}}), command="prepare")
    assert "data.max_quarantined_fraction" in message
    assert "not an image" in message


def test_duplicate_keys_and_missing_attributes(tree, tmp_path, save):
    rng = np.random.default_rng(0)
    images = [{"bytes": png(rng.integers(0, 256, (20, 20, 3)).astype(np.uint8)), "path": None} for _ in range(50)]
    keys = [f"{n}.jpg" for n in range(48)] + ["3.jpg", "4.jpg"]
    pq.write_table(pa.table({"image": images, "image_id": keys}), tmp_path / "faces.parquet")
    lines = ["47", "Male Smiling", *(f"{n}.jpg  -1 1" for n in range(47))]
    (tmp_path / "list_attr.txt").write_text("\n".join(lines) + "\n")
    data = {
        "source": str(tmp_path / "faces.parquet"),
        "attributes": str(tmp_path / "list_attr.txt"),
        "train": 0.8,
        "test": 0.2,
        "max_quarantined_fraction": 0.1,
    }
    settings = merge(tree, {"data": data})
    assert main(["prepare", str(save(settings))]) == 0
    entry = manifest(settings)["prepare"]
    assert (entry["rows_in"], entry["rows_out"], entry["rows_quarantined"]) == (50, 47, 3)
    reasons = " ".join(entry["quarantine_reasons"])
    assert "duplicate key" in reasons
    assert "no attributes in" in reasons
    table = pq.read_table(next((Path(settings["run_dir"]) / "images").glob("train-*.parquet")))
    assert table["attributes"][0].as_py() == {"Male": -1, "Smiling": 1}


def test_sources_that_cannot_be_used(tree, tmp_path, fails):
    (tmp_path / "nothing").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/readme.txt").write_text("no image here")
    (tmp_path / "one").mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "one/only.png")
    pq.write_table(pa.table({"picture": [b"x"], "label": [1]}), tmp_path / "wrong.parquet")
    cases = {
        "absent": "absent",
        "nothing": "nothing",
        "texts": ".txt",
        "one": "two",
        "wrong.parquet": "picture",
    }
    for name, word in cases.items():
        message = fails(merge(tree, {"data": {"source": str(tmp_path / name)}}), command="prepare")
        assert word in message, (name, message)
        assert "data." in message
    Path(os.fsdecode(os.fsencode(tmp_path / "one") + b"/bad\xff.png")).write_bytes(b"")
    assert r"bad\xff.png" in fails(merge(tree, {"data": {"source": str(tmp_path / "one")}}), command="prepare")


def test_a_plan_that_cannot_be_run_says_so(tree, fails, capsys):
    """`--dry-run` looks at the images where they are: their number, and whether the settings fit them."""
    assert "60 were found" in fails(merge(tree, {"data": {"train": 100}}), "--dry-run")
    assert "image files have no columns" in fails(merge(tree, {"data": {"attributes": "columns"}}), "--dry-run")
    assert not Path(tree["run_dir"]).exists()


def test_what_is_no_image_by_its_name_is_counted(tree, pictures, tmp_path, save, capsys):
    folder = tmp_path / "mixed"
    shutil.copytree(pictures, folder)
    for name in ("a.avif", "b.avif", "notes.txt", "README"):
        (folder / name).write_text("x")
    for n in range(60):  # a copy of each, by far not all in the split of its original
        shutil.copy(folder / f"disc-{n:03d}.png", folder / f"copy-{n:03d}.png")
    settings = merge(tree, {"data": {"source": str(folder), "train": 60, "test": 60}})
    assert main(["prepare", str(save(settings))]) == 0
    entry, said = manifest(settings)["prepare"], capsys.readouterr().err
    assert entry["passed_over"] == {".avif": 2, ".txt": 1, "no extension": 1}
    assert "2 .avif" in said
    split = {}
    for file in sorted(Path(settings["run_dir"], "images").iterdir()):
        split.update(dict.fromkeys(pq.read_table(file)["key"].to_pylist(), file.name.partition("-")[0]))
    apart = [n for n in range(60) if split[f"disc-{n:03d}.png"] != split[f"copy-{n:03d}.png"]]
    alike = entry["near_duplicates"]
    assert 0 < len(apart) <= alike["test_in_train"]  # discs of one size and place are alike too
    assert f"{alike['test_in_train']} of 60 test images are nearly the same as one in train" in " ".join(said.split())
    assert all((split[a], split[b]) == ("test", "train") for a, b in alike["examples"])


def test_settings_that_cannot_be_used(tree, fails, tmp_path, capsys):
    assert "did you mean score.n_candidates" in fails(merge(tree, {"score": {"n_candidate": 3}}))
    assert "data.resolution" in fails(merge(tree, {"data": {"resolution": 48}}))
    assert "select" in fails(merge(tree, {"select": {"top_fraction": None}}))
    assert main(["run", str(tmp_path / "config.yaml"), "no-equals-sign"]) == 2
    with pytest.raises(SystemExit) as stopped:
        main(["run"])
    assert stopped.value.code == 2


def test_run_directories_that_cannot_be_used(tree, fails, tmp_path, pictures):
    file = tmp_path / "a-file"
    file.write_text("x")
    assert "is a file" in fails(merge(tree, {"run_dir": str(file)}), command="prepare")
    assert "a-file" in fails(merge(tree, {"run_dir": str(file / "below")}), command="prepare")
    assert "/proc/none" in fails(merge(tree, {"run_dir": "/proc/none"}), command="prepare")
    assert "one process alone" in fails(merge(tree, {"engine": "ray", "run_dir": "memory://run"}), command="prepare")
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    (stranger / "thesis.txt").write_text("do not delete")
    assert "thesis.txt" in fails(merge(tree, {"run_dir": str(stranger)}), command="prepare")
    assert main(["prepare", str(tmp_path / "config.yaml"), f"run_dir={tree['run_dir']}"]) == 0
    other = tmp_path / "other"
    shutil.copytree(pictures, other)
    message = fails(merge(tree, {"data": {"source": str(other)}}), command="prepare")
    assert "--overwrite" in message
    assert str(pictures) in message


def test_a_full_disk_keeps_what_was_done(tree, fails, tmp_path, monkeypatch):
    """A real full file system: a tmpfs of 600 kB, where one may be mounted."""
    import subprocess

    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        settings = merge(tree, {"run_dir": str(small / "run"), "data": {"source": "sklearn:digits", "upscale": True}})
        settings = merge(settings, {"data": {"train": 1500, "test": 297, "part_rows": 64}})
        message = fails(settings, command="prepare")
        assert "disk is full" in message
        done = list((small / "run/_progress/prepare").glob("*.unit.json"))
        assert done
        assert all(json.loads(d.read_text())["counts"]["rows_in"] for d in done)
        assert not list(small.rglob("*.tmp"))
        shutil.rmtree(small / "run")  # workers that are still ending may write there yet
        large = merge(tree, {"run_dir": str(small / "other"), "vae": {"channel_base": 1024, "channel_max": 64}})
        message = fails(merge(large, {"train": {"max_failures": 0}}), command="train")
        assert message.startswith(f"error: cannot write {small}/other/train/checkpoints/")
        assert "disk is full" in message
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
def test_a_cluster_that_does_not_have_it(tree, fails, save):
    message = fails(merge(tree, {"data": {"workers": {"count": 64}}}), command="prepare")
    assert "data.workers asks for 4 × (1 CPU), but the cluster has 2 CPUs" in message  # there are four parts
    assert "2 CPUs" in message
    assert "data.workers" in fails(merge(tree, {"data": {"workers": {"gpus": 1}}}), command="prepare")
    assert main(["prepare", str(save(tree))]) == 0
    assert "train.workers asks for 3" in fails(merge(tree, {"train": {"workers": {"count": 3}}}), command="train")


def test_what_later_stages_ask_of_the_data_is_told_before_training(tree, fails, tmp_path):
    lines = ["50", "Male", *(f"disc-{n:03d}.png  1" for n in range(50))]  # of 60
    (tmp_path / "attributes.txt").write_text("\n".join(lines) + "\n")
    data = {"attributes": str(tmp_path / "attributes.txt"), "missing_attributes": "keep"}
    tree = merge(tree, {"data": data})
    cases = {
        "label:hat: hat is not known of these images; known are: Male": {"select": {"balance": "label:hat"}},
        "downstream.label: hat is not known": {
            "evaluate": {"extractor": "pixels", "n": 9, "downstream": {"label": "hat"}}
        },
        "select.clusters = 45 cells of 44": {"select": {"balance": "cluster", "clusters": 45}},
        "score.neighbours = 44": {"score": {"plan": "neighbours", "neighbours": 44}},
    }
    for word, given in cases.items():
        assert word in fails(merge(tree, given), "--dry-run")
        assert word in fails(merge(tree, given))
        assert not Path(tree["run_dir"], "images").exists()
    assert "of 44 training images have no such label" in fails(merge(tree, {"select": {"balance": "label:Male"}}))
    assert not Path(tree["run_dir"], "train").exists()


def test_an_earlier_result_outlives_settings_that_are_impossible(copied, fails):
    kept = manifest(copied)
    fails(merge(copied, {"score": {"plan": "neighbours", "neighbours": 44}}), command="score")
    fails(merge(copied, {"select": {"balance": "cluster", "clusters": 45}}), command="select")
    assert manifest(copied) == kept
