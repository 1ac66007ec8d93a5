"""A judge of MNIST digits: 64 features of a small CNN, trained on 30,000 of them; and 12,000 others for a run.

    .venv/bin/python benchmarks/digit_features.py MNIST/train.parquet OUT

OUT gets digits64.pt (TorchScript, evaluate.extractor) and digits12k.parquet (data.source), which share no digit.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor, nn


class Features(nn.Module):
    """RGB in 0..255, [N, 3, H, W], to [N, 64]."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inside, outside, stride in ((1, 16, 2), (16, 32, 2), (32, 32, 1)):
            layers += [nn.Conv2d(inside, outside, 3, stride, 1), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 49, 64), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """Grey, 28 x 28 px, 0..1, then the network."""
        x = x.float().mean(1, keepdim=True) / 255
        x = nn.functional.interpolate(x, size=(28, 28), mode="bilinear", antialias=True, align_corners=False)
        return self.body(x)


def main() -> None:
    """Train, tell the accuracy on 5,000 more, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mnist", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    torch.manual_seed(0)
    table = pq.read_table(given.mnist)
    labels = torch.from_numpy(table["label"].to_numpy().astype(np.int64))
    rows = np.random.default_rng(0).permutation(len(table))

    def images(some: np.ndarray) -> Tensor:
        raw = table["image"].take(some).to_pylist()
        grey = np.stack([np.asarray(Image.open(io.BytesIO(x["bytes"])).convert("L")) for x in raw])
        return torch.from_numpy(grey)[:, None].expand(-1, 3, -1, -1)

    own, test = rows[:30_000], rows[42_000:47_000]
    pq.write_table(table.take(np.sort(rows[30_000:42_000])), given.out / "digits12k.parquet", row_group_size=1000)
    x, y, net, head = images(own), labels[own], Features(), nn.Linear(64, 10)
    optimizer = torch.optim.Adam([*net.parameters(), *head.parameters()], 1e-3)
    for _ in range(3):
        for batch in torch.randperm(len(x)).split(128):
            loss = nn.functional.cross_entropy(head(net(x[batch])), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        found = torch.cat([head(net(part)).argmax(1) for part in images(test).split(1000)])
    print(f"accuracy {(found == labels[test]).float().mean().item():.4f} on {len(test):,} other digits")
    torch.jit.script(net.eval()).save(given.out / "digits64.pt")


if __name__ == "__main__":
    main()
