"""Runs of images that were made before there were other domains stay complete: fingerprints and digests as they were.

The numbers are what the code of 2231566, the last without domains, gave for these settings and pictures.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from stages_helpers import Tree, manifest

from ldsaug_ray.commands.run import run_command
from ldsaug_ray.config import Config
from ldsaug_ray.run.pipeline import STAGES, identity

STEPS = {"batch_size": 8, "learning_rate": 0.001}
SETTINGS: Tree = {
    "run_dir": "unused",
    "engine": "inline",
    "tracking": {"enabled": False},
    "data": {"source": "pictures", "resolution": 16, "train": 24, "test": 6, "part_rows": 16},
    "vae": {"latent_dim": 6, "channel_base": 128, "channel_max": 8},
    "train": {"steps": 6, "horizontal_flip": True, **STEPS},
    "score": {"n_candidates": 450, "sigma": {"scale": 0.3}},
    "select": {"top_fraction": 0.2},
    "finetune": {"steps": 3, "mixing": 0.5, "uses": {"pixels": 0.5, "cycle": 0.1}, **STEPS},
    "evaluate": {"extractor": "pixels", "n": 20, "k": 3, "detection": {"corruptions": ["blur"]}},
    "report": {"samples": 4},
}
DIGESTS = {name: f"{k:064x}" for k, name in enumerate(("prepare", "train", "encode", "score", "select", "decode"))}
FINGERPRINTS = {
    "prepare": "e774ae019a5bc792",
    "train": "e38171f55cae3cd9",
    "encode": "398a397e15352abb",
    "score": "d2f0479282111808",
    "select": "d908691d9a053f4b",
    "decode": "d317fb886da3121b",
    "finetune": "a2f3bde1c548a18c",
    "evaluate": "02ad790dd6f61c5a",
    "report": "4758c07082e672fb",
}
IDENTITY = "7f4fe4183502b382"
PREPARED = "8149fc6e9d78f4bc9bce9595f8402405afcdd0e911a6ffdeef3e52b4af5ecd8b"


def test_fingerprints() -> None:
    config = Config.model_validate(SETTINGS)
    assert {n: stage.fingerprint(config, DIGESTS, "stamp")[:16] for n, stage in STAGES.items()} == FINGERPRINTS
    assert identity(config)[:16] == IDENTITY


def test_prepared_pictures(tmp_path: Path) -> None:
    """30 pictures of 16 px, which nothing resizes, and one file that is none."""
    (folder := tmp_path / "pictures").mkdir()
    for n, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (30, 16, 16, 3)).astype(np.uint8)):
        Image.fromarray(pixels).save(folder / f"{n:02d}.png")
    (folder / "none.png").write_text("no picture")
    data = {**SETTINGS["data"], "source": str(folder)}
    settings = {**SETTINGS, "run_dir": str(tmp_path / "run"), "data": data}
    assert run_command(Config.model_validate(settings), "prepare") == 0
    assert manifest(settings)["prepare"]["digest"] == PREPARED
