"""Images to features: one small interface, and the networks behind it.

`inception` is what FID is defined with (clean-fid's variant: Parmar et al. 2022); any TorchScript file that takes
pixels; DINOv2 (Stein et al. 2023) and CLIP (Kynkäänniemi et al. 2023) where `transformers` is installed. Features are
computed in float32, without TensorFloat-32 or autocast, so that numbers from different machines can be compared.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn

from ldsaug_ray.errors import ConfigError, InputError
from ldsaug_ray.metrics.weights import INCEPTION
from ldsaug_ray.models.torchscript import load_torchscript

Images = NDArray[np.uint8]

TRANSFORMERS = {  # name -> (weights where none are named, side in px, mean and standard deviation of pixels in 0..1)
    "dinov2": ("facebook/dinov2-large", 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": (
        "openai/clip-vit-base-patch32",
        224,
        (0.48145466, 0.4578275, 0.40821073),
        (0.26862954, 0.26130258, 0.27577711),
    ),
}
SPECS = "inception, inception:FILE.pt, a TorchScript FILE.pt, dinov2[:FOLDER], clip[:FOLDER]"
PROBE_SIDE = 64  # px of the black image that tells a network's dimension, where no size is set


class Extractor(ABC):
    """Features of images: `extractor(images)` is float32[N, C] for uint8[N, H, W, 3], RGB.

    name: what the user asked for; dimension: C; fingerprint: of the weights and of how images reach them, so that
    features of equal fingerprint may be compared and cached.
    """

    name: str
    fingerprint: str
    dimension: int

    def __init__(self, name: str, network: nn.Module, weights: str, side: int | None, device: str, batch: int) -> None:
        self.name, self._side, self._batch = name, side, batch
        self._device = torch.device(device)
        self._network = network.to(self._device).eval()
        how = f"{type(self).__name__} {weights} {f'bicubic {side}' if side else 'as is'}"
        self.fingerprint = hashlib.blake2b(how.encode(), digest_size=16).hexdigest()
        probe = np.zeros((1, side or PROBE_SIDE, side or PROBE_SIDE, 3), np.uint8)
        self.dimension = self._run(probe).shape[1]

    def __call__(self, images: Images | Sequence[Images]) -> NDArray[np.float32]:
        """Features float32[N, C] of images uint8[N, H, W, 3], N may be 0.

        Raises:
            InputError: images of another type or shape or of different sizes, or a network that gives values that are
                not finite, or another shape.
        """
        x = checked_images(images)
        out = np.empty((len(x), self.dimension), np.float32)
        for start in range(0, len(x), self._batch):
            out[start : start + self._batch] = self._run(x[start : start + self._batch], start)
        return out

    @abstractmethod
    def _features(self, pixels: Tensor) -> Tensor:
        """Of pixels float32[N, 3, H, W] in 0..255."""

    def _run(self, images: Images, first: int = 0) -> NDArray[np.float32]:
        pixels = images.astype(np.float32) if self._side is None else resized(images, self._side)
        x = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))).to(self._device)
        exact = torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False)
        try:
            with torch.inference_mode(), torch.autocast(self._device.type, enabled=False), exact:
                features = self._features(x)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError) as e:
            raise InputError(
                f"extractor {self.name}: cannot take images of {x.shape[3]} x {x.shape[2]} px: {_reason(e)}; "
                "a network for one size needs `resize`"
            ) from None
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(images):
            found = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise InputError(
                f"extractor {self.name}: gives {found} for {len(images)} images; needed is [{len(images)}, C]"
            )
        out: NDArray[np.float32] = features.float().cpu().numpy()
        if out.shape[1] != getattr(self, "dimension", out.shape[1]):
            raise InputError(
                f"extractor {self.name}: {out.shape[1]} dimensions, after {self.dimension} for other images"
            )
        bad = ~np.isfinite(out).all(axis=1)
        if bad.any():
            raise InputError(
                f"extractor {self.name}: features of {int(bad.sum())} of {len(out)} images are NaN or infinite "
                f"(first: image {first + int(bad.argmax())}); its weights are damaged, or it does not take pixels "
                "in 0..255"
            )
        return out


class Inception(Extractor):
    """The 2,048 pooled features of StyleGAN's TorchScript Inception, fed as clean-fid does in its mode `clean`."""

    def _features(self, pixels: Tensor) -> Tensor:
        layers: Any = self._network.layers
        features: Tensor = layers((pixels - 128) / 128)
        return features.reshape(len(pixels), -1)


class TorchScript(Extractor):
    """Any TorchScript file whose forward takes float32[N, 3, H, W], RGB in 0..255, to [N, C]."""

    def _features(self, pixels: Tensor) -> Tensor:
        features: Tensor = self._network(pixels)
        return features


class Transformer(Extractor):
    """The pooled output of a vision transformer of Hugging Face's `transformers`; the whole image, resized, no crop."""

    def __init__(self, name: str, kind: str, network: nn.Module, side: int, device: str, batch: int) -> None:
        _, _, mean, deviation = TRANSFORMERS[kind]
        self._kind = kind
        self._mean = torch.tensor(mean, device=device).view(3, 1, 1) * 255
        self._deviation = torch.tensor(deviation, device=device).view(3, 1, 1) * 255
        super().__init__(name, network, f"{kind} {_digest(network)}", side, device, batch)

    def _features(self, pixels: Tensor) -> Tensor:
        out = self._network(pixel_values=(pixels - self._mean) / self._deviation)
        features: Tensor = out.image_embeds if self._kind == "clip" else out.last_hidden_state[:, 0]
        return features


def open_extractor(spec: str, *, device: str = "cpu", batch_size: int = 64, resize: int | None = None) -> Extractor:
    """The extractor that `spec` names, its weights loaded on `device`.

    Args:
        spec: `inception` (weights in the user's cache, downloaded there once), `inception:FILE.pt` (that file, which
            must be the same), a TorchScript `FILE.pt`, `dinov2` or `clip` (weights by their Hugging Face name),
            `dinov2:FOLDER` or `clip:FOLDER` (a folder that `save_pretrained` wrote).
        device: of torch.
        batch_size: images at a time.
        resize: of a TorchScript file: side in px to which images are resized first, as clean-fid resizes; by custom
            they are given as they are.

    Raises:
        ConfigError: an unknown spec, a package that is not installed, or a size that the network does not have.
        InputError: weights that are missing, damaged or another file's, or a network that does not do its job.
    """
    if batch_size < 1 or (resize is not None and resize < 1):
        raise ConfigError(f"batch_size and resize must be at least 1; found {batch_size} and {resize}")
    kind, _, where = spec.partition(":")
    if kind in ("inception", *TRANSFORMERS):
        if resize is not None:
            raise ConfigError(f"extractor {kind}: its size is fixed; resize is for TorchScript files")
        if kind == "inception":
            return _inception(spec, where, device, batch_size)
        return _transformer(spec, kind, where, device, batch_size)
    if not spec.endswith((".pt", ".pth", ".ts", ".torchscript")):
        raise ConfigError(f"unknown extractor {spec!r}; possible: {SPECS}")
    data = _read(Path(spec))
    digest = hashlib.sha256(data).hexdigest()
    return TorchScript(spec, load_torchscript(data, spec), digest, resize, device, batch_size)


def extractor_stamp(spec: str) -> str:
    """Identity of what `spec` names, as far as it is known without loading it: the file's SHA-256, or its name.

    Raises:
        InputError: the file cannot be read.
    """
    kind = spec.partition(":")[0]
    if kind == "inception":
        return INCEPTION.sha256
    return spec if kind in TRANSFORMERS else hashlib.sha256(_read(Path(spec))).hexdigest()


def resized(images: Images, side: int) -> NDArray[np.float32]:
    """Images uint8[N, H, W, 3] to float32[N, side, side, 3] in 0..255, by clean-fid's own code: Pillow's antialiased
    bicubic, each channel in float, not rounded (Parmar et al. 2022).
    """
    from cleanfid.resize import make_resizer

    resize: Callable[[Any], NDArray[np.float32]] = make_resizer("PIL", False, "bicubic", (side, side))
    out = np.empty((len(images), side, side, 3), np.float32)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # Pillow releases the interpreter's lock
        for at, image in enumerate(pool.map(resize, images)):
            out[at] = image
    return out


def checked_images(images: Images | Sequence[Images]) -> Images:
    """Images as uint8[N, H, W, 3].

    Raises:
        InputError: another type or shape, or images of different sizes.
    """
    if not isinstance(images, np.ndarray):
        sizes = sorted({np.asarray(image).shape for image in images})
        if len(sizes) > 1:
            shown = ", ".join(" x ".join(map(str, size)) for size in sizes[:3])
            raise InputError(f"images of different sizes ({shown}); bring them to one size first")
        images = np.stack([np.asarray(image) for image in images]) if sizes else np.empty((0, 1, 1, 3), np.uint8)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape[1:]:
        raise InputError(f"images must be uint8[N, H, W, 3], RGB; found {images.dtype}{list(images.shape)}")
    return images


def _inception(spec: str, where: str, device: str, batch: int) -> Extractor:
    path = Path(where).expanduser() if where else INCEPTION.ready()
    if where and (problem := INCEPTION.problem(path)):
        raise InputError(f"extractor inception: {problem}; the file is {INCEPTION.name} of {INCEPTION.url}")
    return Inception(spec, load_torchscript(_read(path), str(path)), INCEPTION.sha256, 299, device, batch)


def _transformer(spec: str, kind: str, where: str, device: str, batch: int) -> Extractor:
    try:
        import transformers
    except ImportError:
        raise ConfigError(f"extractor {kind} needs the package transformers: pip install transformers") from None
    model = transformers.CLIPVisionModelWithProjection if kind == "clip" else transformers.Dinov2Model
    weights, side, *_ = TRANSFORMERS[kind]
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
            f"extractor {spec}: {weights} cannot be loaded ({_reason(e)}); offline, {kind}:FOLDER names a folder "
            "that save_pretrained wrote"
        ) from None
    if missing := sorted(map(str, [*loaded["missing_keys"], *loaded["mismatched_keys"]])):  # they would stay random
        raise InputError(f"extractor {spec}: {weights} lacks {len(missing)} tensors of {kind}, such as {missing[0]}")
    return Transformer(spec, kind, network, side, device, batch)


def _read(path: Path) -> bytes:
    try:
        return path.expanduser().read_bytes()
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror or e})") from None


def _digest(network: nn.Module) -> str:
    """SHA-256 (hex) of name, type, shape and bytes of every weight."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # TorchScript puts its own traceback first and what happened last
    return (lines[-1] if lines else type(error).__name__)[:200]
