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


class Downstream(Section):
    """Whether a small classifier gets better by A: trained on the training split, on it and A, on A alone."""

    label: Name | None = Field(
        None, description="the label that it is to tell, such as digit; A's come from its parents; none: not looked at"
    )
    labels: Literal["soft", "same"] = Field(
        "soft",
        description="of A: soft: each parent's label by its weight; same: the label where both parents have the same, "
        "others of A are left out",
    )
    of: Literal["pixels", "features"] = Field(
        "pixels",
        description="what it looks at: pixels of images of at most 64 px (two convolutions), or the extractor's "
        "features (one hidden layer), which know more than the training split",
    )
    steps: Positive = Field(1000, description="of Adam, the same for each; a batch of both is half A")
    batch_size: Positive = Field(64, description="images of a step")
    seeds: int = Field(5, ge=2, le=100, description="classifiers of each kind, by other weights and batches")


class Evaluate(Section):
    """Measures of generated images against held-out real ones. What they are drawn from, `sample` says."""

    extractor: str | None = Field(
        None,
        min_length=1,
        description="features: inception (FID's; downloaded once), inception:FILE.pt, a TorchScript FILE.pt, "
        "dinov2[:FOLDER], clip[:FOLDER], pixels (averaged to 8 x 8: no network), of "
        "molecules chemnet:FILE.pt or fingerprints, "
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
    downstream: Downstream = added(Downstream())
    batch_size: Positive = Field(64, description="images per forward pass")
    workers: Workers = Workers()
