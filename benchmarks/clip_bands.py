"""Does the density of an interpolant tell how clear it sounds? Of a finished run of labelled clips.

    python benchmarks/clip_bands.py RUN_DIR NETWORK.pt [N]

A logistic probe learns each label from the network's features of the training clips (16 kHz), and is scored on the test
clips. N candidates, evenly spread over the ranks of log LDS, are decoded; per fifth of them: the probe's mean
confidence, the share that it places as one of the parents, and the parents' share. Then the labels of A by the probe.
"""

from __future__ import annotations

import sys

import numpy as np
import pyarrow as pa
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ldsaug_ray.common.columns import matrix
from ldsaug_ray.common.storage import Location
from ldsaug_ray.domains.audio import AUDIO
from ldsaug_ray.metrics import open_extractor
from ldsaug_ray.models import decode_batch, load_vae


def main(place: str, network: str, n: int = 300) -> None:
    """Print the tables."""
    root = Location.of(place)
    facts = (root / "images/facts.json").read_json()
    extractor = open_extractor(f"clips:{network}", domain="audio", facts=facts)
    read = lambda folder: pa.concat_tables([f.read_table() for f in (root / folder).files(".parquet")])  # noqa: E731
    latents, images, scores = read("latents").sort_by("key"), read("images").sort_by("key"), read("scores")
    scores = scores.sort_by([("log_lds", "descending")])
    picks = scores.take(pa.array(np.linspace(0, len(scores) - 1, n).astype(int)))
    vae, z = load_vae(root / "train/vae.safetensors"), matrix(latents["z"])
    row = {key: k for k, key in enumerate(latents["key"].to_pylist())}
    i, j = (np.array([row[key] for key in picks[name].to_pylist()]) for name in ("parent_i", "parent_j"))
    alpha = picks["alpha"].to_numpy()[:, None]
    made = extractor(decode_batch(vae, ((1 - alpha) * z[i] + alpha * z[j]).astype(np.float32), 64))
    real = extractor(AUDIO.unpack(images))
    of_a = extractor(AUDIO.unpack(read("augmented")))
    train = np.array(images["split"].to_pylist()) == "train"
    scale = StandardScaler().fit(real[train])
    for label in images["attributes"].type:
        values = np.array([x[label.name] for x in images["attributes"].to_pylist()])
        probe = LogisticRegression(max_iter=2_000).fit(scale.transform(real[train]), values[train])
        accuracy = probe.score(scale.transform(real[~train]), values[~train])
        chances = probe.predict_proba(scale.transform(made))
        told = probe.classes_[chances.argmax(1)]
        confidence, parental = chances.max(1), (told == values[i]) | (told == values[j])
        print(f"{label.name}: the probe is right on {accuracy:.3f} of {np.sum(~train)} test clips")
        for band in np.array_split(np.arange(n), 5):
            share = picks["parent_share"].to_numpy()[band].mean()
            print(f"  {confidence[band].mean():.3f} sure, {parental[band].mean():.2f} a parent's, share {share:.2f}")
        counts = {
            "training clips": values[train],
            "A, by the probe": probe.predict(scale.transform(of_a)),
        }
        for what, found in counts.items():
            shares = np.bincount(found, minlength=len(probe.classes_)) / len(found)
            entropy = -(shares[shares > 0] * np.log(shares[shares > 0])).sum()
            print(f"  {what}: {' '.join(f'{s:.2f}' for s in shares)}; {np.exp(entropy):.2f} effective values")


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:4]))
