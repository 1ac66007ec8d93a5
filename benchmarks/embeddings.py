"""What LDS keeps of embeddings, here features of images, without any model of ours.

    .venv/bin/python benchmarks/embeddings.py images.parquet network.pt embeddings.parquet [--n 4000]
    ldsaug run configs/vectors.yaml data.source=embeddings.parquet data.attributes=columns data.attribute_names=[Male]

The first command writes the embeddings as lists, with a key and a label, unless they are there, and compares: density,
coverage, precision, recall and Fréchet distance of as many interpolants by each rule against as many embeddings held
out, of three splits; the share of a label; and of the training rows that are parents.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

import ldsaug_ray as la
from ldsaug_ray.metrics import frechet_distance, prdc

SPLITS = 3
MEASURES = ("frechet", "precision", "recall", "density", "coverage")
RULES: dict[str, dict[str, Any]] = {
    "random interpolants": {"which": "random"},
    "the densest 20 %": {},
    "the densest 20 % of each nearer parent": {"balance": "parent"},
}


def embedded(images: Path, network: Path, n: int, label: str) -> pa.Table:
    """image_id, z float32[C] and the label of n images."""
    net = torch.jit.load(str(network), map_location="cpu").eval()
    table = pq.read_table(images, columns=["image", "image_id", label]).slice(0, n)
    found = []
    for start in range(0, len(table), 64):
        files = table["image"].slice(start, 64).to_pylist()
        batch = np.stack([np.asarray(Image.open(io.BytesIO(file["bytes"])).convert("RGB")) for file in files])
        with torch.inference_mode():
            found.append(net(torch.from_numpy(batch).permute(0, 3, 1, 2)).numpy())
        print(f"\r{start + len(batch):,} of {len(table):,} images", end="", flush=True)
    z = np.concatenate(found)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(z.reshape(-1)), z.shape[1])
    return pa.table({"image_id": table["image_id"], "z": lists, label: table[label]})


def judged(real: np.ndarray, made: np.ndarray) -> dict[str, float]:
    """Measures by name, k = 5."""
    found = prdc(real, made)
    return {"frechet": frechet_distance(made, real), **{name: getattr(found, name) for name in MEASURES[1:]}}


def compared(z: np.ndarray, y: np.ndarray, seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rule -> measures of what it keeps of interpolants between one half of the embeddings, against the other half."""
    order = np.random.default_rng(seed).permutation(len(z))
    train, test = np.array_split(order, 2)
    n = len(test)
    own = {"label": float(np.mean(y[train] > 0)), "parents": np.nan}
    yield "the training rows themselves", judged(z[test], z[train]) | own
    for name, how in RULES.items():
        a = la.augment(z[train], n=5 * n, labels=y[train], seed=seed, **how)
        rows = np.random.default_rng(seed).permutation(len(a))[:n]
        found = judged(z[test], a.z[rows])
        if name == "the densest 20 %":
            print(*a.regime.sentences, sep="\n")
        yield name, found | {"label": float(np.mean(a.labels > 0)), "parents": len(np.unique(a.parents)) / len(train)}


def main() -> None:
    """Embed, compare, print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="Parquet with columns image, image_id and the label")
    parser.add_argument("network", type=Path, help="TorchScript: uint8[N, 3, H, W] to float[N, C]")
    parser.add_argument("out", type=Path)
    parser.add_argument("--n", type=int, default=4000)
    parser.add_argument("--label", default="Male")
    given = parser.parse_args()
    if not given.out.exists():
        pq.write_table(embedded(given.images, given.network, given.n, given.label), given.out)
    table = pq.read_table(given.out)
    z, y = np.stack(table["z"].to_numpy()), table[given.label].to_numpy()
    rules: dict[str, list[dict[str, Any]]] = {}
    for seed in range(SPLITS):
        for name, found in compared(z, y, seed):
            rules.setdefault(name, []).append(found)
            print(seed, name, found, flush=True)
    columns = (*MEASURES, "label", "parents")
    print(f"\n| n = {len(z) // 2:,} | {' | '.join(columns)} |\n| --- |{' ---: |' * len(columns)}")
    for name, found in rules.items():
        cells = (" · ".join(f"{of[c]:.3g}" for of in found) for c in columns)
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
