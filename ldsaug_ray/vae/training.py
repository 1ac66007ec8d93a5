"""The state of a training run and one step of it, for Ray Train workers and plain scripts alike.

Every random number of a step (flips, ε, noise) comes from a generator seeded by (seed, step, rank). A resumed run
therefore needs weights, Adam's moments and the step, and no random state; on a CPU it goes on bit for bit.
"""

from __future__ import annotations

import hashlib
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ldsaug_ray.config.settings import Optimisation
from ldsaug_ray.errors import InputError, LdsaugError
from ldsaug_ray.storage import Location
from ldsaug_ray.vae.checkpoint import check_finite, describe_difference, load_tensors, pack, read_header
from ldsaug_ray.vae.losses import Elbo, Objective
from ldsaug_ray.vae.model import to_float, unwrap

STATE_FILE = "trainer.safetensors"
STATE_FORMAT = "ldsaug_ray.trainer"
STATE_VERSION = 1
_MOMENTS = ("exp_avg", "exp_avg_sq")


class DivergedError(LdsaugError):
    """A loss or gradient is not finite; the weights are those from before the step."""


class Trainer:
    """A VAE, its optimiser, and the number of steps taken.

    Args:
        module: the VAE on `device`, bare or wrapped by DistributedDataParallel.
        settings: step size, objective and so on.
        seed: with step and rank the source of all randomness.
        device: where the batches go.
        rank: this worker's number, so that workers draw different noise.
        objective: what to minimise; none: `Elbo` of the settings.

    Attributes:
        step: optimiser steps taken so far.
        model: the bare VAE, for saving and inference.
    """

    def __init__(
        self,
        module: nn.Module,
        settings: Optimisation,
        seed: int,
        device: torch.device | str,
        *,
        rank: int = 0,
        objective: Objective | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.module = module.to(self.device)
        self.model = unwrap(module)
        self.settings = settings
        self.seed = seed
        self.rank = rank
        self.objective: Objective = objective or Elbo(settings.objective)
        self.step = 0
        self.optimizer = torch.optim.Adam(
            self.model.parameters(),
            lr=settings.learning_rate,
            betas=settings.adam_betas,
            eps=1e-8,
            fused=True,  # one pass over weights and moments; many small layers make the plain form slow
        )

    def train_step(self, images: np.ndarray | Tensor) -> dict[str, float]:
        """Take one optimiser step on uint8[B, R, R, 3] and return the objective's terms and `gradient_norm`.

        Raises:
            InputError: images of another shape or dtype.
            DivergedError: a term or the gradient is not finite. No step is taken. With several workers it is raised on
                all of them: the failing one poisons its gradient, which the all-reduce spreads, so none waits for ever.
        """
        generator = step_generator(self.seed, self.step, self.rank, self.device)
        x = to_float(self._to_device(images))
        if self.settings.horizontal_flip:
            mirrored = torch.rand(len(x), generator=generator, device=self.device) < 0.5
            x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
        self.module.train()
        centre = self.model.centre.clone()
        self.optimizer.zero_grad(set_to_none=True)
        total, terms = self.objective(self.module, x, self.step, generator)
        # NaN times anything is NaN: sign() in the gradient of l1 would hide it otherwise
        (total * torch.where(torch.isfinite(total), 1.0, math.nan).to(total)).backward()
        limit = math.inf if self.settings.gradient_clip is None else self.settings.gradient_clip
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        names = [*terms, "gradient_norm"]
        values = torch.stack([t.float() for t in (*terms.values(), norm)]).tolist()  # one wait for the device, not five
        result = dict(zip(names, values, strict=True))
        bad = [name for name, value in result.items() if not math.isfinite(value)]
        if bad:
            self.model.centre.copy_(centre)
            self.optimizer.zero_grad(set_to_none=True)
            raise DivergedError(
                f"training diverged at step {self.step}: {', '.join(f'{n} = {result[n]}' for n in bad)}. The weights "
                f"are kept from before this step; lower learning_rate (now {self.settings.learning_rate:g}) or set "
                "gradient_clip, and run again"
            )
        self.optimizer.step()
        self.step += 1
        return result

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write model, Adam's moments and step to `folder`/trainer.safetensors, atomically, as one file.

        Raises:
            StorageError: the folder cannot be written.
        """
        tensors = {f"model.{name}": t for name, t in self.model.state_dict().items()}
        taken = 0.0
        for name, parameter in self.model.named_parameters():
            state = self.optimizer.state.get(parameter, {})
            tensors.update({f"adam.{moment}.{name}": state[moment] for moment in _MOMENTS if moment in state})
            taken = float(state["step"]) if state else taken
        header = {**self._identity(), "step": self.step, "adam_step": taken}
        Location.of(Path(folder) / STATE_FILE).write_bytes(pack(tensors, header))

    def restore(self, folder: str | os.PathLike[str]) -> None:
        """Take up what `save` wrote; learning rate and the other settings stay this trainer's own.

        Raises:
            InputError: no such file, not written by `save`, damaged, or of another architecture or seed. The trainer
                is then unchanged.
        """
        location = Location.of(Path(folder) / STATE_FILE)
        data = location.read_bytes() if location.exists() else None
        if data is None:
            raise InputError(f"{location.uri}: there is no saved training state")
        header = read_header(data, location.uri, STATE_FORMAT, STATE_VERSION)
        found = {key: header.get(key) for key in self._identity()}
        if found != self._identity():
            raise InputError(f"{location.uri}: from another run: {describe_difference(found, self._identity())}")
        parameters = dict(self.model.named_parameters())
        expected = {f"model.{name}": t for name, t in self.model.state_dict().items()}
        if header["adam_step"] > 0:
            expected.update({f"adam.{moment}.{name}": p for moment in _MOMENTS for name, p in parameters.items()})
        tensors = load_tensors(data, location.uri, expected)
        check_finite(tensors, location.uri)
        self.model.load_state_dict({n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")})
        self.optimizer.state.clear()
        if header["adam_step"] > 0:
            for name, parameter in parameters.items():
                self.optimizer.state[parameter] = {
                    "step": torch.tensor(float(header["adam_step"]), device=parameter.device),
                    **{moment: tensors[f"adam.{moment}.{name}"].to(parameter.device) for moment in _MOMENTS},
                }
        self.step = int(header["step"])

    def _identity(self) -> dict[str, Any]:
        """What must be equal for a saved state to belong to this run."""
        return {
            "format": STATE_FORMAT,
            "version": STATE_VERSION,
            "vae": self.model.settings.model_dump(mode="json"),
            "resolution": self.model.resolution,
            "seed": self.seed,
        }

    def _to_device(self, images: np.ndarray | Tensor) -> Tensor:
        # torch.tensor copies: Ray's arrays are read-only, which torch.from_numpy warns of
        batch = torch.tensor(images) if isinstance(images, np.ndarray) else images
        side = self.model.resolution
        if batch.dtype != torch.uint8 or batch.ndim != 4 or not len(batch) or batch.shape[1:] != (side, side, 3):
            dtype = str(batch.dtype).removeprefix("torch.")
            raise InputError(f"a batch must be uint8[B, {side}, {side}, 3], got {dtype}{list(batch.shape)}")
        return batch.to(self.device)


def step_generator(seed: int, step: int, rank: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on `device` that depends on (seed, step, rank) alone, through BLAKE2b."""
    digest = hashlib.blake2b(f"{seed}/{step}/{rank}".encode(), digest_size=8).digest()
    # 63 bits: torch takes seeds as signed integers
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "little") >> 1)
