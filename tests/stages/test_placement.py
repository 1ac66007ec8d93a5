"""Latents replicated or sharded by their size, pairs by blocks: the same scores."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
from stages_helpers import manifest, merge

from ldsaug_ray.commands.run import run_command
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config
from ldsaug_ray.run.directory import RunDir


def test_blocks_and_a_budget(copied):
    blocks = {"n_candidates": 900, "shard_latents": 10, "plan": "blocks", "block": [6, 8], "latents_gb": 1e-7}
    settings = merge(copied, {"engine": "inline", "score": blocks})
    assert run_command(Config.model_validate(settings), "score") == 0
    sharded = manifest(settings)["score"]
    assert (sharded["placement"], sharded["rows_out"]) == ("sharded", 900)  # 44 latents are more than 100 bytes
    scores = pq.read_table(Path(settings["run_dir"]) / "scores")
    assert scores["candidate"].to_pylist() == list(range(900))
    assert [len(set(scores["parent_i"].to_pylist()[n : n + 432])) for n in (0, 432)] == [6, 6]
    RunDir(Location.of(settings["run_dir"])).reset("score")
    assert run_command(Config.model_validate(merge(settings, {"score": {"latents_gb": "auto"}})), "score") == 0
    replicated = manifest(settings)["score"]
    assert (replicated["placement"], replicated["digest"]) == ("replicated", sharded["digest"])
