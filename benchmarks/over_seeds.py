"""`ldsaug frontier` over seeds: a table of means with Student's 95 % limits, and every number as CSV.

    .venv/bin/python benchmarks/over_seeds.py OUT.csv RUN_DIR [RUN_DIR …]

The runs differ in their seeds alone. Gains are against noise about training latents of equal AuthPct.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t

Point = dict[str, Any]
GAINS = ("frechet", "precision", "coverage")


def limits(xs: list[float]) -> str:
    """Their mean, with 95 % limits of it over the seeds."""
    mean = float(np.mean(xs))
    if len(xs) < 2:
        return f"{mean:+.3f}"
    half = t.ppf(0.975, len(xs) - 1) * np.std(xs, ddof=1) / len(xs) ** 0.5
    return f"{mean:+.3f} [{mean - half:+.3f}, {mean + half:+.3f}]"


def gain(points: list[Point], kind: str) -> str:
    """A cell: empty for the curve itself."""
    if points[0]["kind"] == "curve":
        return ""
    found = [p["gains"].get(kind) for p in points]
    return limits([x["gain"] for x in found]) if all(found) else "off the curve"


def flat(seed: int, p: Point) -> dict[str, object]:
    """A row of the CSV."""
    row: dict[str, object] = {"seed": seed, "name": p["name"], "kind": p["kind"], "n": p["n"]}
    row |= {k: f"{p[k]:.4g}" for k in GAINS}
    row |= {"authpct_training_images": f"{p['training images']:.4g}"}
    row |= {"authpct_reconstructions": f"{p['their reconstructions']:.4g}"}
    row |= {f"effective {k}": f"{v:.4g}" for k, v in p["modes"].items()}
    for k in GAINS:
        found = p["gains"].get(k) or {}
        row |= {f"{k}_{part}": f"{found[part]:.4g}" if found else "" for part in ("gain", "low", "high")}
    return row


def main(out: str, *places: str) -> None:
    """Print the table, write the CSV."""
    files = [json.loads((Path(place) / "frontier/frontier.json").read_text()) for place in places]
    runs = [{p["name"]: p for p in found["points"]} for found in files]
    modes = list(next(iter(runs[0].values()))["modes"])
    head = ["sampler", "Fréchet, by seed", "precision", "coverage", "AuthPct", *modes]
    head += ["gain in Fréchet distance", "precision +", "coverage +"]
    print(
        "|",
        " | ".join(head),
        "|\n|",
        " | ".join(["---", "---", *["---:"] * (3 + len(modes)), "---", "---", "---"]),
        "|",
    )
    rows = []
    for name in runs[0]:
        points = [run[name] for run in runs]
        mean = lambda key, points=points: float(np.mean([p[key] for p in points]))  # noqa: E731
        held = [f"{np.mean([p['modes'][mode] for p in points]):.2f}" for mode in modes]
        cells = [name, " · ".join(f"{p['frechet']:.3g}" for p in points), f"{mean('precision'):.3f}"]
        cells += [f"{mean('coverage'):.3f}", f"{mean('their reconstructions'):.1f}", *held]
        print("|", " | ".join([*cells, *(gain(points, kind) for kind in GAINS)]), "|")
        rows += [flat(seed, p) for seed, p in enumerate(points)]
    with Path(out).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main(*sys.argv[1:])
