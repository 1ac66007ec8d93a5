"""The stages of a run: their order, what each needs and writes, and when its result still counts.

A stage's fingerprint covers the settings that change its result and the digests of what it reads. A stage is complete
when the manifest has an entry with the same fingerprint; settings that only change how the work is done (workers,
checkpoint intervals, tiles) do not count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ldsaug_ray.common.digest import fingerprint
from ldsaug_ray.config import Config, counted

FORMAT = 1  # raised when a stage's files change meaning, so that old run directories are recomputed


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline."""

    name: str
    does: str
    needs: tuple[str, ...]
    writes: tuple[str, ...]  # folders of the run directory, deleted when the stage is recomputed
    sections: tuple[str, ...]  # of the settings, which change the result but for fields marked otherwise
    unit: str = "rows"
    uses: tuple[str, ...] = ()  # read where they are complete, not needed
    also: Callable[[Config], Mapping[str, Any]] = lambda config: {}  # of other sections

    def fingerprint(self, config: Config, digests: Mapping[str, str], inputs: str = "", *, later: bool = True) -> str:
        """Identity of the stage's result.

        Args:
            config: the whole tree.
            digests: content digest of every stage in `needs`, and of those in `uses` that are complete.
            inputs: identity of anything outside the run directory (the image source).
            later: with settings that count since a later version than the first; else as it was before.
        """
        tree = counted(config, later=later)
        settings = {**{name: tree[name] for name in self.sections}, **self.also(config)}
        return fingerprint(
            [FORMAT, self.name, settings, {n: digests[n] for n in (*self.needs, *self.uses) if n in digests}, inputs]
        )


def identity(config: Config) -> str:
    """Identity of what a whole run gives: settings that only change how, or where it is written, do not count."""
    return fingerprint([FORMAT, counted(config)])


def _select_settings(config: Config) -> Mapping[str, Any]:
    return config.select.rule.counts(config)


def _decode_settings(config: Config) -> Mapping[str, Any]:
    return {"which": config.select.which} if config.select.rule.sharpest else {}


def _sample_settings(config: Config) -> Mapping[str, Any]:
    """Settings that count by their names; model, seed and whether A is used count by what they come to."""
    sample = config.sample.model_dump(mode="json")
    names = ("n", "prior", "format", "batch_size", "part_rows", *config.sample.source.settings)
    return {"sample": {name: sample[name] for name in names}}


def _evaluate_settings(config: Config) -> Mapping[str, Any]:
    drawn = {name: value for name, value in _sample_settings(config)["sample"].items() if name not in ("n", "format")}
    seeds = [config.seed, config.sample.seed, config.sample.with_augmented]
    return {"sample": drawn, "seeds": seeds}


STAGES: dict[str, Stage] = {
    s.name: s
    for s in (
        Stage(
            "prepare",
            "read, check, crop and resize the images; split them into train and test",
            (),
            ("images", "quarantine/prepare"),
            ("data", "seed"),
            "images",
        ),
        Stage("train", "train the VAE", ("prepare",), ("train",), ("vae", "train", "seed"), "images"),
        Stage(
            "encode",
            "images to latents (posterior means)",
            ("prepare", "train"),
            ("latents", "quarantine/encode"),
            ("encode",),
            "images",
        ),
        Stage(
            "score",
            "Latent Density Score of every candidate",
            ("encode",),
            ("scores", "held_out"),
            ("score", "seed"),
            "candidates",
        ),
        Stage(
            "select",
            "keep the dense candidates",
            ("score",),
            ("selected",),
            ("select",),
            "candidates",
            also=_select_settings,
        ),
        Stage(
            "decode",
            "selected latents to images",
            ("train", "encode", "select"),
            ("augmented", "decoded"),
            ("decode",),
            "images",
            also=_decode_settings,
        ),
        Stage(
            "finetune",
            "train further on train + A",
            ("prepare", "train", "decode"),
            ("finetune",),
            ("finetune", "seed"),
            "images",
        ),
        Stage(
            "evaluate",
            "FID, density, coverage, copies, balance of generated images",
            ("prepare", "train"),
            ("evaluate",),
            ("evaluate",),
            "images",
            ("encode", "decode", "finetune"),
            _evaluate_settings,
        ),
        Stage(
            "report",
            "the page that shows what was selected",
            ("prepare", "train", "encode", "score", "select", "decode"),
            ("report",),
            ("report",),
            "pages",
            ("finetune", "evaluate"),
        ),
    )
}


# No stage of a run: it writes to a folder of its own, and its settings say which stages it reads
SAMPLE = Stage("sample", "draw images from a model", (), ("images",), (), "images", also=_sample_settings)
# What `evaluate` keeps of each set of images, below `features/`
FEATURES = Stage("features", "features of stored images", (), ("parts",), (), "images")
COMMANDS = {**STAGES, "sample": SAMPLE}
KEPT = {**COMMANDS, "features": FEATURES}  # what may stand in a manifest


def downstream(name: str) -> list[str]:
    """Stages that read, directly or not, what `name` writes, in order."""
    found = {name}
    for stage in STAGES.values():
        if found & {*stage.needs, *stage.uses}:
            found.add(stage.name)
    return [s for s in STAGES if s in found and s != name]
