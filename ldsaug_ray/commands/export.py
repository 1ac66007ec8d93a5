"""`ldsaug export RUN --out DIR`: A and the model as folders that can be published on the Hugging Face Hub as they are.

    DIR/dataset/    data/train-*.parquet, README.md                 datasets.load_dataset("DIR/dataset")
    DIR/model/      model.safetensors, config.json, README.md       ldsaug_ray.models.load_vae(Location.of("DIR/model"))

The run stays as it is. A card (README.md, with the metadata that the Hub reads) is written last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from ldsaug_ray import __version__
from ldsaug_ray.common.secrets import without_passwords
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config, load_config
from ldsaug_ray.domains import Domain, domain_of
from ldsaug_ray.errors import InputError, MissingStageError, StorageError
from ldsaug_ray.report._evaluation import TITLES, read_evaluation
from ldsaug_ray.run.directory import RunDir
from ldsaug_ray.stages.shared.runner import require_current

MARK = "ldsaug_ray"  # among a card's tags: a folder without it is not ours to replace
SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)  # of the Hub's size_categories
COLUMNS = {
    "key": "name of the image",
    "z": "its latent",
    "candidate": "number of the interpolant among all that were scored",
    "parent_i": "key of the training image that α = 0 would give",
    "parent_j": "key of the training image that α = 1 would give",
    "alpha": "where between the two it lies",
    "log_lds": "natural logarithm of its Latent Density Score",
}


def export_command(place: str, out: str, *, overwrite: bool = False) -> int:
    """Write the folders; prints where they are. Returns the exit code.

    Raises:
        InputError: `place` is no run directory.
        MissingStageError: it has neither A nor a model, or was made with other settings than it holds now.
        StorageError: a folder cannot be written, or is there already (`overwrite` replaces those of this command).
    """
    run = RunDir(Location.of(place))
    if run.saved_config() is None:
        raise InputError(f"{place}: no run directory (it has no config.yaml); it is the setting run_dir of a run")
    config = load_config(run.folder("config.yaml").uri)
    done = [s for s in ("train", "decode", "finetune", "evaluate", "report") if run.entry(s) is not None]
    model = "finetune" if "finetune" in done else "train"
    if model not in done:
        raise MissingStageError(f"{place}: nothing to export yet; run `ldsaug run` first")
    require_current(config, run, done)
    root = Location.of(out)
    parts = run.folder("augmented").files(".parquet") if "decode" in done else []
    before = [root / name for name in ("dataset", "model") if (root / name).names()]
    for folder in before:
        _check_ours(folder, overwrite)
    for folder in before:
        folder.delete()
    if parts:
        for n, part in enumerate(parts):
            (root / f"dataset/data/train-{n:05d}-of-{len(parts):05d}.parquet").write_bytes(part.read_bytes())
        _write(root / "dataset/README.md", _dataset_card(run, config))
        print(f"dataset  {(root / 'dataset').shown}  {run.require('decode', 'rows_out'):,} {domain_of(config).unit}")
    else:
        print(f"dataset  none: no {domain_of(config).item} was selected and decoded")
    _write_model(root / "model", run, config, model)
    print(f"model    {(root / 'model').shown}  {_TITLES[model]}")
    print("Paths of this machine may stand in the settings of both cards: read them before you publish them.")
    return 0


_TITLES = {"train": "the baseline", "finetune": "the fine-tuned VAE"}


def columns_of(domain: Domain) -> dict[str, str]:
    """Columns of the dataset, and what is in each."""
    key, others = {"key": COLUMNS["key"]}, {name: text for name, text in COLUMNS.items() if name != "key"}
    columns = {
        **key,
        domain.column: domain.exported,
        **others,
        **{name: f"{name} of the image" for name in domain.qualities},
    }
    return {name: domain.words(text) for name, text in columns.items()}


def _check_ours(folder: Location, overwrite: bool) -> None:
    card = folder / "README.md"
    if not overwrite:
        raise StorageError(f"{folder.uri}: is there already; choose another --out, or pass --overwrite to replace it")
    if not card.exists() or MARK not in card.read_text():
        raise StorageError(f"{folder.uri}: holds files that export did not write; choose another --out")


def _write_model(folder: Location, run: RunDir, config: Config, stage: str) -> None:
    from ldsaug_ray.models import load_vae

    weights = run.folder(f"{stage}/vae.safetensors")
    codec, unit = load_vae(weights), domain_of(config).unit
    dimension, batch = codec.latent_dim, codec.blank(0)
    sides = "".join(f", {n}" for n in batch.shape[1:])
    (folder / "model.safetensors").write_bytes(weights.read_bytes())
    (folder / "config.json").write_json(
        {
            "library": MARK,
            "library_version": __version__,
            **codec.given,
            "latent_dim": dimension,
            "vae": without_passwords(config.vae.model_dump(mode="json")),
        }
    )
    facts = {
        "model": f"{_TITLES[stage]}, {config.vae.kind}",
        unit: f"{batch.dtype}[N{sides}]",
        "latents": f"{dimension:,} dimensions",
        f"training {domain_of(config).unit}": f"{run.require('prepare', 'train_images'):,}",
        "steps": " + ".join(f"{getattr(config, s).steps:,}" for s in dict.fromkeys(("train", stage))),
    }
    code = f"""\
from ldsaug_ray.common.storage import Location
from ldsaug_ray.models import decode_batch, load_vae

vae = load_vae(Location.of("{folder.name}"))  # or encode_batch(vae, {unit}, batch_size) for latents
{unit} = decode_batch(vae, z, batch_size=64)  # float32[N, {dimension}] to {batch.dtype}[N{sides}]"""
    metadata = {
        "library_name": MARK,
        **({"pipeline_tag": domain_of(config).task} if domain_of(config).task else {}),
        "tags": [MARK, "vae", "latent-density"],
    }
    _write(folder / "README.md", _card(run, config, metadata, f"VAE of {run.root.name}", facts, stage, code))


def _dataset_card(run: RunDir, config: Config) -> str:
    entry = run.require("decode")
    n = entry["rows_out"]
    upper = next((size for size in SIZES if n < size), None)
    lower = max((size for size in SIZES if size <= n), default=0)
    sizes = f"{_short(lower)}<n<{_short(upper)}" if lower and upper else f"n<{_short(upper)}" if upper else "n>10M"
    domain = domain_of(config)
    facts = {
        domain.unit: f"{n:,}, {domain.exported}",
        "candidates": f"{run.require('score', 'rows_out'):,} scored, {run.require('select', 'rows_out'):,} selected",
        f"training {domain_of(config).unit}": f"{run.require('prepare', 'train_images'):,}",
    }
    title = f"Augmentation of {run.root.name}"
    metadata = {
        "pretty_name": title,
        **({"task_categories": [domain.task]} if domain.task else {}),
        "size_categories": [sizes],
        "tags": [MARK, "synthetic", "latent-density"],
        # types stand in the Parquet files, where datasets looks for them
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]}],
    }
    code = f'from datasets import load_dataset\n\n{domain.unit} = load_dataset("dataset", split="train")'
    columns = "\n".join(f"| `{name}` | {what} |" for name, what in columns_of(domain).items())
    text = _card(run, config, metadata, title, facts, "decode", code)
    return text.replace("## Settings", f"## Columns\n\n| column | what |\n| --- | --- |\n{columns}\n\n## Settings")


def _short(n: int | None) -> str:
    assert n is not None
    return f"{n // 1_000_000}M" if n >= 1_000_000 else f"{n // 1000}K"


def _card(
    run: RunDir,
    config: Config,
    metadata: Mapping[str, Any],
    title: str,
    facts: Mapping[str, str],
    stage: str,
    code: str,
) -> str:
    """A README.md: metadata for the Hub, facts, how to open it, what the report found, the measures, the settings."""
    rows = {
        **facts,
        "digest": f"`{run.require(stage, 'digest')}`",
        "made by": f"{MARK} {__version__}, seed {config.seed}",
    }
    findings: Sequence[str] = (run.entry("report") or {}).get("findings", ())
    settings = {k: v for k, v in without_passwords(config.dump()).items() if k != "run_dir"}
    parts = [
        f"---\n{_yaml(metadata)}---\n",
        f"# {title}\n",
        "| | |\n| --- | --- |\n" + "".join(f"| {name} | {value} |\n" for name, value in rows.items()),
        f"```python\n{code}\n```\n",
        "## Findings\n",
        "".join(f"- {sentence}\n" for sentence in findings) or "None are recorded: the run has no report.\n",
        *_measures(run, config),
        f"## Settings\n\n```yaml\n{_yaml(settings)}```\n",
    ]
    return "\n".join(parts)


def _measures(run: RunDir, config: Config) -> list[str]:
    """The evaluation's table, where there is one."""
    found = read_evaluation(run, domain_of(config))
    if found is None:
        return []
    head = f"| measure | {' | '.join(f'{TITLES[s]} (n = {of.n:,})' for s, of in found.sets.items())} |\n"
    rows = []
    for m in found.measures:
        values = [of.value(m.name) for of in found.sets.values()]
        rows.append(f"| {m.title} | {' | '.join('—' if v is None else f'{v:.4g}' for v in values)} |\n")
    extractor = found.found.extractor.name.rpartition("/")[2]
    against = f"Against {found.found.n_test:,} test {domain_of(config).unit}, by features of {extractor}.\n"
    rule = f"| --- |{' ---: |' * len(found.sets)}\n"
    return ["## Measures\n", against, head + rule + "".join(rows)]


def _yaml(tree: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(tree), sort_keys=False, allow_unicode=True, width=100)


def _write(file: Location, text: str) -> None:
    file.write_bytes(text.encode())
