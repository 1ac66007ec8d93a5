"""The settings tree: every knob of a run, frozen, validated, documented.

A field's description is its help text (`ldsaug settings` prints them all). Defaults are the paper's values where
the paper gives one. The resolved tree is saved as `config.yaml` in the run directory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar, Literal

from pydantic import Field, create_model, model_validator

from ldsaug_ray.common.registry import room_of
from ldsaug_ray.config.base import Section, added, how
from ldsaug_ray.config.cluster import Ray
from ldsaug_ray.config.data import Data
from ldsaug_ray.config.decode import Decode
from ldsaug_ray.config.encode import Encode
from ldsaug_ray.config.evaluate import Evaluate, LdsDetection
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
from ldsaug_ray.errors import ConfigError

OWN = "images"  # the domain whose sections the class itself has
_DAMAGES = LdsDetection().corruptions  # of images
_PLAIN = {  # how others than images are trained: setting -> the only value
    **{
        f"{section}.{name}": value
        for section in ("train", "finetune")
        for name, value in (
            ("objective.adversarial.weight", 0),
            ("objective.perceptual.network", None),
            ("horizontal_flip", False),
        )
    },
    "finetune.uses.adversarial": 0,
    "finetune.uses.cycle": 0,
    "finetune.judge": "normal",
}


class Config(Section):
    """One run, whole. Of other domains, and other codecs, than its own, `config_class` makes the class."""

    by_domain: ClassVar[Mapping[str, Any]] = {}  # defaults of other sections that its domain gives
    pictures: ClassVar[bool] = True  # as its domain has it

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
    domain: str = added(
        OWN,
        description="kind of data: images, vectors, molecules, audio, or the dotted path of your own; sections "
        "data and vae follow it",
    )
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
    def _of_the_domain(cls, given: Any) -> Any:
        for name, value in () if cls.pictures else _PLAIN.items():  # before a section asks for a discriminator
            if (found := _at(given, name)) not in (None, value):
                raise ValueError(
                    f"{name} = {found}: only data of domain=images are trained so; set it to {json.dumps(value)}"
                )
        return _with_defaults(given, cls.by_domain)

    @model_validator(mode="after")
    def _sharp(self) -> Config:
        if self.select.rule.sharpest and not type(self).pictures:
            raise ValueError(f"select.which: {self.select.which}: only data of domain=images have a sharpness; set lds")
        return self

    @model_validator(mode="before")
    @classmethod
    def _nothing_to_train(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        vae, train = given.get("vae"), given.get("train", {})
        kind = vae.get("kind") if isinstance(vae, dict) else getattr(vae, "kind", None)
        of: Any = cls.model_fields["vae"].annotation
        if not of.taken_as_it_is(kind) or not isinstance(train, dict) or "steps" in train:
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
        known = type(self).by_domain.get("evaluate", {}).get("detection", {}).get("corruptions", _DAMAGES)
        for name in given.detection.corruptions:
            if name not in known:
                possible = ", ".join(map(repr, known)) or "none"
                raise ValueError(f"evaluate.detection.corruptions: {name!r} is unknown; possible: {possible}")
        if given.extractor is None:
            return self
        try:
            room_of("metrics.extractors").check_extractor(given.extractor, self.domain)
        except ConfigError as e:  # pydantic takes ValueError
            raise ValueError(f"evaluate.extractor: {e}") from None
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
        if self.finetune.judge == "a" and not self.select.rule.keeps:
            raise ValueError(
                f"finetune.judge: a is of A's latents, but select.which: {self.select.which} keeps nothing; name a "
                "prior, such as kde"
            )
        return self

    def dump(self) -> dict[str, Any]:
        """The resolved tree as plain JSON/YAML types."""
        return self.model_dump(mode="json")

    def __reduce__(self) -> Any:
        return _blank, (self.domain, self.vae.kind), self.__getstate__()  # classes of other domains lie in no module


def config_class(domain: str = OWN, kind: str | None = None) -> type[Config]:
    """The tree whose sections `data` and `vae` are those of the domain and of the codec, by custom the domain's own.

    Raises:
        ConfigError: an unknown domain or codec, or one that is not of the domain.
    """
    own = kind is None or kind in ("stylegan2", "diffusers", "torchscript")
    if domain == OWN and own:
        return Config
    return _class_of(domain, kind or room_of("domains").DOMAINS.get(domain).codec)


@cache
def _class_of(domain: str, kind: str) -> type[Config]:
    entry, codecs = room_of("domains").DOMAINS.get(domain), room_of("models").CODECS
    codec = codecs.get(kind)
    if codec.domain != domain:
        fitting = [name for name in codecs.names() if codecs.get(name).domain == domain]
        raise ConfigError(
            f"vae.kind: {kind} is of the domain {codec.domain}; possible with domain: {domain}: "
            f"{', '.join(fitting) or 'one of your own as package.module:Name'}"
        )
    sections: dict[str, Any] = {"domain": (str, domain), "data": (entry.data, ...)}
    needed = any(field.is_required() for name, field in codec.settings.model_fields.items() if name != "kind")
    sections["vae"] = (codec.settings, ... if needed else codec.settings(kind=kind))
    made: type[Config] = create_model("Config", __base__=Config, __module__=__name__, **sections)
    made.pictures = entry.pictures
    unflipped = {} if entry.pictures else {"horizontal_flip": False}
    made.by_domain = _with_defaults(
        dict(entry.defaults),
        {
            "evaluate": {"detection": {"corruptions": list(entry.damages)}},
            "train": unflipped,
            "finetune": unflipped,
        },
    )
    return made


def _with_defaults(given: Any, defaults: Mapping[str, Any]) -> Any:
    """A tree with what it does not say; what is no mapping stays as it is."""
    if not isinstance(given, Mapping):
        return given
    found = dict(given)
    for name, value in defaults.items():
        inner = isinstance(value, Mapping)
        found[name] = _with_defaults(found.get(name, {}), value) if inner else found.get(name, value)
    return found


def _at(tree: Any, name: str) -> Any:
    """What stands in a tree of mappings and sections under a dotted name; None: nothing."""
    for part in name.split("."):
        tree = tree.get(part) if isinstance(tree, Mapping) else getattr(tree, part, None)
    return tree


def _blank(domain: str, kind: str) -> Config:
    kept = config_class(domain, kind)
    return kept.__new__(kept)
