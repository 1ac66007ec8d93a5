"""A whole run on clips: what users get, what the page plays, and the same digests after a kill."""

from __future__ import annotations

import base64
import io
import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from stages_helpers import Tree, digests, manifest

from ldsaug_ray.commands.run import run_command
from ldsaug_ray.config import load_config

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


def test_a_run_gives_clips_to_users_and_to_the_page_and_goes_on_where_it_stopped(tmp_path: Path, save) -> None:
    settings = {**SETTINGS, "run_dir": str(tmp_path / "run")}
    config = load_config(str(save(settings)), [])
    assert run_command(config, "run") == 0
    before, entries = digests(settings), manifest(settings)
    assert (entries["prepare"]["rows_out"], entries["decode"]["rows_out"]) == (56, 12)
    (part,) = sorted((tmp_path / "run/augmented").glob("*.parquet"))
    table = pq.read_table(part)
    assert b'"_type": "Audio"' in table.schema.metadata[b"huggingface"]
    for stored in table["audio"].to_pylist():
        sound, rate = soundfile.read(io.BytesIO(stored["bytes"]))
        assert (rate, len(sound)) == (8_000, 2_000)
    page = (tmp_path / "run/report/index.html").read_text()
    players = re.findall(r'<audio[^>]*src="data:audio/flac;base64,([^"]+)"', page)
    assert len(players) >= 2 * 3  # candidates with both parents
    assert {len(soundfile.read(io.BytesIO(base64.b64decode(x)))[0]) for x in players} == {2_000}
    assert "clips" in page

    for name in ("augmented", "finetune", "evaluate", "features", "drawn", "report", "_progress/decode"):
        shutil.rmtree(tmp_path / "run" / name)
    assert run_command(config, "run") == 0
    assert digests(settings) == before
