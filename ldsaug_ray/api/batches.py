"""`Encode`, `Score`, `Decode`: callable classes for `Dataset.map_batches` on a Dataset of one's own.

Each takes a batch, a mapping of columns to NumPy arrays, and gives it back with one column more. Ray makes an object of
the class in every actor: what is heavy is loaded there, once, at the first batch.

    gpus = ray.data.ActorPoolStrategy(size=2)
    images.map_batches(la.Encode, fn_constructor_args=("vae.safetensors",), batch_size=64, compute=gpus, num_gpus=1)

They need no Ray: an object called with a dictionary does the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ldsaug_ray.api.arguments import array_of, sigma_settings, stacked
from ldsaug_ray.common.storage import Place
from ldsaug_ray.errors import InputError

if TYPE_CHECKING:
    from ldsaug_ray.models import Codec

Batch = dict[str, Any]
DIRECT = 64  # images at once


class _OfModel:
    """Holds a model: itself, or where the file lies that `ldsaug_ray.models.save_vae` wrote.

    Args:
        model: a path or URI of `vae.safetensors`, or a `Codec`.
        column: what is read.
        out: what is added; `None` in its place.
        batch_size: rows that the network gets at once.
        device: torch's name of it; none: the first GPU that this process sees, else the CPU.
    """

    def __init__(
        self, model: Place | Codec, column: str, out: str, batch_size: int = DIRECT, device: str | None = None
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1; found {batch_size}")
        self.model, self.column, self.out, self.batch_size, self.device = model, column, out, batch_size, device

    @cached_property
    def vae(self) -> Codec:
        """The model, where it computes."""
        import torch

        from ldsaug_ray.models import Codec, load_vae

        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as e:  # the latter where PyTorch was built without CUDA
            raise InputError(f"device = {device!r} cannot be used: {str(e).splitlines()[0]}") from None
        return self.model.to(device) if isinstance(self.model, Codec) else load_vae(self.model, device)


class Encode(_OfModel):
    """Items to latents: reads a batch, such as uint8[B, R, R, 3] of images, adds float32[B, d], the posterior means.

    >>> import numpy as np
    >>> from ldsaug_ray.config import Vae
    >>> from ldsaug_ray.models import build_vae
    >>> vae = build_vae(Vae(latent_dim=4, channel_base=64, channel_max=4, mapping_layers=1), 16, seed=0)
    >>> batch = Encode(vae)({"image": np.zeros((2, 16, 16, 3), np.uint8)})
    >>> batch["z"].shape
    (2, 4)
    """

    def __init__(
        self,
        model: Place | Codec,
        column: str = "image",
        out: str = "z",
        batch_size: int = DIRECT,
        device: str | None = None,
    ) -> None:
        super().__init__(model, column, out, batch_size, device)

    def __call__(self, batch: Mapping[str, Any]) -> Batch:
        """Raises InputError for images of another kind or size, DivergedError for latents that are not finite."""
        from ldsaug_ray.models import encode_batch

        images = stacked(batch, self.column)
        return {**batch, self.out: encode_batch(self.vae, images, self.batch_size)}


class Decode(_OfModel):
    """Latents to items: reads float[B, d], adds a batch, such as uint8[B, R, R, 3] of images.

    >>> import numpy as np
    >>> from ldsaug_ray.config import Vae
    >>> from ldsaug_ray.models import build_vae
    >>> vae = build_vae(Vae(latent_dim=4, channel_base=64, channel_max=4, mapping_layers=1), 16, seed=0)
    >>> Decode(vae)({"z": np.zeros((2, 4))})["image"].shape
    (2, 16, 16, 3)
    """

    def __init__(
        self,
        model: Place | Codec,
        column: str = "z",
        out: str = "image",
        batch_size: int = DIRECT,
        device: str | None = None,
    ) -> None:
        super().__init__(model, column, out, batch_size, device)

    def __call__(self, batch: Mapping[str, Any]) -> Batch:
        """Raises InputError for what are no latents of this model, DivergedError for images that are not finite."""
        from ldsaug_ray.models import decode_batch

        z = array_of(stacked(batch, self.column), f"the column {self.column}")
        return {**batch, self.out: decode_batch(self.vae, z, self.batch_size)}


class Score:
    """Latents to log LDS: reads float[B, d], adds float64[B].

    Args:
        latents: float[N, d], those that the density is made of; or the path of an .npy file of them.
        sigma: bandwidth, as of `augment`.
        column: what is read.
        out: what is added.
        device: cpu, or a GPU such as cuda:0.

    >>> import numpy as np
    >>> score = Score(np.eye(3), sigma=1.0)
    >>> log_lds = score({"z": np.zeros((1, 3))})["log_lds"]  # three latents at distance 1: exp(-1/2)
    >>> float(log_lds[0].round(4))
    -0.5
    """

    def __init__(
        self, latents: Any, sigma: Any = "norm/5", column: str = "z", out: str = "log_lds", device: str = "cpu"
    ) -> None:
        from ldsaug_ray.common.storage import Location
        from ldsaug_ray.config import Score as Settings
        from ldsaug_ray.lds import resolve_sigma

        if isinstance(latents, Location | str) or hasattr(latents, "__fspath__"):
            latents = _npy(Location.of(latents))
        self.latents = array_of(latents, "latents")
        self.sigma = resolve_sigma(self.latents, Settings(sigma=sigma_settings(sigma))).sigma
        self.column, self.out, self.device = column, out, device

    def __call__(self, batch: Mapping[str, Any]) -> Batch:
        """Raises InputError for what are no latents, or have another dimension."""
        from ldsaug_ray.lds import score_points

        z = array_of(stacked(batch, self.column), f"the column {self.column}")
        return {**batch, self.out: score_points(self.latents, z, [self.sigma], device=self.device)[:, 0]}


def _npy(file: Any) -> NDArray[Any]:
    import io

    try:
        return np.asarray(np.load(io.BytesIO(file.read_bytes()), allow_pickle=False))
    except ValueError as e:
        raise InputError(f"latents: {file.uri} is no .npy file of numbers ({e})") from None
