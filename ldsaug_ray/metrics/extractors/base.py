"""What an extractor is: a kind that loads a network and asks it, and the checks of what goes in and comes out."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ldsaug_ray.common.digest import code_digest
from ldsaug_ray.common.registry import Registry
from ldsaug_ray.domains import DOMAINS
from ldsaug_ray.domains.images.quality import Images, checked_images
from ldsaug_ray.errors import InputError, LdsaugError

PROBE_SIDE = 64  # px of the black image that tells a network's dimension, where no size is set


class FeatureNetwork(ABC):
    """A kind of extractor: how its network is loaded, and asked. side: px to which images are resized first, as
    clean-fid resizes; None: evaluate.resize, or not at all. domain: of what it makes features; "": of any.
    """

    side: ClassVar[int | None] = None
    domain: ClassVar[str] = "images"

    def load(self, spec: str, where: str) -> tuple[nn.Module, str]:
        """The network, and what identifies its weights; where: what stands after the colon of `inception:FILE.pt`.

        Raises InputError for weights that are missing, damaged or another file's.
        """
        return nn.Identity(), ""

    def stamp(self, spec: str, where: str) -> str:
        """Identity of weights and code, as far as it is known without loading them."""
        return code_digest([spec])

    def tensor(self, batch: NDArray[Any], facts: Mapping[str, Any]) -> Tensor:
        """What `features` gets of a batch of another domain than images. facts: what the domain learned."""
        return torch.from_numpy(np.ascontiguousarray(batch))

    @abstractmethod
    def features(self, network: nn.Module, pixels: Tensor) -> Tensor:
        """float32[N, C] of pixels float32[N, 3, H, W], RGB in 0..255, on the network's device; of other domains, of
        what `tensor` makes of a batch."""


EXTRACTORS: Registry[FeatureNetwork] = Registry("extractor", FeatureNetwork)  # type: ignore[type-abstract]


class Extractor:
    """Features of images: `extractor(images)` is float32[N, C] for uint8[N, H, W, 3], RGB; or of batches of others.

    name: what the user asked for; dimension: C, of other domains known once it was asked; fingerprint: of the weights
    and of how images reach them, so that features of equal fingerprint may be compared and cached.
    """

    def __init__(
        self,
        name: str,
        kind: FeatureNetwork,
        network: nn.Module,
        weights: str,
        side: int | None,
        device: str,
        batch: int,
        domain: str = "images",
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.name, self._kind, self._side, self._batch = name, kind, side, batch
        self._device, self._domain, self._facts = torch.device(device), DOMAINS.get(domain), facts or {}
        self._network = network.to(self._device).eval()
        how = f"{type(kind).__name__} {weights} {f'bicubic {side}' if side else 'as is'}"
        self.fingerprint = hashlib.blake2b(how.encode(), digest_size=16).hexdigest()
        self.dimension = 0
        if self._domain.pictures:
            self.dimension = self._run(np.zeros((1, side or PROBE_SIDE, side or PROBE_SIDE, 3), np.uint8)).shape[1]

    def __call__(self, images: Images | Sequence[Images]) -> NDArray[np.float32]:
        """Features float32[N, C] of images uint8[N, H, W, 3], N may be 0.

        Raises:
            InputError: images of another type or shape or of different sizes, or a network that gives values that are
                not finite, or another shape.
        """
        x = checked_images(images) if self._domain.pictures else np.asarray(images)
        parts = [self._run(x[start : start + self._batch], start) for start in range(0, len(x), self._batch)]
        return np.concatenate(parts) if parts else np.empty((0, self.dimension), np.float32)

    def _run(self, images: NDArray[Any], first: int = 0) -> NDArray[np.float32]:
        unit = self._domain.unit
        if self._domain.pictures:
            pixels = images.astype(np.float32) if self._side is None else resized(images, self._side)
            x = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))).to(self._device)
        else:
            x = self._kind.tensor(images, self._facts).to(self._device)
        exact = torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False)
        try:
            with torch.inference_mode(), torch.autocast(self._device.type, enabled=False), exact:
                features = self._kind.features(self._network, x)
        except (torch.OutOfMemoryError, LdsaugError):
            raise
        except Exception as e:  # of TorchScript, transformers, or a user's code
            if not self._domain.pictures:
                raise InputError(f"extractor {self.name}: cannot take {unit}: {reason(e)}") from None
            raise InputError(
                f"extractor {self.name}: cannot take images of {x.shape[3]} x {x.shape[2]} px: {reason(e)}; "
                "a network for one size needs `resize`"
            ) from None
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(images):
            found = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise InputError(
                f"extractor {self.name}: gives {found} for {len(images)} {unit}; needed is [{len(images)}, C]"
            )
        out: NDArray[np.float32] = features.float().cpu().numpy()
        self.dimension = self.dimension or out.shape[1]
        if out.shape[1] != self.dimension:
            raise InputError(
                f"extractor {self.name}: {out.shape[1]} dimensions, after {self.dimension} for other {unit}"
            )
        bad = ~np.isfinite(out).all(axis=1)
        if bad.any():
            raise InputError(
                f"extractor {self.name}: features of {int(bad.sum())} of {len(out)} {unit} are NaN or infinite "
                f"(first: {self._domain.item} {first + int(bad.argmax())}); its weights are damaged, or "
                f"it does not take {'pixels in 0..255' if self._domain.pictures else 'such values'}"
            )
        return out


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


def read_weights(path: Path) -> bytes:
    """The file's bytes; InputError, which names it, where it cannot be read."""
    try:
        return path.expanduser().read_bytes()
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror or e})") from None


def reason(error: BaseException) -> str:
    """The last line of what an error says, 200 characters at most."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # TorchScript puts its own traceback first and what happened last
    return (lines[-1] if lines else type(error).__name__)[:200]
