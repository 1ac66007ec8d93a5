"""StyleGAN2's discriminator: real images against decoded ones.

Karras et al. 2020 (arXiv:1912.04958), figure 7c, with the minibatch standard deviation of Karras et al. 2018
(arXiv:1710.10196), section 3, and no condition. Its blocks and widths are the encoder's.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from ldsaug_ray.common.storage import Location, Place
from ldsaug_ray.config import Adversarial, Vae
from ldsaug_ray.errors import ConfigError, InputError
from ldsaug_ray.models.checkpoint import check_finite, describe_difference, load_tensors, pack, read_header
from ldsaug_ray.models.stylegan2.encoder import ResidualBlock
from ldsaug_ray.models.stylegan2.layers import EqualConv2d, EqualLinear
from ldsaug_ray.models.stylegan2.model import channels

FORMAT = "ldsaug_ray.discriminator"
VERSION = 1
STDDEV_EPS = 1e-8


class Discriminator(nn.Module):
    """float32[B, 3, R, R] in −1..1 -> logits float32[B], positive where it takes an image for real.

    Args:
        settings: section `vae`; its channel_base and channel_max are the discriminator's too.
        stddev_group: images over which the minibatch standard deviation is taken.

    Raises:
        ConfigError: as `model.channels`.
    """

    def __init__(self, settings: Vae, resolution: int, stddev_group: int) -> None:
        super().__init__()
        self.structure = _structure(settings, resolution, stddev_group)
        widths = channels(settings, resolution)
        sides = sorted(widths, reverse=True)
        self.stddev_group = stddev_group
        self.from_rgb = EqualConv2d(3, widths[resolution], 1, activate=True)
        self.blocks = nn.ModuleList(ResidualBlock(widths[side], widths[side // 2]) for side in sides[:-1])
        width = widths[4]
        self.conv = EqualConv2d(width + 1, width, 3, activate=True)
        self.hidden = EqualLinear(width * 16, width, activate=True)
        self.logit = EqualLinear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """float32[B, 3, R, R] in −1..1 -> logits float32[B]."""
        x = self.from_rgb(x.contiguous(memory_format=torch.channels_last))
        for block in self.blocks:
            x = block(x)
        with torch.autocast(x.device.type, enabled=False):  # little work, and small differences between images
            x = self.conv(minibatch_stddev(x.to(self.logit.weight.dtype), self.stddev_group))
            return self.logit(self.hidden(x.flatten(1)))[:, 0]


def minibatch_stddev(x: Tensor, group: int) -> Tensor:
    """Append a channel with the mean standard deviation over groups of images: [B, C, H, W] -> [B, C + 1, H, W].

    A group is of consecutive images, so that kinds of images that follow each other in a batch are judged apart. All
    groups are of one size, since the deviation grows with it: it would tell a batch of 16 from one of 35. What is left
    over at the end takes the statistic of the batch's last `group` images.

    Args:
        group: images of a group, of a smaller batch all.
    """
    size = min(group, len(x))
    whole = len(x) - len(x) % size
    groups = x[:whole].unflatten(0, (-1, size))
    if whole < len(x):
        groups = torch.cat([groups, x[-size:][None]])
    deviation = torch.sqrt(groups.var(1, correction=0) + STDDEV_EPS)
    statistic = deviation.mean((1, 2, 3)).repeat_interleave(size)[: len(x)]
    channel = statistic[:, None, None, None].expand(-1, 1, *x.shape[2:])
    return torch.cat([x, channel], 1).contiguous(memory_format=torch.channels_last)


def build_discriminator(settings: Vae, resolution: int, adversarial: Adversarial, seed: int) -> Discriminator:
    """A new discriminator on the CPU, its weights given by the arguments alone; torch's random state stays.

    Raises:
        ConfigError: as `Discriminator`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return Discriminator(settings, resolution, adversarial.stddev_group)


def save_discriminator(place: Place, discriminator: Discriminator) -> None:
    """Write it to a file, a path or URI, atomically.

    Raises:
        StorageError: the file cannot be written.
        InputError: a weight is not finite.
    """
    location, tensors = Location.of(place), discriminator.state_dict()
    check_finite(tensors, f"{location.uri} not written")
    header = {"format": FORMAT, "version": VERSION, "discriminator": discriminator.structure}
    location.write_bytes(pack(tensors, header))


def load_discriminator(
    place: Place, device: torch.device | str = "cpu", *, expect: tuple[Vae, int, Adversarial] | None = None
) -> Discriminator:
    """Read what `save_discriminator` wrote.

    Args:
        expect: what `build_discriminator` would get; the file must be of that structure.

    Raises:
        InputError: the file is missing, damaged, not ours, of another structure than expected, or its tensors do not
            fit its own or are not finite; the message names which.
    """
    location = Location.of(place)
    if not location.exists():
        raise InputError(f"{location.uri}: there is no such checkpoint file")
    data = location.read_bytes()
    header = read_header(data, location.uri, FORMAT, VERSION)
    try:
        discriminator = _rebuild(header["discriminator"])
    except (KeyError, TypeError, ValueError, ValidationError, ConfigError) as e:
        raise InputError(f"{location.uri}: its header does not describe a discriminator ({e})") from None
    if expect is not None:
        vae, resolution, adversarial = expect
        wanted = _structure(vae, resolution, adversarial.stddev_group)
        if discriminator.structure != wanted:
            difference = describe_difference(discriminator.structure, wanted)
            raise InputError(f"{location.uri}: another structure: {difference}")
    tensors = load_tensors(data, location.uri, discriminator.state_dict())
    check_finite(tensors, location.uri)
    discriminator.load_state_dict(tensors)
    return discriminator.to(device)


def _structure(settings: Vae, resolution: int, stddev_group: int) -> dict[str, int]:
    """What a discriminator is built from: equal for equal networks."""
    return {
        "resolution": resolution,
        "channel_base": settings.channel_base,
        "channel_max": settings.channel_max,
        "stddev_group": stddev_group,
    }


def _rebuild(structure: dict[str, Any]) -> Discriminator:
    widths = Vae(channel_base=structure["channel_base"], channel_max=structure["channel_max"])
    group = Adversarial(stddev_group=structure["stddev_group"])
    return build_discriminator(widths, int(structure["resolution"]), group, seed=0)
