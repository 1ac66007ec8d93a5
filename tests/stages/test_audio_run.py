"""A whole run on clips: what users get, what the page plays, and the same digests after a kill."""

from __future__ import annotations

import asyncio
import base64
import io
import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from chromium import browser
from stages_helpers import Tree, copy_of, digests, manifest

from ldsaug_ray.commands.run import run_command
from ldsaug_ray.config.load import build_config

soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed: pip install 'ldsaug_ray[audio]'")

ONE = {"workers": {"count": 1}}
STEPS = {"batch_size": 8, "checkpoint_every": 2, "log_every": 2, **ONE}
SETTINGS: Tree = {
    "domain": "audio",
    "engine": "inline",
    "data": {
        "source": "tones",
        "attributes": "columns",
        "rate": 8_000,
        "seconds": 0.25,
        "train": 40,
        "test": 16,
        "part_rows": 16,
        **ONE,
    },
    "vae": {"latent_dim": 4, "mels": 16, "channels": 8},
    "train": {"steps": 2, **STEPS},
    "finetune": {"steps": 2, **STEPS},
    "score": {"n_candidates": 360, **ONE},
    "select": {"top_count": 12},
    "decode": {"part_rows": 16, **ONE},
    "evaluate": {"extractor": "bands", "n": 12, **ONE},
    "encode": ONE,
    "sample": ONE,
    "report": {"samples": 2, "bands": 2},
    "tracking": {"enabled": False},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    settings = {**SETTINGS, "run_dir": str(tmp_path_factory.mktemp("audio") / "run")}
    assert run_command(build_config(settings, []), "run") == 0
    return settings


def test_users_get_clips(finished: Tree) -> None:
    entries = manifest(finished)
    assert (entries["prepare"]["rows_out"], entries["decode"]["rows_out"]) == (56, 12)
    (part,) = Path(finished["run_dir"], "augmented").glob("*.parquet")
    table = pq.read_table(part)
    assert b'"_type": "Audio"' in table.schema.metadata[b"huggingface"]
    for stored in table["audio"].to_pylist():
        sound, rate = soundfile.read(io.BytesIO(stored["bytes"]))
        assert (rate, len(sound)) == (8_000, 2_000)


def test_the_page_is_small(finished: Tree) -> None:
    page = Path(finished["run_dir"], "report/index.html").read_text()
    players = re.findall(r'<audio[^>]*src="data:audio/mpeg;base64,([^"]+)"', page)
    assert len(players) >= 2 * 3  # candidates with both parents
    assert {len(soundfile.read(io.BytesIO(base64.b64decode(x)))[0]) for x in players} == {2_000}
    assert len(page) < 550_000 + 3_000 * len(players)
    assert "clips" in page


def test_its_players_play(finished: Tree, tmp_path: Path) -> None:
    async def played() -> None:
        async with browser(Path(finished["run_dir"], "report/index.html"), tmp_path) as chromium:
            await chromium.js("globalThis.all = [...document.querySelectorAll('audio')]")
            ready = "new Promise((r, no) => { x.onended = () => r([x.duration, x.currentTime]); x.play().catch(no); })"
            assert await chromium.js(f"((x) => {ready})(all[0])") == pytest.approx([0.25, 0.25], abs=0.05)
            assert await chromium.js("all.filter((x) => x.error).length") == 0
            assert chromium.complaints == []

    asyncio.run(played())


def test_it_goes_on_where_it_stopped(finished: Tree, tmp_path: Path) -> None:
    again = copy_of(finished, tmp_path)
    for name in ("augmented", "finetune", "evaluate", "features", "drawn", "report", "_progress/decode"):
        shutil.rmtree(Path(again["run_dir"], name))
    assert run_command(build_config(again, []), "run") == 0
    assert digests(again) == digests(finished)
