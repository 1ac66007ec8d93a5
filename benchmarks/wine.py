"""Does a classifier of rare wines gain from A, the dense interpolants between training rows?

    .venv/bin/python benchmarks/wine.py winequality-white.csv wine.csv [--repeats 2] [--only 0 1 2]

White wines (Cortez et al. 2009), each once: 11 measurements; poor (quality 3, 4), usual (5 to 7), fine (8, 9).
Stratified five-fold cross-validation, repeated: each arm adds rows to the same training rows, and the same classifiers
learn from both. Printed are, for each arm, measures on the rows held out and how much higher they are than those of the
training rows alone: means over the splits, with 95 % limits of Student's t for overlapping training sets (Nadeau &
Bengio 2003). The CSV has a row for each arm and split; splits that it holds already are not done again.
"""

from __future__ import annotations

import argparse
import csv
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from imblearn.over_sampling import SMOTE, RandomOverSampler
from scipy.stats import t as student
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, balanced_accuracy_score, f1_score
from sklearn.model_selection import RepeatedStratifiedKFold
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

import ldsaug_ray as la

Rows = tuple[np.ndarray, np.ndarray]  # float[N, 11], labels int[N]
POOR, USUAL, FINE = 0, 1, 2
FOLDS = 5
NOISE = 0.5  # of the median distance of a row to the nearest other, spread over the columns
CLASSIFIERS: dict[str, Callable[..., Any]] = {
    "trees": lambda seed, weight: ExtraTreesClassifier(200, class_weight=weight, random_state=seed),
    "logistic": lambda seed, weight: LogisticRegression(max_iter=2000, class_weight=weight),
}
MEASURES = ("average precision", "balanced accuracy", "macro F1")


def wines(file: Path) -> Rows:
    """Measurements and groups, each wine once."""
    table = np.unique(np.loadtxt(file, delimiter=","), axis=0)
    return table[:, :-1], np.digitize(table[:, -1], [4.5, 7.5])


def needed(y: np.ndarray) -> np.ndarray:
    """Rows that each class lacks of the largest."""
    counts = np.bincount(y)
    return counts.max() - counts


def some(rows: Rows, need: np.ndarray, rng: np.random.Generator) -> Rows:
    """As many of each label as needed, drawn from those there are."""
    x, y = rows
    found = [rng.permutation(np.flatnonzero(y == label))[:count] for label, count in enumerate(need)]
    if short := [label for label, count in enumerate(need) if len(found[label]) < count]:
        raise ValueError(f"too few candidates of class {short}")
    of = np.concatenate(found)
    return x[of], y[of]


def candidates(y: np.ndarray) -> int:
    """So many that those of the rarest class, 1.2 times over, make it as large as the largest."""
    return math.ceil(1.2 * needed(y).max() * len(y) / np.bincount(y).min())


def noisy(x: np.ndarray, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Some rows with isotropic noise."""
    gap = np.median(NearestNeighbors(n_neighbors=2).fit(x).kneighbors(x)[0][:, 1])
    return x[rows] + rng.normal(size=(len(rows), x.shape[1])) * NOISE * gap / x.shape[1] ** 0.5


def interpolants(z: np.ndarray, y: np.ndarray, decode: Callable[[Any], np.ndarray], seed: int) -> Iterator[Any]:
    """Arms of latents and their labels: name, rows added."""
    rng, n, m = np.random.default_rng(seed), candidates(y), len(y)

    def rows(a: la.Augmented) -> Rows:
        return a.z, np.asarray(a.labels)

    def decoded(found: Rows) -> Rows:
        return decode(found[0]), found[1]

    plain = {"labels": y, "seed": seed}
    yield "random interpolants", decoded(rows(la.augment(z, n=5 * m, which="random", **plain)))
    yield "A, the paper's rule", decoded(rows(la.augment(z, n=5 * m, **plain)))
    unfiltered = la.augment(z, n=n, keep=1.0, **plain)
    yield "balanced: random interpolants", decoded(some(rows(unfiltered), needed(y), rng))
    dense = la.augment(z, n=5 * n, balance="label", **plain)
    yield "balanced: A, the densest fifth of each label", decoded(some(rows(dense), needed(y), rng))
    for name, keep in (("random interpolants", 1.0), ("A, the densest fifth", 0.2)):
        sampler = la.LatentSampler(keep=keep, random_state=seed)
        made = [part[m:] for part in sampler.fit_resample(z, y)]
        yield f"balanced, within a class: {name}", decoded((made[0], made[1]))


def controls(x: np.ndarray, y: np.ndarray, seed: int) -> Iterator[Any]:
    """Arms that know nothing of density."""
    rng, m = np.random.default_rng(seed), len(y)
    nothing = x[:0], y[:0]
    yield "training rows alone", nothing, None
    yield "class weights", nothing, "balanced"
    all_rows = np.arange(m)
    yield "noise", (noisy(x, all_rows, rng), y), None
    copies = RandomOverSampler(random_state=seed)
    copies.fit_resample(x, y)
    more = copies.sample_indices_[m:]
    yield "balanced: copies", (x[more], y[more]), None
    yield "balanced: noise", (noisy(x, more, rng), y[more]), None
    made = [part[m:] for part in SMOTE(random_state=seed).fit_resample(x, y)]
    yield "balanced, within a class: SMOTE", (made[0], made[1]), None


def trained(x: np.ndarray, y: np.ndarray, folder: Path, seed: int) -> tuple[la.RunTables, np.ndarray]:
    """A run whose MLP VAE learned the rows, and the rows' numbers in the order of its latents."""
    table = {f"c{k}": x[:, k] for k in range(x.shape[1])} | {"group": y}
    pq.write_table(pa.table(table), folder / "train.parquet")
    steps = {"batch_size": 128, "learning_rate": 0.002, "adam_betas": [0.9, 0.99]}
    objective = {"reconstruction": "l2", "beta": 0.05, "kl_warmup_steps": 500}
    run = la.run(
        {
            "run_dir": str(folder / "run"),
            "engine": "inline",
            "domain": "vectors",
            "seed": seed,
            "data": {
                "source": str(folder / "train.parquet"),
                "attributes": "columns",
                "attribute_names": ["group"],
                "train": 1.0,
                "test": 0.0,
            },
            "vae": {"kind": "mlp", "latent_dim": 8},
            "train": {"steps": 3000, "objective": objective, **steps},
            "finetune": {"steps": 1, "objective": objective, **steps},  # a run has one; it is not used here
            "evaluate": {"extractor": None},
            "tracking": {"enabled": False},
        }
    )
    return run, np.array([int(key.partition("#")[2]) for key in run.latents["key"].to_pylist()])


def arms(x: np.ndarray, y: np.ndarray, seed: int) -> Iterator[tuple[str, Rows, str | None]]:
    """Every arm of a split: name, the rows that it adds in units of the training rows' spread, class weights."""
    scale = StandardScaler().fit(x)
    z = scale.transform(x).astype(np.float32)
    yield from controls(z, y, seed)
    for name, made in interpolants(z, y, lambda rows: rows, seed):
        yield name, made, None
    with tempfile.TemporaryDirectory() as folder:
        run, order = trained(x, y, Path(folder), seed)
        latents = np.stack(run.latents["z"].to_numpy())
        model = la.Decode(f"{run.place}/train/vae.safetensors", out="row")

        def decode(some: np.ndarray) -> np.ndarray:
            return scale.transform(model({"z": some})["row"])

        missed = np.square(decode(latents) - z[order]).mean()
        print(f"  VAE: {missed:.3f} of the training rows' variance is not reconstructed", flush=True)
        for name, made in interpolants(latents, y[order], decode, seed):
            yield f"VAE, {name}", made, None


def judged(train: Rows, test: Rows, weight: str | None, seed: int) -> dict[str, dict[str, float]]:
    """Measures of each classifier on the test rows."""
    found = {}
    for name, make in CLASSIFIERS.items():
        model = make(seed, weight).fit(*train)
        chances, told = model.predict_proba(test[0]), model.predict(test[0])
        rare = [average_precision_score(test[1] == label, chances[:, label]) for label in (POOR, FINE)]
        values = np.mean(rare), balanced_accuracy_score(test[1], told), f1_score(test[1], told, average="macro")
        found[name] = dict(zip(MEASURES, map(float, values), strict=True))
    return found


def limits(gains: np.ndarray) -> tuple[float, float]:
    """Mean, and half the width of the 95 % interval: training sets overlap, so s² (1/J + n_test/n_train)."""
    n = len(gains)
    error = gains.std(ddof=1) * math.sqrt(1 / n + 1 / (FOLDS - 1))
    return float(gains.mean()), float(student.ppf(0.975, n - 1) * error)


def tell(results: list[dict[str, Any]]) -> None:
    """The table in Markdown: of each arm and measure the mean, and its gain over the training rows alone."""
    names = list(dict.fromkeys(r["arm"] for r in results))
    heads = [f"{c}: {m}" for c in CLASSIFIERS for m in MEASURES]
    print("| added to the training rows | rows |", " | ".join(heads), "|")
    print("| --- | ---: |", " | ".join(["---:"] * len(heads)), "|")
    for name in names:
        of = [r for r in results if r["arm"] == name]
        cells = [f"{np.mean([r['added'] for r in of]):,.0f}"]
        for head in heads:
            values, alone = (np.array([r[head] for r in results if r["arm"] == a]) for a in (name, names[0]))
            gain, half = limits(values - alone)
            cells.append(f"{values.mean():.3f}" + ("" if name == names[0] else f" ({gain:+.3f} ± {half:.3f})"))
        print(f"| {name} |", " | ".join(cells), "|")


def main() -> None:
    """Judge every arm on every split that is still to do; print the table of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--only", type=int, nargs="*", help="splits to do; none: all")
    given = parser.parse_args()
    x, y = wines(given.file)
    print(f"{len(y):,} wines: poor {np.sum(y == POOR)}, usual {np.sum(y == USUAL)}, fine {np.sum(y == FINE)}")
    done: list[dict[str, Any]] = []
    if given.out.exists():
        with given.out.open(newline="") as file:
            done = [{n: v if n == "arm" else float(v) for n, v in row.items()} for row in csv.DictReader(file)]
    splits = RepeatedStratifiedKFold(n_splits=FOLDS, n_repeats=given.repeats, random_state=0)
    for number, (train, test) in enumerate(splits.split(x, y)):
        if number in {row["split"] for row in done} or number not in (given.only or [number]):
            continue
        started = time.perf_counter()
        scale = StandardScaler().fit(x[train])
        rows, held_out = scale.transform(x[train]), (scale.transform(x[test]), y[test])
        for arm, (more, labels), weight in arms(x[train], y[train], number):
            both = np.concatenate([rows, more]), np.concatenate([y[train], labels])
            row: dict[str, Any] = {"split": number, "arm": arm, "added": len(labels)}
            for classifier, values in judged(both, held_out, weight, number).items():
                row |= {f"{classifier}: {measure}": round(value, 5) for measure, value in values.items()}
            done.append(row)
        print(f"split {number}: {time.perf_counter() - started:.0f} s", flush=True)
        with given.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, done[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(done)
    tell(done)


if __name__ == "__main__":
    main()
