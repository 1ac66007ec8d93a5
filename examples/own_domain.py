"""A kind of data of one's own: melodies of 16 notes in text files, and a small VAE for them.

Everything that a run does with images (splits, quarantine, training, scores, selection, measures, report, resuming)
it then does with melodies:

    PYTHONPATH=examples python examples/own_domain.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import nn

import ldsaug_ray as la
from ldsaug_ray.config import CommonData, CommonVae
from ldsaug_ray.domains import Domain, Unusable
from ldsaug_ray.domains.sources.walk import Files
from ldsaug_ray.models import Codec, CodecKind

NOTES, LENGTH = "CDEFGAB", 16


class Melodies(Domain):
    """A batch is uint8[N, 16]: the place of each note in NOTES."""

    name, unit, item, column = "melodies", "melodies", "melody", "melody"
    prepares, exported = "read and check the melodies; split them into train and test", "its notes"
    files, data, codec = Files("melody", "melodies", ("txt",), "key_column"), CommonData, "own_domain:Tunes"

    def read(self, payload, data):
        notes = payload.decode("ascii", "replace").strip()
        if len(notes) != LENGTH or set(notes) - set(NOTES):
            raise Unusable(f"not {LENGTH} notes of {NOTES}: {notes[:20]!r}")
        return np.array([NOTES.index(note) for note in notes], np.uint8)

    def empty(self, data):
        return np.empty((0, LENGTH), np.uint8)

    def pack(self, batch):
        return pa.array(["".join(NOTES[k] for k in row) for row in batch], pa.string())

    def unpack(self, table, column=None):
        rows = [[NOTES.index(note) for note in text] for text in table[column or self.column].to_pylist()]
        return np.array(rows, np.uint8).reshape(-1, LENGTH)

    def export(self, batch, names, facts):
        return self.pack(batch)

    def show(self, batch, facts):
        return [f"<code>{text}</code>" for text in self.pack(batch).to_pylist()]


class Tunes(CodecKind):
    """Linear on both sides; the loss of a step is `Codec.step_loss`: what `error` says, and KL."""

    domain, settings = "own_domain:Melodies", CommonVae

    def given(self, data, facts):
        return {"length": LENGTH}

    def build(self, settings, given, seed):
        torch.manual_seed(seed)
        return Tune(settings, given)


class Tune(Codec):
    unit, latent_dim = "melodies", 6

    def __init__(self, settings, given):
        super().__init__()
        self.settings, self.given = settings, given
        self.encoder, self.decoder = nn.Linear(LENGTH * 7, 12), nn.Linear(6, LENGTH * 7)

    def blank(self, n):
        return np.empty((n, LENGTH), np.uint8)

    def encode(self, items):
        return self.encoder(nn.functional.one_hot(items.long(), 7).float().flatten(1)).chunk(2, 1)

    def decode(self, z):
        return self.decoder(z).view(-1, LENGTH, 7)

    def error(self, output, items, objective):
        return nn.functional.cross_entropy(output.transpose(1, 2), items.long(), reduction="none").mean(1)

    def to_batch(self, output):
        return output.argmax(2).to(torch.uint8).cpu().numpy()


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    (folder / "songs").mkdir(parents=True, exist_ok=True)
    walks = np.random.default_rng(0).choice([-1, 0, 1], (300, LENGTH)).cumsum(1)
    for n, walk in enumerate(walks):  # from note to note, to its neighbours
        notes = "".join(NOTES[k % 7] for k in walk)
        (folder / f"songs/{n:03d}.txt").write_text(notes if n != 7 else "no song")
    train = {"steps": 120, "batch_size": 32, "learning_rate": 0.01, "objective": {"beta": 0.01}}
    run = la.run({
        "domain": "own_domain:Melodies", "engine": "inline", "tracking": {"enabled": False},
        "run_dir": str(folder / "run"), "data": {"source": str(folder / "songs")},
        "train": train, "finetune": {**train, "steps": 20}, "score": {"n_candidates": 900},
    })  # fmt: skip
    print(run.augmented["melody"].to_pylist()[:5])
