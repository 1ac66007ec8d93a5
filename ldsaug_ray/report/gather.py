"""Read a finished run into `ReportData`. Held: the training latents, at most `LIMIT` scores, one stored part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

import ldsaug_ray
from ldsaug_ray.common.secrets import without_passwords
from ldsaug_ray.config import Config
from ldsaug_ray.domains import Domain, domain_of
from ldsaug_ray.domains.base import Array
from ldsaug_ray.lds import HeldOut, Noise, interpolate
from ldsaug_ray.lds.sigma.rule import sigma_sentence
from ldsaug_ray.models import CODECS, Codec, decode_batch, encode_batch, load_vae
from ldsaug_ray.models.priors import Normal
from ldsaug_ray.report._evaluation import read_evaluation
from ldsaug_ray.report._scores import read_parents, read_ranked, read_scores, regime_of, selected_csv
from ldsaug_ray.report.data import (
    Band,
    Bandwidth,
    Curve,
    Estimate,
    Pick,
    PriorSamples,
    Reconstructions,
    ReportData,
    Scores,
    Sharpness,
    Shown,
    StageRow,
    Threshold,
)
from ldsaug_ray.report.explorer import explorer_of
from ldsaug_ray.report.images import evenly, find_tiles, first_items, take_text
from ldsaug_ray.report.sheets import Shown as Tiles
from ldsaug_ray.report.sheets import in_a_row, shown
from ldsaug_ray.run.directory import RunDir, facts_of
from ldsaug_ray.run.latents import Latents, read_latents
from ldsaug_ray.run.pipeline import STAGES
from ldsaug_ray.run.quarantine import read_quarantine
from ldsaug_ray.selection import sentence_of

RECONSTRUCTIONS_SHOWN = 16
BESIDE = 2_000  # items of A, and real ones, that the domain compares
REAL_IMAGES = 512  # whose sharpness is measured: 100 MB at 256 px
_BATCH = 16


def gather(run: RunDir, config: Config) -> ReportData:
    """Everything the page shows. Decoding runs on the CPU, in this process.

    Raises:
        InputError: prepare, train, encode, score or select is not complete, or its files do not belong together.
        StorageError: a file cannot be read.
    """
    for stage in ("prepare", "train", "encode", "score", "select"):
        run.require(stage)
    prepared, score, select = (run.require(stage) for stage in ("prepare", "score", "select"))
    noise = Noise.kept(score, config.seed)
    held_out = None if score["held_out"] is None else HeldOut(**score["held_out"])
    band = select["typical_log_lds"]
    latents = read_latents(run, "train")
    ranked_by = select["ranked_by"]
    scores = read_scores(run, latents, ranked_by, config.seed)
    vae = load_vae(run.folder("train/vae.safetensors"))
    tuned = load_vae(run.folder("finetune/vae.safetensors")) if run.entry("finetune") is not None else None
    domain, n_shown = domain_of(config), config.report.samples
    exact = CODECS.get(config.vae.kind).exact
    return ReportData(
        name=run.root.name,
        version=ldsaug_ray.__version__,
        config=without_passwords(config.dump()),
        stages=tuple(_stage(name, run.entry(name), domain) for name in STAGES if name != "report"),
        n_train=prepared["train_images"],
        n_test=prepared["test_images"],
        quarantine=read_quarantine(run),
        scores=scores,
        threshold=Threshold(
            select["which"],
            sentence_of(select),
            ranked_by,
            select["threshold_log_lds"],
            select["rules"],
            select["binding_rule"],
            select["rows_out"],
            select["auto_log_lds"],
            None if band is None else (band["least"], band["most"]),
        ),
        bandwidth=_bandwidth(score, latents),
        estimate=Estimate(score["index"], score["interval_width"]) if "index" in score else None,
        held_out=held_out,
        regime=regime_of(latents, scores, config.score.interpolation, noise, held_out),
        bands=_bands(config, run, latents, scores, vae, noise),
        picks=_picks(config, run, latents, vae, ranked_by, noise),
        parents=read_parents(run, latents),
        reconstructions=None
        if exact
        else _reconstructions(config, run, vae, tuned, min(n_shown, RECONSTRUCTIONS_SHOWN)),
        prior_samples=None if exact else _prior_samples(config, run, latents, vae, tuned),
        sharpness=read_sharpness(run, config) if "sharpness" in domain.qualities else None,
        curves=tuple(_curve(run, name) for name in ("train", "finetune") if run.entry(name) is not None),
        evaluation=read_evaluation(run, domain, n_shown),
        modes=tuple(select.get("modes_sentences", ())),
        selected_csv=selected_csv(run),
        explorer=explorer_of(config, latents, scores, run, vae, noise, score["sigma"]),
        beside=_beside(config, run),
    )


def _stage(name: str, entry: Mapping[str, Any] | None, domain: Domain) -> StageRow:
    stage = STAGES[name]
    does, unit = domain.prepares if name == "prepare" else domain.words(stage.does), domain.words(stage.unit)
    if entry is None:
        return StageRow(name, does, unit)
    step, rows = entry.get("resumed_from_step", 0), entry.get("rows_resumed", 0)
    return StageRow(
        name,
        does,
        unit,
        entry["rows_in"],
        entry["rows_out"],
        entry["rows_dropped"],
        entry["rows_quarantined"],
        entry["seconds"],
        entry["rows_per_second"],
        f"from step {step:,}" if step else f"{rows:,} were done" if rows else "",
        entry["digest"],
    )


def _bandwidth(score: Mapping[str, Any], latents: Latents) -> Bandwidth:
    norms = np.sqrt(np.einsum("nd,nd->n", latents.z, latents.z, dtype=np.float64))
    n, d = latents.z.shape
    return Bandwidth(score["sigma"], sigma_sentence(score), float(norms.mean()), n, d)


def _bands(
    config: Config, run: RunDir, latents: Latents, scores: Scores, vae: Codec, noise: Noise | None
) -> tuple[Band, ...]:
    """Equal shares of the candidates by rank of log LDS; members are drawn at random, then sorted by density."""
    order = np.lexsort((scores.candidate, -scores.log_lds))
    samples, found = config.report.samples, []
    for number, rows in enumerate(np.array_split(order, config.report.bands), start=1):
        if not len(rows):
            continue  # fewer candidates than bands
        drawn = np.random.default_rng([config.seed, number]).choice(len(rows), min(samples, len(rows)), replace=False)
        members = rows[np.sort(drawn)]
        z = interpolate(
            latents.z,
            scores.parent_i[members],
            scores.parent_j[members],
            scores.alpha[members],
            config.score.interpolation,
            noise,
            scores.candidate[members],
        )
        found.append(
            Band(
                number,
                float(scores.log_lds[rows[-1]]),
                float(scores.log_lds[rows[0]]),
                len(rows),
                int(scores.selected[rows].sum()),
                float(np.median(scores.parent_share[rows])),
                tuple(_shown(latents, scores, members)),
                _decoded(config, run, vae, z),
            )
        )
    return tuple(found)


def _shown(latents: Latents, scores: Scores, rows: NDArray[np.int64]) -> list[Shown]:
    i, j = (take_text(latents.keys, column[rows]) for column in (scores.parent_i, scores.parent_j))
    numbers = (scores.alpha, scores.log_lds, scores.parent_share, scores.effective_neighbours)
    columns = (scores.candidate[rows].tolist(), i, j, *(c[rows].tolist() for c in numbers))
    return [Shown(*values) for values in zip(*columns, strict=True)]


def _picks(
    config: Config, run: RunDir, latents: Latents, vae: Codec, ranked_by: str, noise: Noise | None
) -> tuple[Pick, ...]:
    """Selected candidates, evenly spread over their ranking, from the densest to the threshold."""
    table = read_ranked(run, ranked_by, config.report.samples, config.seed)
    if table is None:
        return ()
    z = latents.between(table, config.score.interpolation, noise)
    decoded = _decoded(config, run, vae, z)
    parents = find_tiles(run, domain_of(config), table["parent_i"].to_pylist() + table["parent_j"].to_pylist())
    picks = []
    for row, picture in zip(table.to_pylist(), decoded, strict=True):
        rank = row.pop("rank")
        del row["log_lds_excluding_parents"]
        triple = in_a_row([parents[row["parent_i"]], picture, parents[row["parent_j"]]])
        picks.append(Pick(Shown(**row), rank, triple))
    return tuple(picks)


def _decoded(config: Config, run: RunDir, vae: Codec, z: NDArray[np.float32]) -> Tiles:
    return shown(domain_of(config), decode_batch(vae, z, _BATCH), facts_of(run.root))


def _reconstructions(config: Config, run: RunDir, vae: Codec, tuned: Codec | None, n: int) -> Reconstructions:
    domain, facts = domain_of(config), facts_of(run.root)
    split, items = first_items(run, domain, n)
    models = [vae] if tuned is None else [vae, tuned]
    made = [decode_batch(model, encode_batch(model, items, _BATCH), _BATCH) for model in models]
    average = None
    if (pixels := domain.pixels(items)) is None:
        errors = [model.held_out_error(items, config.train.objective) for model in models]
    else:
        errors = [_error(batch, pixels) for batch in made]
        average = _error(np.broadcast_to(pixels.mean(axis=0, dtype=np.float64), pixels.shape), pixels)
    tiles = [shown(domain, batch, facts) for batch in (items, *made)]
    return Reconstructions(
        split=split,
        originals=tiles[0],
        before=tiles[1],
        after=None if tuned is None else tiles[2],
        error_before=errors[0],
        error_after=None if tuned is None else errors[1],
        error_of_mean=average,
    )


def _prior_samples(config: Config, run: RunDir, latents: Latents, vae: Codec, tuned: Codec | None) -> PriorSamples:
    z = Normal(latents.z.shape[1]).sample(0, config.report.samples, config.seed)
    after = None if tuned is None else _decoded(config, run, tuned, z)
    return PriorSamples(_decoded(config, run, vae, z), after)


def _beside(config: Config, run: RunDir) -> tuple[str, ...]:
    """What the domain says of A beside real items, up to `BESIDE` of each; nothing where there is no A."""
    domain, entry = domain_of(config), run.entry("decode")
    if entry is None or not entry["rows_out"]:
        return ()
    made: list[Array] = []
    for file in run.folder("augmented").files(".parquet"):
        if (missing := BESIDE - sum(map(len, made))) > 0:
            batch = domain.unpack(file.read_table([domain.column]))
            made.append(batch[evenly(len(batch), missing)])
    real = first_items(run, domain, BESIDE, ("train",))[1]
    return tuple(domain.beside(real, np.concatenate(made), facts_of(run.root)))


def read_sharpness(run: RunDir, config: Config) -> Sharpness | None:
    """Sharpness of A as decode noted it, and that of up to `REAL_IMAGES` real images; None where there is no A."""
    entry, domain = run.entry("decode"), domain_of(config)
    if entry is None or not entry["rows_out"]:
        return None
    parts = [f.read_table(["sharpness"])["sharpness"].to_numpy() for f in run.folder("augmented").files(".parquet")]
    split, items = first_items(run, domain, REAL_IMAGES)
    real, made = domain.quality(items)["sharpness"], np.concatenate(parts)
    least = entry.get("least_sharpness")
    return Sharpness(split, len(real), _quartiles(real), len(made), _quartiles(made), entry["rows_in"], least)


def _quartiles(values: NDArray[np.float64]) -> tuple[float, float, float]:
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
    return low, median, high


def _error(a: NDArray[Any], b: NDArray[np.uint8]) -> float:
    return float(np.square((a.astype(np.float64) - b) / 255).mean())


def _curve(run: RunDir, stage: str) -> Curve:
    return Curve(stage, tuple(run.folder(f"{stage}/curve.json").read_json()))
