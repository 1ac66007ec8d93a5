"""Images to features: one small interface, and the networks behind it.

`inception` is what FID is defined with (clean-fid's variant: Parmar et al. 2022); any TorchScript file that takes
pixels; DINOv2 (Stein et al. 2023) and CLIP (Kynkäänniemi et al. 2023) where `transformers` is installed; one of the
user's own by dotted path. Features are computed in float32, without TensorFloat-32 or autocast, so that numbers from
different machines can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ldsaug_ray.common.digest import code_digest
from ldsaug_ray.common.registry import import_all
from ldsaug_ray.errors import ConfigError, failing
from ldsaug_ray.metrics.extractors.base import EXTRACTORS, Extractor, FeatureNetwork, checked_images, resized
from ldsaug_ray.metrics.extractors.torchscript import FILES, TorchScript

SPECS = (
    "inception, inception:FILE.pt, a TorchScript FILE.pt, dinov2[:FOLDER], clip[:FOLDER], pixels, chemnet:FILE.pt, "
    "fingerprints"
)


def open_extractor(
    spec: str,
    *,
    device: str = "cpu",
    batch_size: int = 64,
    resize: int | None = None,
    domain: str = "images",
    facts: Mapping[str, Any] | None = None,
) -> Extractor:
    """The extractor that `spec` names, its weights loaded on `device`.

    Args:
        spec: `inception` (weights in the user's cache, downloaded there once), `inception:FILE.pt` (that file, which
            must be the same), a TorchScript `FILE.pt`, `dinov2` or `clip` (weights by their Hugging Face name),
            `dinov2:FOLDER` or `clip:FOLDER` (a folder that `save_pretrained` wrote), `pixels` (no network), of
            molecules `chemnet:FILE.pt` or `fingerprints` (no network), or the dotted path `package.module:Name` of a
            `FeatureNetwork`.
        device: of torch.
        batch_size: images at a time.
        resize: side in px to which images are resized first, as clean-fid resizes, where the kind sets none; by custom
            they are given as they are.
        domain: of the data; facts: what it learned of the training items.

    Raises:
        ConfigError: an unknown spec, one of another domain, a package that is not installed, or a size that the
            network does not have.
        InputError: weights that are missing, damaged or another file's, or a network that does not do its job.
    """
    if batch_size < 1 or (resize is not None and resize < 1):
        raise ConfigError(f"batch_size and resize must be at least 1; found {batch_size} and {resize}")
    check_extractor(spec, domain)
    kind, where, own = _kind(spec)
    if resize is not None and kind.side is not None:
        raise ConfigError(f"extractor {spec.partition(':')[0]}: its size is fixed; resize is for TorchScript files")
    with failing(f"extractor {spec}", own=own):
        network, weights = kind.load(spec, where)
    weights += f" {code_digest([spec])}" if own else ""
    return Extractor(spec, kind, network, weights, kind.side or resize, device, batch_size, domain, facts)


def check_extractor(spec: str, domain: str) -> None:
    """Raises ConfigError for an unknown extractor, or one of another domain; nothing is loaded."""
    if (of := _kind(spec)[0].domain) not in ("", domain):
        serving = [name for name in EXTRACTORS.names() if EXTRACTORS.get(name).domain in ("", domain)]
        raise ConfigError(
            f"extractor {spec}: is of domain={of}, not of domain={domain}; possible: "
            f"{', '.join([*serving, 'a TorchScript FILE.pt'])}, or your own as package.module:Name"
        )


def extractor_stamp(spec: str) -> str:
    """Identity of what `spec` names, as far as it is known without loading it: the file's SHA-256, or its name.

    Raises:
        ConfigError: an unknown spec.
        InputError: the file cannot be read.
    """
    kind, where, _ = _kind(spec)
    return kind.stamp(spec, where)


def _kind(spec: str) -> tuple[FeatureNetwork, str, bool]:
    """The kind that `spec` names, what stands after the colon, and whether it is the user's own."""
    name, colon, where = spec.partition(":")
    if name in EXTRACTORS.names():
        return EXTRACTORS.get(name), where, False
    if spec.endswith(FILES):
        return TorchScript(), "", False
    if not colon:
        known = ", ".join([SPECS, *(other for other in EXTRACTORS.names() if other not in SPECS)])
        raise ConfigError(f"unknown extractor {spec!r}; possible: {known}, or your own as package.module:Name")
    return EXTRACTORS.get(spec), "", True


import_all(__name__, __path__)
