"""Sources on the Hugging Face Hub: read from a stand-in on localhost, and what is said where that cannot be."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hub_server import COMMIT, Hub, hub_server
from stages_helpers import Tree, merge

from ldsaug_ray import measure
from ldsaug_ray.config import Data
from ldsaug_ray.domains.images import IMAGES
from ldsaug_ray.domains.sources.stamp import source_stamp
from ldsaug_ray.errors import InputError, LdsaugError, StorageError

TOKEN = "hf_" + "S3cret" * 5
COMMANDS = """
import sys
from ldsaug_ray.cli import main
for n, source in enumerate(sys.argv[2:]):
    print(n, main(["prepare", sys.argv[1], f"data.source={source}", f"run_dir=run-{n}"]), flush=True)
"""


@pytest.fixture
def hub(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The pictures as dataset me/faces, as images, and me/gated, in Parquet, which wants the token."""
    constants = pytest.importorskip("huggingface_hub.constants")
    rows = [{"bytes": f.read_bytes(), "path": f.name} for f in sorted(pictures.iterdir())]
    gated = tmp_path / "gated" / "data"
    gated.mkdir(parents=True)
    pq.write_table(pa.table({"image": rows}), gated / "train-00000-of-00001.parquet")
    (gated.parent / "README.md").write_text("# Faces\n")
    with hub_server() as found:
        found.folders.update({"me/faces": pictures, "me/gated": gated.parent})
        found.tokens["me/gated"] = TOKEN
        monkeypatch.setattr(constants, "ENDPOINT", found.endpoint)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.split("/{repo_id}")[1]
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{found.endpoint}/{{repo_id}}{template}")
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield found


def opened(source: str) -> object:
    return IMAGES.open(Data(source=source, resolution=16))


def test_datasets_are_prepared_as_folders_are(hub: Hub, tree: Tree, pictures: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(merge(tree, {"tracking": {"enabled": False}})))
    sources = [str(pictures), "hf://datasets/me/faces", f"hf://datasets/me/gated@{COMMIT}/data/train-*.parquet"]
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, str(config), *sources],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert [f"{n} 0" in done.stdout.splitlines() for n in range(3)] == [True] * 3, done.stdout + done.stderr
    stages = [json.loads((tmp_path / f"run-{n}/manifest.json").read_text())["stages"]["prepare"] for n in range(3)]
    assert [s["rows_out"] for s in stages] == [60] * 3
    assert len({s["digest"] for s in stages}) == 1
    assert any("/resolve/" in path for path in hub.asked)
    assert TOKEN not in done.stdout + done.stderr
    kept = [f for n in range(3) for f in (tmp_path / f"run-{n}").rglob("*") if f.is_file()]
    assert len(kept) > 10
    assert not [f for f in kept if TOKEN.encode() in f.read_bytes()]


def test_what_is_not_there(hub: Hub) -> None:
    for source, said in {
        "hf://datasets/me/none": "has no such dataset, or it is private: then HF_TOKEN must be",
        "hf://datasets/me/none/data/*.parquet": "has no such dataset",
        "hf://datasets/me/faces@v9": "has the dataset, but no such revision of it",
        "hf://datasets/me/faces/data": "there is no such file or folder in the dataset",
    }.items():
        with pytest.raises(InputError, match=said):
            opened(source)
    for source, said in {
        "hf://datasets/me": "Repository id must be 'namespace/name', got 'me'",
        "hf://datasets/my faces/a": "'my faces/a'",
        "hf://": "hf://",
    }.items():
        with pytest.raises(StorageError, match=said):
            opened(source)


def test_gated_datasets_say_what_they_want(hub: Hub, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = "access to it is gated: accept its terms on its page .* HF_TOKEN"
    with pytest.raises(LdsaugError, match=wanted):
        opened("hf://datasets/me/gated")
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    with pytest.raises(LdsaugError, match=wanted):
        opened("hf://datasets/me/gated")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    source = opened("hf://datasets/me/gated")
    assert len(source.list()) == 60
    assert TOKEN.encode() not in pickle.dumps(source)  # what goes to the workers

    hub.tokens["me/faces"] = "another"
    source = opened("hf://datasets/me/faces")
    reasons = [why for _, why, _ in source.read(source.list())]
    assert (len(reasons), len(set(reasons))) == (60, 1)  # one reason for all, to be counted
    assert reasons[0].startswith("cannot be read: access to it is gated")


def test_a_hub_that_is_away(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # the port of what discards
    with pytest.raises(StorageError, match=r"the Hub at http://127\.0\.0\.1:9 does not answer .*HF_ENDPOINT"):
        opened("hf://datasets/me/faces")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(StorageError, match="HF_HUB_OFFLINE is set"):
        opened("hf://datasets/me/faces")
    with pytest.raises(StorageError, match=r"^fake: .*HF_HUB_OFFLINE is set"):
        measure(np.zeros((9, 8, 8, 3), np.uint8), "hf://datasets/me/faces")


def test_a_changed_file_of_the_same_size_is_seen(hub: Hub, tmp_path: Path) -> None:
    hub.folders["me/mine"] = tmp_path / "mine"
    hub.folders["me/mine"].mkdir()
    image = hub.folders["me/mine"] / "a.png"
    image.write_bytes(b"1234")
    for source in ("hf://datasets/me/mine", "hf://datasets/me/mine/a.png"):
        data = Data(source=source, resolution=16)
        image.write_bytes(b"1234")
        before = source_stamp(data)
        assert source_stamp(data) == before
        image.write_bytes(b"1235")
        assert source_stamp(data) != before


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.delitem(sys.modules, "ldsaug_ray.common.hub", raising=False)
    with pytest.raises(StorageError, match=r"pip install 'ldsaug_ray\[hub\]'"):
        opened("hf://datasets/me/faces")
