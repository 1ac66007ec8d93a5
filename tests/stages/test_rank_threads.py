"""How many threads a rank of a training takes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import load_config
from ldsaug_ray.stages.shared.batches import Parts
from ldsaug_ray.stages.shared.rank import Task, threads_of

CONFIGS = Path(__file__).parents[2] / "configs"
PRETRAINED = ["vae.kind=torchscript", "vae.encoder=e", "vae.decoder=d", "vae.pixel_range=unit", "vae.latent_dim=null",
              "vae.mapping_layers=null"]  # fmt: skip


@pytest.mark.parametrize(
    ("file", "overrides", "world", "asked", "threads"),
    [
        ("demo", [], 1, 4, 1),  # 1.6 GFLOP a step
        ("demo", ["train.batch_size=320"], 1, 4, 4),
        ("demo", PRETRAINED, 1, 4, 4),  # of which nothing is known
        ("celeba10k", [], 1, 4, 4),
        ("celeba10k", [], 1, 0, os.cpu_count()),
        ("celeba10k", [], 4, 4, 1),  # each has a quarter of the batch
    ],
)
def test_small_steps_take_one_thread(file: str, overrides: list[str], world: int, asked: int, threads: int) -> None:
    config = load_config(str(CONFIGS / f"{file}.yaml"), overrides)
    given, nothing = {"resolution": config.data.resolution}, Parts((), 1)
    task = Task(
        "train", Location.of("/nowhere"), config.train, "images", config.vae, given, 0, nothing, None, (), asked
    )
    assert threads_of(task, world) == threads
