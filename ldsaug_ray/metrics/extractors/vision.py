"""DINOv2 (Stein et al. 2023) and CLIP (Kynkäänniemi et al. 2023), where `transformers` is installed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ldsaug_ray.errors import ConfigError, InputError
from ldsaug_ray.metrics.extractors.base import EXTRACTORS, FeatureNetwork, reason


class Transformer(FeatureNetwork):
    """The pooled output of a vision transformer of Hugging Face's `transformers`; the whole image, resized, no crop.

    kind: dinov2 or clip; weights: where none are named; mean, deviation: of pixels in 0..1.
    """

    side: ClassVar = 224

    def __init__(self, kind: str, weights: str, mean: Sequence[float], deviation: Sequence[float]) -> None:
        self.kind, self.weights, self.mean, self.deviation = kind, weights, mean, deviation

    def stamp(self, spec: str, where: str) -> str:
        """The weights are known once they are loaded."""
        return spec

    def features(self, network: nn.Module, pixels: Tensor) -> Tensor:
        mean, deviation = (
            torch.tensor(x, device=pixels.device).view(3, 1, 1) * 255 for x in (self.mean, self.deviation)
        )
        out: Any = network(pixel_values=(pixels - mean) / deviation)
        features: Tensor = out.image_embeds if self.kind == "clip" else out.last_hidden_state[:, 0]
        return features

    def load(self, spec: str, where: str) -> tuple[nn.Module, str]:
        """By its Hugging Face name, or from a folder that `save_pretrained` wrote."""
        kind = self.kind
        try:
            import transformers
        except ImportError:
            raise ConfigError(f"extractor {kind} needs the package transformers: pip install transformers") from None
        model = transformers.CLIPVisionModelWithProjection if kind == "clip" else transformers.Dinov2Model
        weights = self.weights
        if where:
            weights = str(Path(where).expanduser())
            if not Path(weights).is_dir():
                raise InputError(f"extractor {spec}: {weights} is not a folder; save_pretrained writes one")
        try:
            # safetensors only: nothing is unpickled
            network, loaded = model.from_pretrained(
                weights, use_safetensors=True, dtype=torch.float32, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as e:
            raise InputError(
                f"extractor {spec}: {weights} cannot be loaded ({reason(e)}); offline, {kind}:FOLDER names a folder "
                "that save_pretrained wrote"
            ) from None
        if missing := sorted(map(str, [*loaded["missing_keys"], *loaded["mismatched_keys"]])):  # they would stay random
            raise InputError(
                f"extractor {spec}: {weights} lacks {len(missing)} tensors of {kind}, such as {missing[0]}"
            )
        return network, f"{kind} {_digest(network)}"


def _digest(network: nn.Module) -> str:
    """SHA-256 (hex) of name, type, shape and bytes of every weight."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


EXTRACTORS.add("dinov2", Transformer("dinov2", "facebook/dinov2-large", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
EXTRACTORS.add(
    "clip",
    Transformer(
        "clip",
        "openai/clip-vit-base-patch32",
        (0.48145466, 0.4578275, 0.40821073),
        (0.26862954, 0.26130258, 0.27577711),
    ),
)
