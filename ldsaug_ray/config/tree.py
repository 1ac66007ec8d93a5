"""The settings tree: every knob of a run, frozen, validated, documented.

A field's description is its help text (`ldsaug settings` prints them all). Defaults are the paper's values where
the paper gives one. The resolved tree is saved as `config.yaml` in the run directory.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from ldsaug_ray.config.base import Section, how
from ldsaug_ray.config.cluster import Ray
from ldsaug_ray.config.data import Data
from ldsaug_ray.config.decode import Decode
from ldsaug_ray.config.encode import Encode
from ldsaug_ray.config.evaluate import Evaluate
from ldsaug_ray.config.experiment import Experiment
from ldsaug_ray.config.finetune import Finetune
from ldsaug_ray.config.frontier import Frontier
from ldsaug_ray.config.report import Report
from ldsaug_ray.config.sample import Sampling
from ldsaug_ray.config.score import Score
from ldsaug_ray.config.select import Select
from ldsaug_ray.config.tracking import Tracking
from ldsaug_ray.config.train import Optimisation, Train
from ldsaug_ray.config.tune import Tune
from ldsaug_ray.config.vae import Vae


class Config(Section):
    """One run, whole."""

    run_dir: str = how(
        min_length=1, description="where everything is written: a local path or any URI pyarrow or fsspec opens"
    )
    seed: int = Field(0, ge=0, lt=2**32, description="seed of split, candidates, weights, batches")
    engine: Literal["ray", "inline"] = how(
        "ray",
        description="where work is done: ray, on the cluster of RAY_ADDRESS or a local Ray; inline, in this process, "
        "one thing after another. The results are the same",
    )
    ray: Ray = how(Ray())
    data: Data
    vae: Vae = Vae()
    train: Train = Train()
    encode: Encode = Encode()
    score: Score = Score()
    select: Select = Select()
    decode: Decode = Decode()
    finetune: Finetune = Finetune()
    evaluate: Evaluate = Evaluate()
    report: Report = Report()
    sample: Sampling = how(Sampling())
    frontier: Frontier = how(Frontier())
    tracking: Tracking = how(Tracking())
    experiment: Experiment = how(Experiment())
    tune: Tune = how(Tune())

    @model_validator(mode="before")
    @classmethod
    def _nothing_to_train(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        vae, train = given.get("vae"), given.get("train", {})
        kind = vae.kind if isinstance(vae, Vae) else vae.get("kind") if isinstance(vae, dict) else None
        if kind in (None, "stylegan2") or not isinstance(train, dict) or "steps" in train:
            return given
        return {**given, "train": {"steps": 0, **train}}

    @model_validator(mode="after")
    def _something_to_train(self) -> Config:
        if not self.train.steps and not self.vae.is_pretrained:
            raise ValueError(
                "train.steps: 0 is for autoencoders that are trained already (vae.kind: diffusers or torchscript); "
                "with vae.kind: stylegan2 give at least 1"
            )
        return self

    @model_validator(mode="after")
    def _one_rank(self) -> Config:
        for name in ("train", "finetune") if self.engine == "inline" else ():
            section: Optimisation = getattr(self, name)
            if section.steps and section.workers.count not in ("auto", 1):
                raise ValueError(
                    f"{name}.workers.count = {section.workers.count}: engine: inline trains with one worker, and "
                    "several give another result: each draws noise of its own; set it to 1 or auto, or engine: ray"
                )
        return self

    @model_validator(mode="after")
    def _held_out(self) -> Config:
        if self.select.needs_held_out and not self.data.test:
            bands = self.select.tau == "auto" or self.select.typical is not None
            who = "tau: auto and select.typical compare" if bands else f"which: {self.select.which} compares"
            raise ValueError(f"select.{who} with held-out images; set data.test above 0")
        for name in ("train", "finetune"):
            if getattr(self, name).best_by == "held_out_reconstruction" and not self.data.test:
                raise ValueError(f"{name}.best_by: held_out_reconstruction needs test images; set data.test above 0")
        return self

    @model_validator(mode="after")
    def _labelled(self) -> Config:
        if self.select.balance.startswith("label:") and self.data.attributes is None:
            raise ValueError(f"select.balance: {self.select.balance} needs labelled images; set data.attributes")
        return self

    @model_validator(mode="after")
    def _measurable(self) -> Config:
        given = self.evaluate
        if given.extractor is None:
            return self
        if not self.data.test:
            raise ValueError("evaluate.extractor compares with held-out images; set data.test above 0, or it to null")
        for name, asked in (("attributes", given.attributes), ("downstream.label", given.downstream.label)):
            if asked and self.data.attributes is None:
                raise ValueError(f"evaluate.{name} needs labelled images; set data.attributes")
        if isinstance(self.data.test, int) and self.data.test <= given.k:
            raise ValueError(f"data.test = {self.data.test} images have no {given.k} neighbours (evaluate.k)")
        if given.n <= given.k:
            raise ValueError(f"evaluate.n = {given.n} images have no {given.k} neighbours (evaluate.k)")
        return self

    @model_validator(mode="after")
    def _some_a(self) -> Config:
        if self.sample.with_augmented is True:
            if not self.select.rule.keeps:
                raise ValueError(
                    f"sample.with_augmented: true asks for A, but select.which: {self.select.which} keeps nothing"
                )
            if (source := self.sample.source).reads == "nothing":
                raise ValueError(
                    "sample.with_augmented: true goes with sample.prior: mixture or kde; "
                    f"{source.title or self.sample.prior} is fixed"
                )
        return self

    def dump(self) -> dict[str, Any]:
        """The resolved tree as plain JSON/YAML types."""
        return self.model_dump(mode="json")
