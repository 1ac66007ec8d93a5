"""A distance between images in the features of a network that the user supplies.

Zhang et al. 2018 (arXiv:1801.03924), equation 1 without learned weights: features are scaled to unit length over the
channels; squared differences are summed over channels and averaged over positions. The network is frozen; gradients
pass through it to the first image only.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from ldsaug_ray import config
from ldsaug_ray.common.storage import Location
from ldsaug_ray.errors import ConfigError, InputError, is_out_of_memory
from ldsaug_ray.models.torchscript import load_torchscript

LENGTH_EPS = 1e-10
LPIPS = "lpips"
_TO_PIXELS = {"bytes": (127.5, 127.5), "unit": (0.5, 0.5), "symmetric": (1.0, 0.0)}  # factor and offset from −1..1


class FeatureDistance(nn.Module):
    """Distances [B] in a TorchScript network's features.

    Args:
        network: pixels float32[B, 3, R, R] to features [B, C] or maps [B, C, h, w].
    """

    def __init__(self, network: nn.Module, pixel_range: str) -> None:
        super().__init__()
        self.network = network
        self.factor, self.offset = _TO_PIXELS[pixel_range]

    def features(self, images: Tensor) -> Tensor:
        """What the network makes of float32[B, 3, R, R] in −1..1."""
        features: Tensor = self.network(images * self.factor + self.offset)
        return features

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """float32[B] of two float32[B, 3, R, R] in −1..1; no gradient reaches `target`."""
        with torch.no_grad():
            wanted = _unit_length(self.features(target))
        squares = (_unit_length(self.features(x)) - wanted).square().sum(1)
        return squares.flatten(1).mean(1) if squares.ndim > 1 else squares


class Lpips(nn.Module):
    """Distances [B] by the package `lpips`, with its own learned weights (AlexNet)."""

    def __init__(self) -> None:
        super().__init__()
        try:
            import lpips
        except ImportError:
            raise ConfigError(
                "objective.perceptual.network: lpips needs a package that is not installed; pip install lpips, or name "
                "a TorchScript file"
            ) from None
        self.network = lpips.LPIPS(net="alex", verbose=False)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """float32[B] of two float32[B, 3, R, R] in −1..1."""
        return self.network(x, target.detach()).flatten()


def load_perceptual(
    settings: config.Perceptual, resolution: int, device: torch.device | str = "cpu"
) -> FeatureDistance | Lpips | None:
    """The distance that the settings ask for, frozen, in evaluation mode, on `device`; none where they ask for none.

    A TorchScript file is read through `storage`, so that it may lie behind any URI, and tried on a pair of images.

    Raises:
        ConfigError: `lpips` is not installed.
        InputError: the file is missing or no TorchScript, or what it gives is not features [N, C] or [N, C, h, w],
            finite and with a gradient; the message names file and finding.
    """
    if settings.network is None or not settings.weight:
        return None
    distance: FeatureDistance | Lpips
    if settings.network == LPIPS:
        distance = Lpips()
    else:
        file = Location.of(settings.network)
        where = f"objective.perceptual.network: {file.uri}"
        if not file.exists():
            raise InputError(f"{where}: there is no such file")
        network = load_torchscript(file.read_bytes(), where)
        distance = FeatureDistance(network, settings.pixel_range)
    distance = distance.to(device).eval().requires_grad_(False)
    _try(distance, settings.network, resolution, torch.device(device))
    return distance


def _unit_length(features: Tensor) -> Tensor:
    features = features.float()
    return features * torch.rsqrt(features.square().sum(1, keepdim=True) + LENGTH_EPS)


def _try(distance: FeatureDistance | Lpips, name: str, resolution: int, device: torch.device) -> None:
    """Raise InputError unless it works on a pair of images; called twice, as TorchScript optimises its first runs."""
    generator = torch.Generator().manual_seed(0)
    pair = torch.rand(2, 2, 3, resolution, resolution, generator=generator) * 2 - 1
    x, target = (t.to(device).contiguous(memory_format=torch.channels_last) for t in pair)
    x.requires_grad_()
    where = f"objective.perceptual.network: {name}"
    for _ in range(2):
        try:
            if isinstance(distance, FeatureDistance):
                _check_features(distance.features(target), where, len(x))
            value = distance(x, target)
            gradient = torch.autograd.grad(value.sum(), x)[0] if value.requires_grad else None
        except (RuntimeError, ValueError, TypeError, torch.jit.Error) as e:
            if is_out_of_memory(e):
                raise
            raise InputError(
                f"{where}: cannot be used on {resolution} px images ({_first_line(e)}); it must take float32"
                f"[N, 3, {resolution}, {resolution}] and be differentiable"
            ) from None
    if gradient is None:
        raise InputError(f"{where}: no gradient passes through it, so that nothing can be learned from it")
    if not (torch.isfinite(value).all() and torch.isfinite(gradient).all()):
        raise InputError(f"{where}: its features, or their gradients, are not finite")


def _check_features(features: object, where: str, batch: int) -> None:
    if not isinstance(features, Tensor) or not features.is_floating_point():
        found = str(features.dtype).removeprefix("torch.") if isinstance(features, Tensor) else type(features).__name__
        raise InputError(f"{where}: gives {found}; it must give a float tensor [N, C] or [N, C, h, w]")
    if features.ndim not in (2, 4) or len(features) != batch or not features.numel():
        raise InputError(
            f"{where}: gives {list(features.shape)} for {batch} images; it must give features [N, C] or maps "
            "[N, C, h, w] with N the number of images"
        )
    if not torch.isfinite(features).all():
        raise InputError(f"{where}: its features are not finite")


def _first_line(error: BaseException) -> str:
    """What happened, in a line: the last one of TorchScript's long accounts that says it."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    said = [line for line in lines if re.match(r"[\w.]*(Error|Exception): ", line)]
    return said[-1] if said else (lines or [type(error).__name__])[0]
