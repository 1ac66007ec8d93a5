"""`ldsaug frontier`: A by several rules, and samplers, against noise about training latents, at equal authenticity.

Each is a sample of latents that the baseline decodes; its features are kept below `features/` and computed again only
for other latents, weights or extractors. No training is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from ldsaug_ray.common.columns import vectors
from ldsaug_ray.common.digest import fingerprint, table_digest
from ldsaug_ray.config import Config, Sampling, Select, counted
from ldsaug_ray.config.frontier import slug
from ldsaug_ray.domains import domain_of
from ldsaug_ray.errors import ConfigError, ImpossibleError
from ldsaug_ray.run.directory import Counts, RunDir, UnitResult
from ldsaug_ray.run.latents import Latents, read_latents
from ldsaug_ray.run.pipeline import Stage, declare
from ldsaug_ray.selection.balance import cells
from ldsaug_ray.stages.evaluate import label_array, real_images
from ldsaug_ray.stages.select import among, choose, read_columns
from ldsaug_ray.stages.shared.ahead import check_ahead
from ldsaug_ray.stages.shared.features import ImageSet, features_of, opened
from ldsaug_ray.stages.shared.job import Job
from ldsaug_ray.stages.shared.outcome import Outcome
from ldsaug_ray.stages.shared.prior import kept_prior
from ldsaug_ray.stages.shared.ranked import ensure_ranked

RECONSTRUCTIONS, OWN = "reconstructions", "A"
RULES: dict[str, dict[str, Any]] = {"random": {"which": "random"}, "balanced": {"which": "lds", "balance": "parent"}}
SHARE = {"tau": None, "typical": None, "top_fraction": 0.2}  # of balanced, where the run has no share or count
SAMPLERS: dict[str, dict[str, Any]] = {
    "N(0, I)": {"prior": "normal"},
    "interpolants": {"prior": "interpolants", "candidates": {"plan": "random"}},  # whatever sample.candidates says
    "neighbours": {"prior": "interpolants", "candidates": {"plan": "neighbours"}},
    "LDS of noise": {"prior": "lds", "candidates": {"plan": "single"}},
}
MOST = 20_000  # reconstructions that authenticity is measured against

_SECTIONS = ("evaluate", "frontier", "sample", "select")

STAGE = declare(
    Stage(
        name="frontier",
        does="rules and samplers at equal authenticity",
        unit="images",
        needs=("prepare", "train", "encode", "score"),
        writes=("latents",),
        sections=("seed",),
        also=lambda config: {name: counted(getattr(config, name)) for name in _SECTIONS},
        role="command",
    )
)


def compared(config: Config) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Rules and samplers by name: the settings that differ. The user's replace ours of the same name."""
    select = config.select
    own: dict[str, dict[str, Any]] = {OWN: {}} if select.rule.keeps else {}
    rules = dict(RULES)
    if select.top_fraction is None and select.top_count is None:
        rules["balanced"] = {**SHARE, **rules["balanced"]}
    return {**own, **rules, **config.frontier.rules}, {**SAMPLERS, **config.frontier.samplers}


def check(config: Config, run: RunDir) -> None:
    """Raises what `run` would of the settings of rules and samplers, before anything is drawn."""
    prepared = run.entry("prepare") or {}
    rules, samplers = compared(config)
    for name, given in samplers.items():
        _merged(Sampling, config.sample, given, f"frontier.samplers: {name}")
    for name, given in rules.items():
        with_rule = config.model_copy(update={"select": _select_of(config, name, given)})
        check_ahead(with_rule, int(prepared["train_images"]), prepared.get("attributes", ()), domain_of(config).unit)


def run(job: Job, done: Mapping[int, UnitResult]) -> Outcome:
    """Draw, decode, measure; leaves `frontier/frontier.json`.

    Raises:
        ConfigError: no extractor is set, or settings of a rule or sampler are impossible.
        ImpossibleError: too few test images; a rule keeps nothing.
        InputError: a sampler cannot be fitted.
    """
    from ldsaug_ray.metrics import Sample as Images
    from ldsaug_ray.stages.shared.gains import authenticity_by, gains, point_of

    config, latents = job.config, read_latents(job.run, "train")
    settings, extractor = config.frontier, opened(config)
    curve = {f"noise {share:g}": _noise(share) for share in settings.noise}
    rules, samplers = compared(config)
    drawn = {**curve, **samplers}
    sets = {name: _drawn(job, name, given, latents) for name, given in drawn.items()}
    sets |= {name: _of_rule(job, name, given, latents) for name, given in rules.items()}
    test, train = (real_images(job, split) for split in ("test", "train"))
    stored = {RECONSTRUCTIONS: reconstructed(job, latents)}
    stored |= {name: _stored(job, name, z) for name, z in sets.items()}
    features = features_of(job, [checked(test, config), train, *stored.values()], extractor.fingerprint)
    of = {name: features[images.name].usable(job.domain) for name, images in stored.items()}
    for name, measured in of.items():
        if len(measured) <= config.evaluate.k:
            raise ImpossibleError(
                f"{name}: {len(measured)} of {len(stored[name])} {job.domain.unit} that the baseline decodes can be "
                f"measured; evaluate.k = {config.evaluate.k} needs more: train it longer"
            )
    real, own = features["test"].features, features["train"].features
    modes = {"clusters": _clusters(config, latents, {RECONSTRUCTIONS: _some(latents, config), **sets})}
    for name in sorted(latents.categorical & {*config.evaluate.attributes}):
        labels = {images.name: label_array(images, name) for images in (test, train)}
        modes[f"values of {name}"] = _classes(name, {"test": real, "train": own}, labels, of)
    points = {}
    for number, name in enumerate(stored):
        sample = Images(of[name][: settings.n], real, own, k=config.evaluate.k, seed=config.seed)
        points[name] = point_of(name, sample, of[RECONSTRUCTIONS], config.seed + 1 + number)
    along = [points[RECONSTRUCTIONS], *(points[name] for name in curve)]
    by = authenticity_by(along)
    rows = []
    for name, point in points.items():
        kind = "curve" if point in along else "sampler" if name in samplers else "rule"
        found = {} if kind == "curve" else gains(point, along, by)
        rows.append(
            {
                "name": name,
                "kind": kind,
                "n": min(settings.n, len(of[name])),
                **point.values,
                "modes": {mode: found_in[name] for mode, found_in in modes.items() if found_in},
                "gains": {m: gain and asdict(gain) for m, gain in found.items()},
            }
        )
    result = {
        "authenticity_by": by,
        "extractor": str(config.evaluate.extractor),
        "k": config.evaluate.k,
        "points": rows,
    }
    (job.run.folder("frontier") / "frontier.json").write_json(result)
    n = sum(map(len, stored.values()))
    facts = {
        "sentence": sentence_of(result),
        "of": _read(job.run),
        "points": {slug(str(row["name"])): row for row in rows},
    }
    return Outcome(Counts(n, n), fingerprint(result), facts)


def frontier_of(run: RunDir) -> dict[str, Any] | None:
    """What was found of the run's latents and scores as they are now; None where that was not looked at."""
    folder = RunDir(run.folder("frontier"))
    entry = folder.entry("frontier")
    if entry is None or entry.get("of") != _read(run):
        return None
    return dict((folder.root / "frontier.json").read_json())


def _read(run: RunDir) -> dict[str, str | None]:
    return {need: (run.entry(need) or {}).get("digest") for need in STAGE.needs}


def checked(test: ImageSet, config: Config) -> ImageSet:
    """The test images. Raises ImpossibleError where they are too few to be compared with."""
    if len(test) <= config.evaluate.k:
        unit = domain_of(config).unit
        raise ImpossibleError(f"evaluate.k = {config.evaluate.k} needs more than the {len(test)} test {unit}")
    return test


def sentence_of(result: Mapping[str, Any]) -> str:
    """What stands out, in a sentence."""
    gained = [(row["gains"]["frechet"], row["name"]) for row in result["points"] if row["gains"].get("frechet")]
    better = sorted(((g["gain"], g["low"], name) for g, name in gained if g["low"] > 0), reverse=True)
    if not better:
        return "nothing has a lower Fréchet distance than noise about training latents of the same authenticity"
    gain, _, name = better[0]
    return f"{name} has {gain:.0%} less Fréchet distance than noise about training latents of the same authenticity"


def _noise(share: float) -> dict[str, Any]:
    return {"prior": "interpolants", "candidates": {"plan": "single", "noise": share}}


def reconstructed(job: Job, latents: Latents) -> ImageSet:
    """Training images encoded and decoded again, `MOST` of them."""
    return _stored(job, RECONSTRUCTIONS, _some(latents, job.config))


def _some(latents: Latents, config: Config) -> np.ndarray:
    return np.asarray(latents.z[np.random.default_rng([config.seed, 3]).permutation(len(latents))[:MOST]])


def _drawn(job: Job, name: str, given: Mapping[str, Any], latents: Latents) -> np.ndarray:
    """Latents that a prior draws."""
    settings = _merged(Sampling, job.config.sample, given, f"frontier.samplers: {name}")
    folder, seed, dim = job.run.folder(f"frontier/latents/{slug(name)}"), job.config.seed, latents.z.shape[1]
    draws, _ = kept_prior(folder, settings.prior, settings, seed, dim, lambda: (latents.z, {}), job.console)
    return draws.sample(0, job.config.frontier.n, seed)


def _of_rule(job: Job, name: str, given: Mapping[str, Any], latents: Latents) -> np.ndarray:
    """Latents of some candidates that a rule keeps of the scores at hand."""
    from ldsaug_ray.lds import Noise
    from ldsaug_ray.selection.best import id_hash

    config: Config = job.config.model_copy(update={"select": _select_of(job.config, name, given)})
    ensure_ranked(replace(job, config=config))
    read = partial(read_columns, job.run.folder("scores").files(".parquet"))
    ids = choose(config, job.run, read, lambda: latents).ids
    ids = np.sort(ids[np.argsort(id_hash(ids), kind="stable")[: job.config.frontier.n]])
    kept = pa.concat_tables(
        table.filter(pa.array(among(ids, table["candidate"].to_numpy())))
        for table in read(["candidate", "parent_i", "parent_j", "alpha"])
    ).sort_by("candidate")
    return latents.between(kept, config.score.interpolation, Noise.kept(job.run.require("score"), config.seed))


def _select_of(config: Config, name: str, given: Mapping[str, Any]) -> Select:
    select: Select = _merged(Select, config.select, given, f"frontier.rules: {name}")
    if not select.rule.keeps:
        raise ConfigError(f"frontier.rules: {name}: which: {select.which} keeps nothing")
    return select


def _merged(section: Any, base: Any, given: Mapping[str, Any], where: str) -> Any:
    from pydantic import ValidationError

    try:
        return section.model_validate({**base.model_dump(exclude_unset=True), **given})
    except ValidationError as e:
        first = e.errors()[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] != "extra_forbidden" or len(first["loc"]) > 1:
            raise ConfigError(f"{where}: {name}: {first['msg'].removeprefix('Value error, ')}") from None
        scored = " (rules go by the scores at hand, of one sigma)" if "sigma" in name and section is Select else ""
        possible = ", ".join(section.model_fields)
        raise ConfigError(f"{where}: {name} is unknown{scored}; possible: {possible}") from None


def _clusters(config: Config, latents: Latents, sets: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Effective k-means cells of the training latents that each set's are nearest to."""
    from ldsaug_ray.metrics.classes import effective_classes
    from ldsaug_ray.metrics.nearest import nearest_neighbours
    from ldsaug_ray.stages.shared.modes import FITTED, LEAST

    k = min(config.select.clusters, len(latents) // LEAST)
    if k < 2:
        return {}
    of = cells(latents.z, k, config.seed, FITTED)
    near = {name: of[nearest_neighbours(latents.z, z, 1)[0][:, 0]] for name, z in sets.items()}
    return {name: effective_classes(np.bincount(found) / len(found)) for name, found in near.items()}


def _classes(
    label: str, real: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray], of: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Effective values of a label in each set, by a probe on features."""
    from ldsaug_ray.metrics.classes import class_attribute

    shares = class_attribute(label, {**real, **{f"made: {name}": found for name, found in of.items()}}, labels).shares
    return {name: float(shares[f"made: {name}"].more["effective_classes"]) for name in of}


def _stored(job: Job, name: str, z: np.ndarray) -> ImageSet:
    """The latents as parts that the extractor's workers decode."""
    rows, root = job.config.decode.part_rows, job.run.folder(f"frontier/latents/{slug(name)}")
    parts, digests = [], []
    for number, start in enumerate(range(0, len(z), rows)):
        some = z[start : start + rows]
        table = pa.table({"key": [f"z{n:09d}" for n in range(start, start + len(some))], "z": vectors(some)})
        (root / f"part-{number:06d}.parquet").write_table(table)
        parts.append((f"part-{number:06d}.parquet", len(some)))
        digests.append(table_digest(table))
    weights = job.run.folder("train/vae.safetensors")
    digest = fingerprint([digests, job.run.require("train", "digest")])
    return ImageSet(f"frontier-{slug(name)}", root, parts, digest, weights)
