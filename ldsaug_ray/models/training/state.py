"""A training run on disk: one safetensors file with everything that a step depends on.

Names: model.*, averaged.*, discriminator.* are weights and buffers; adam.NETWORK.MOMENT.* the optimisers'; counter.* a
few scalars. Learning rates and the other settings are not in it: they are the run's own.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ldsaug_ray.common.storage import Location
from ldsaug_ray.errors import InputError
from ldsaug_ray.models.checkpoint import check_finite, describe_difference, load_tensors, pack, read_header
from ldsaug_ray.models.training.trainer import Trainer

FILE = "trainer.safetensors"
FORMAT = "ldsaug_ray.trainer"
VERSION = 2
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def save(trainer: Trainer, folder: str | os.PathLike[str]) -> None:
    """Write weights, averages, optimisers and counters to `folder`/trainer.safetensors, atomically, as one file.

    Raises:
        StorageError: the folder cannot be written.
    """
    tensors = _live(trainer)
    moved: dict[str, list[str]] = {}
    for network, (module, optimizer) in _optimised(trainer).items():
        moved[network] = [name for name, p in module.named_parameters() if p in optimizer.state]
        for name, parameter in module.named_parameters():
            if parameter in optimizer.state:
                found = optimizer.state[parameter]
                tensors |= {f"adam.{network}.{moment}.{name}": found[moment] for moment in _MOMENTS}
    header = {**_identity(trainer), "step": trainer.step, "images": trainer.images, "moved": moved}
    Location.of(Path(folder) / FILE).write_bytes(pack(tensors, header))


def restore(trainer: Trainer, folder: str | os.PathLike[str]) -> None:
    """Take up what `save` wrote; learning rate and the other settings stay this trainer's own.

    Raises:
        InputError: no such file, not written by `save`, damaged, of another architecture, seed or freeze, or from a run
            with another set of networks. The trainer is then unchanged.
    """
    location = Location.of(Path(folder) / FILE)
    if not location.exists():
        raise InputError(f"{location.uri}: there is no saved training state")
    data = location.read_bytes()
    header = read_header(data, location.uri, FORMAT, VERSION)
    found = {key: header.get(key) for key in _identity(trainer)}
    if found != _identity(trainer):
        raise InputError(f"{location.uri}: from another run: {describe_difference(found, _identity(trainer))}")
    networks = _optimised(trainer)
    live = _live(trainer)
    expected = dict(live)
    try:
        step, images, moved = int(header["step"]), int(header["images"]), header["moved"]
        for network, (module, _) in networks.items():
            parameters = dict(module.named_parameters())
            for name in moved[network]:
                shapes = dict.fromkeys(_MOMENTS, parameters[name].detach()) | {"step": torch.zeros(())}
                expected |= {f"adam.{network}.{moment}.{name}": shapes[moment] for moment in _MOMENTS}
    except (KeyError, TypeError, ValueError) as e:
        raise InputError(f"{location.uri}: damaged: its header does not describe a training state ({e})") from None
    tensors = load_tensors(data, location.uri, expected)
    check_finite(tensors, location.uri)
    with torch.no_grad():
        for name, tensor in live.items():
            tensor.copy_(tensors[name])
    for network, (module, optimizer) in networks.items():
        optimizer.state.clear()
        parameters = dict(module.named_parameters())
        for name in moved[network]:
            parameter = parameters[name]
            optimizer.state[parameter] = {
                moment: tensors[f"adam.{network}.{moment}.{name}"].to(parameter.device) for moment in _MOMENTS
            }
    trainer.step, trainer.images = step, images


def _optimised(trainer: Trainer) -> dict[str, tuple[nn.Module, torch.optim.Optimizer]]:
    networks: dict[str, tuple[nn.Module, torch.optim.Optimizer]] = {"model": (trainer.model, trainer.optimizer)}
    if trainer.discriminator is not None:
        networks["discriminator"] = (trainer.discriminator, trainer.discriminator_optimizer)
    return networks


def _live(trainer: Trainer) -> dict[str, Tensor]:
    """The trainer's own tensors, not copies: what is written, and what is written into."""
    modules: dict[str, nn.Module] = {"model": trainer.model}
    if trainer.averaged is not trainer.model:
        modules["averaged"] = trainer.averaged
    counters = {"path_mean": trainer.path_mean}
    if trainer.discriminator is not None:
        modules["discriminator"] = trainer.discriminator
        counters |= {"probability": trainer.adversary.probability, "signs": trainer.adversary.signs}
    tensors = {f"{kind}.{name}": t for kind, module in modules.items() for name, t in module.state_dict().items()}
    return tensors | {f"counter.{name}": t for name, t in counters.items()}


def _identity(trainer: Trainer) -> dict[str, Any]:
    """What must be equal for a saved state to belong to this run."""
    discriminator = trainer.discriminator
    return {
        "format": FORMAT,
        "version": VERSION,
        "vae": trainer.model.settings.model_dump(mode="json"),
        **trainer.model.given,
        "seed": trainer.seed,
        "freeze": trainer.freeze,
        "averaged": trainer.averaged is not trainer.model,
        "discriminator": discriminator and ", ".join(f"{k} {v}" for k, v in discriminator.structure.items()),
    }
