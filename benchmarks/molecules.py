"""Does density foretell that a decoded latent is a molecule, and which sampler of latents is best?

    .venv/bin/python benchmarks/molecules.py RUN_DIR [RUN_DIR …] --chemnet chemnet.pt [--pairs 1500] [--n 1000]

The runs, of molecules, have come to `encode`, and differ in their seeds. Printed are, as means over the runs: by decile
of a score the share of interpolants that are molecules, copies of a parent, and new; the area under the ROC curve of
each score for "is a molecule"; and for each sampler validity, novelty and the Fréchet ChemNet distance to the test
molecules at n valid ones, beside that of plain noise of equal novelty.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ALPHAS = [m / 10 for m in range(1, 10)]
NOISE = [0.25, 0.5, 0.75, 1.0, 1.3]  # of the median distance of a latent to the nearest other
OVER = 8  # draws of a latent, of which the densest is kept
SIGMA = 0.2  # of the mean norm
SCORES = {"log_lds": "LDS", "without_parents": "LDS without parents", "likelihood": "decoder's likelihood"}


class Run:
    """A run's model and molecules."""

    def __init__(self, folder: str) -> None:
        from ldsaug_ray.common.storage import Location
        from ldsaug_ray.domains.molecules import Molecules
        from ldsaug_ray.models import load_vae
        from ldsaug_ray.run.directory import RunDir
        from ldsaug_ray.run.latents import read_latents

        run = RunDir(Location.of(folder))
        self.vae: Any = load_vae(run.folder("train/vae.safetensors"))
        self.latents = read_latents(run, "train")
        tables = [f.read_table(["key", "split", "smiles"]) for f in run.folder("images").files(".parquet")]
        smiles = {split: {} for split in ("train", "test")}
        for table in tables:
            for key, split, text in zip(
                table["key"].to_pylist(), table["split"].to_pylist(), Molecules().unpack(table).tolist(), strict=True
            ):
                smiles[split][key] = text.decode()
        self.train = [smiles["train"][key] for key in self.latents.keys.to_pylist()]
        self.test = list(smiles["test"].values())
        self.known = set(self.train)

    @property
    def z(self) -> np.ndarray:
        """Latents of `train`."""
        return self.latents.z

    def molecules(self, z: np.ndarray) -> list[str]:
        """Canonical SMILES of latents, "" of what is no molecule."""
        from ldsaug_ray.domains.molecules.chemistry import molecule
        from ldsaug_ray.metrics.molecules.base import canonical_forms
        from ldsaug_ray.models import decode_batch

        found = [molecule(text.decode()) for text in decode_batch(self.vae, z, 512).tolist()]
        return [canonical_forms([m])[0] if m is not None else "" for m in found]


def interpolants(run: Run, pairs: int) -> dict[str, np.ndarray]:
    """Columns of random interpolants: the scores, alpha, and whether each is valid, a copy of a parent, new."""
    from ldsaug_ray.lds import candidates, interpolate, score_pairs
    from ldsaug_ray.models import likelihoods

    c = candidates(len(run.z), ALPHAS, 0, pairs * len(ALPHAS), 0)
    sigma = SIGMA * float(np.linalg.norm(run.z, axis=1).mean())
    scores = score_pairs(run.z, np.stack([c.i, c.j], 1)[:: len(ALPHAS)], ALPHAS, [sigma])
    z = interpolate(run.z, c.i, c.j, c.alpha, "linear")
    made = run.molecules(z)
    parents = [{run.train[i], run.train[j]} for i, j in zip(c.i, c.j, strict=True)]
    return {
        "smiles": np.array(made, object),
        "alpha": c.alpha,
        "log_lds": scores.log_lds[:, :, 0].ravel(),
        "without_parents": scores.log_lds_excluding_parents[:, :, 0].ravel(),
        "likelihood": likelihoods(run.vae, z, 512),
        "valid": np.array([m != "" for m in made]),
        "copy": np.array([m in of for m, of in zip(made, parents, strict=True)]),
        "new": np.array([m != "" and m not in run.known for m in made]),
    }


def by_decile(found: dict[str, np.ndarray], score: str) -> np.ndarray:
    """float[10, 3]: valid, copies, new, from the lowest scores to the highest."""
    order = np.argsort(found[score], kind="stable")
    return np.array(
        [[found[name][rows].mean() for name in ("valid", "copy", "new")] for rows in np.array_split(order, 10)]
    )


def areas(found: dict[str, np.ndarray], score: str) -> tuple[float, float]:
    """Area under the ROC curve for valid ones, and its mean over those at each alpha."""
    from sklearn.metrics import roc_auc_score

    each = [
        roc_auc_score(found["valid"][rows], found[score][rows]) for a in ALPHAS if (rows := found["alpha"] == a).any()
    ]
    return float(roc_auc_score(found["valid"], found[score])), float(np.mean(each))


def samplers(run: Run, found: dict[str, np.ndarray], n: int) -> dict[str, list[str]]:
    """Sampler -> SMILES in a random order, "" of what is no molecule."""
    from ldsaug_ray.lds import score_points

    rng = np.random.default_rng(0)
    shuffled = rng.permutation(len(found["alpha"]))
    sets = {"random interpolants": found["smiles"][shuffled]}
    top = len(shuffled) // 5
    for score, title in SCORES.items():
        best = np.argsort(-found[score][shuffled], kind="stable")[:top]
        sets[f"interpolants, the highest fifth by {title}"] = found["smiles"][shuffled][np.sort(best)]
    draws = 4 * n
    sets["N(0, I)"] = run.molecules(rng.standard_normal((draws, run.z.shape[1])).astype(np.float32))
    spread = float(np.median(np.sqrt(_nearest(run.z)))) / run.z.shape[1] ** 0.5
    for share in NOISE:
        rows = rng.integers(0, len(run.z), draws)
        noise = rng.standard_normal((draws, run.z.shape[1])) * (share * spread)
        sets[f"noise of {share:g}"] = run.molecules((run.z[rows] + noise).astype(np.float32))
    norm = float(np.linalg.norm(run.z, axis=1).mean())
    for share in (0.75, 1.0, 1.3):
        rows = np.repeat(rng.integers(0, len(run.z), draws), OVER)
        z = (run.z[rows] + rng.standard_normal((len(rows), run.z.shape[1])) * (share * spread)).astype(np.float32)
        score = score_points(run.z, z, [SIGMA * norm], leave_out=rows)[:, 0].reshape(-1, OVER)
        sets[f"noise of {share:g}, the densest of {OVER}"] = run.molecules(
            z[np.arange(len(score)) * OVER + score.argmax(1)]
        )
    return {name: list(smiles) for name, smiles in sets.items()}


def _nearest(z: np.ndarray) -> np.ndarray:
    """Squared distance of each latent to the nearest other, in blocks."""
    out, squares = np.empty(len(z)), (z.astype(np.float64) ** 2).sum(1)
    for start in range(0, len(z), 1000):
        block = z[start : start + 1000].astype(np.float64)
        gaps = squares[start : start + 1000, None] + squares - 2 * block @ z.T.astype(np.float64)
        gaps[np.arange(len(block)), np.arange(start, start + len(block))] = np.inf
        out[start : start + 1000] = gaps.min(1).clip(0)
    return out


def judged(run: Run, sets: dict[str, list[str]], chemnet: str, n: int) -> dict[str, dict[str, float]]:
    """Validity, novelty and uniqueness of each sampler, and the FCD of its first n valid molecules."""
    from ldsaug_ray.metrics import FeatureStatistics, frechet_from_statistics, open_extractor

    extract = open_extractor(f"chemnet:{chemnet}", domain="molecules", batch_size=250)
    reference = FeatureStatistics.of(extract(np.array(run.test, "S")))
    out = {}
    rng = np.random.default_rng(1)
    sets = {"training molecules": list(rng.permutation(run.train)[: 2 * n]), **sets}
    for name, made in sets.items():
        valid = [m for m in made if m]
        first = valid[:n]
        row = {"validity": len(valid) / len(made), "n": len(first)}
        if first:
            row["novelty"] = float(np.mean([m not in run.known for m in set(first)]))
            row["uniqueness"] = len(set(first)) / len(first)
        if len(first) == n:
            row["fcd"] = frechet_from_statistics(
                FeatureStatistics.of(extract(np.array(first, "S"))), reference
            ).distance
        out[name] = row
    curve = [out[f"noise of {s:g}"] for s in NOISE]
    noise = sorted((row["novelty"], row["fcd"]) for row in curve if "fcd" in row)
    for row in out.values():
        if noise and noise[0][0] <= row.get("novelty", -1) <= noise[-1][0]:
            row["noise_fcd"] = float(np.interp(row["novelty"], *zip(*noise, strict=True)))
    return out


def tell(results: Sequence[dict[str, Any]]) -> None:
    """Tables in Markdown, means over the runs."""
    mean = {s: np.mean([r["deciles"][s] for r in results], 0) for s in SCORES}
    for score, title in SCORES.items():
        both = np.mean([r["areas"][score] for r in results], 0)
        spread = [round(r["areas"][score][0], 3) for r in results]
        print(f"\n{title}: area under the ROC curve {both[0]:.3f} {spread}, at fixed α {both[1]:.3f}\n")
        print("| decile | valid | copies of a parent | new |\n|---|---|---|---|")
        for k, row in enumerate(mean[score], 1):
            print(f"| {k} | {row[0]:.1%} | {row[1]:.1%} | {row[2]:.1%} |")
    print("\n| sampler | validity | uniqueness | novelty | FCD | of noise at that novelty |\n|---|---|---|---|---|---|")
    for name in results[0]["samplers"]:
        rows = [r["samplers"][name] for r in results]

        def of(key: str, rows: list[dict[str, float]] = rows) -> float:
            return float(np.mean([row.get(key, np.nan) for row in rows]))

        each = ", ".join(f"{row.get('fcd', np.nan):.2f}" for row in rows)
        print(
            f"| {name} | {of('validity'):.1%} | {of('uniqueness'):.1%} | {of('novelty'):.1%} "
            f"| {of('fcd'):.2f} ({each}) | {of('noise_fcd'):.2f} |"
        )


def main() -> None:
    """Measure each run, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--chemnet", required=True)
    parser.add_argument("--pairs", type=int, default=1500)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--out", type=Path, help="JSON with all numbers")
    arguments = parser.parse_args()
    results = []
    for folder in arguments.runs:
        started, run = time.process_time(), Run(folder)
        found = interpolants(run, arguments.pairs)
        results.append(
            {
                "deciles": {score: by_decile(found, score).tolist() for score in SCORES},
                "areas": {score: areas(found, score) for score in SCORES},
                "samplers": judged(run, samplers(run, found, arguments.n), arguments.chemnet, arguments.n),
                "cpu_seconds": time.process_time() - started,
            }
        )
        if arguments.out:
            arguments.out.write_text(json.dumps(results, indent=1))
    tell(results)


if __name__ == "__main__":
    main()
