"""Section `evaluate`: measures of generated images."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ldsaug_ray.config.base import Name, Positive, Section, added
from ldsaug_ray.config.workers import Workers


class LdsDetection(Section):
    """Whether log LDS tells test images from damaged copies of them, or from images of something else."""

    corruptions: tuple[str, ...] = Field(
        ("blur", "noise", "occlusion", "shuffled patches"), description="damaged copies of the test images; []: none"
    )
    others: str | None = Field(
        None,
        min_length=1,
        description="images of something else, any source that data.source takes, cropped and resized as these are",
    )
    scales: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (0.1, 0.2, 0.5, 1.0), min_length=1, description="bandwidths: sigma over the mean norm of the latents"
    )


class Evaluate(Section):
    """Measures of generated images against held-out real ones. What they are drawn from, `sample` says."""

    extractor: str | None = Field(
        None,
        min_length=1,
        description="features: inception (FID's; downloaded once), inception:FILE.pt, a TorchScript FILE.pt, "
        "dinov2[:FOLDER], clip[:FOLDER], pixels (averaged to 8 x 8: no network), "
        "or the dotted path of your own; none: `run` does not evaluate",
    )
    resize: Positive | None = Field(
        None,
        description="side, px, to which images are resized for a TorchScript file, as clean-fid does; none: as is",
    )
    n: Positive = Field(10_000, description="images drawn from each model, and about as many of A")
    models: tuple[Literal["train", "finetune"], ...] = Field(
        ("train", "finetune"), min_length=1, description="whose images: train, the baseline's; finetune's"
    )
    augmented: bool = Field(True, description="measure A too")
    k: Positive = Field(5, description="neighbours of precision, recall, density and coverage")
    attributes: tuple[Name, ...] = Field(
        (),
        description="labelled attributes whose share among generated images is estimated, such as [Male]; of labels "
        "with many values the share of each",
    )
    measures: tuple[str, ...] = added(
        (),
        description="measures of your own, beside the others: dotted paths, such as [mypackage.mine:Vendi], in modules "
        "that are installed or on PYTHONPATH",
    )
    detection: LdsDetection = LdsDetection()
    batch_size: Positive = Field(64, description="images per forward pass")
    workers: Workers = Workers()
