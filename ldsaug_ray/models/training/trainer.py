"""The state of a training run and one step of it, for ranks and plain scripts alike.

Long, since a step is one sequence, whose parts share its batch, its noise and its gradients.

Every random number of a step (flips, ε, noise, samples, augmentation) comes from a generator seeded by (seed, step,
rank). A resumed run therefore needs weights, Adam's moments and a few counters, and no random state; on a CPU it goes
on bit for bit.

A step takes all gradients at the same weights, averages them and the logged terms over the workers in one all-reduce,
waits once for the device, checks every number, and only then moves anything.
"""

from __future__ import annotations

import copy
import hashlib
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ldsaug_ray.config import Optimisation, Uses
from ldsaug_ray.errors import ConfigError, DivergedError
from ldsaug_ray.models.autoencoder import Autoencoder
from ldsaug_ray.models.codec import Codec
from ldsaug_ray.models.stylegan2.adversarial import PATH_DECAY, path_lengths, r1_gamma
from ldsaug_ray.models.stylegan2.adversary import Adversary
from ldsaug_ray.models.stylegan2.decoder import Decoder
from ldsaug_ray.models.stylegan2.discriminator import Discriminator, build_discriminator
from ldsaug_ray.models.training import ema, items
from ldsaug_ray.models.training.adam import AdamW
from ldsaug_ray.models.training.batch import Augmented, Batch, prepare
from ldsaug_ray.models.training.objective import ModelLoss, Pass, Terms
from ldsaug_ray.models.training.perceptual import load_perceptual
from ldsaug_ray.models.training.workers import mean_over_workers

CENTRE_MOMENTUM = 0.05


class _Move(NamedTuple):
    """A step that an optimiser is about to take."""

    optimizer: torch.optim.Optimizer
    parameters: list[nn.Parameter]
    gradients: list[Tensor]
    name: str  # of the gradient's norm


class Trainer:
    """A model, its discriminator where it has one, their optimisers, and the number of steps taken.

    On GPUs TF32 is switched off for the whole process, as StyleGAN3's training loop does: what is not bfloat16 is
    meant to be float32, above all R1 and path lengths.

    Args:
        seed: with step and rank the source of all randomness.
        rank: this worker's number, so that workers draw different noise.
        world: workers; with more than one torch.distributed must have its default group.
        discriminator: one to go on with; none: a new one from `seed`. Without objective.adversarial.weight there is no
            use for either.
        freeze: what is not trained.
        uses: what A is used for, in fine-tuning. The latents' coordinates (`centre`) are then those of A, and stay.
        fixed_centre: let `centre` stay in any case.

    Attributes:
        step: steps taken so far.
        images: training images seen so far, on all workers.
        model: the live model.
        averaged: its running average in evaluation mode, for saving and inference; the live model where
            settings.ema_half_life is 0.
        discriminator: or none.

    Raises:
        ConfigError: the objective or `uses` asks for what this model or these settings cannot give.
        InputError: a perceptual network that cannot be used.
    """

    def __init__(
        self,
        model: Codec,
        settings: Optimisation,
        seed: int,
        device: torch.device | str,
        *,
        rank: int = 0,
        world: int = 1,
        discriminator: Discriminator | None = None,
        freeze: str = "none",
        uses: Uses | None = None,
        fixed_centre: bool = False,
    ) -> None:
        self.device = torch.device(device)
        self.settings, self.seed, self.rank, self.world = settings, seed, rank, world
        self.freeze, self.uses = freeze, uses
        self.step = self.images = 0
        objective = settings.objective
        self.adversarial = objective.adversarial
        if self.device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        _check(model, settings, freeze, uses)
        self.model = model.to(self.device)
        self._centre: Tensor | None = getattr(model, "centre", None)
        if freeze != "none":
            getattr(model, freeze).requires_grad_(False)
        if fixed_centre or uses is not None or freeze != "none":
            self._centre = None
        self.averaged = model
        if settings.ema_half_life:
            self.averaged = _copied(model).eval()
        bfloat16 = _bfloat16(settings.precision, self.device)
        self._bfloat16 = bfloat16
        if isinstance(model, Autoencoder):
            perceptual = load_perceptual(objective.perceptual, model.resolution, self.device)
            self._loss = ModelLoss(model, objective, uses, perceptual, bfloat16)
        self._path_length = objective.adversarial.path_length
        self.optimizer = self._optimizer(
            model, settings.learning_rate, self.adversarial.path_length_every if self._path_length else None
        )
        self.path_mean = torch.zeros((), device=self.device)
        self.discriminator: Discriminator | None = None
        if self.adversarial.weight:
            assert isinstance(model, Autoencoder)  # `_check`
            discriminator = discriminator or build_discriminator(
                model.settings, model.resolution, self.adversarial, seed
            )
            self.discriminator = discriminator.to(self.device).train()
            # reals and fakes differ in number: groups of one size, which the smaller of them has
            group = min(self.adversarial.stddev_group, max(1, settings.batch_size // world))
            self.discriminator.stddev_group = group
            self._gamma = r1_gamma(self.adversarial, model.resolution, settings.batch_size)
            a_is_real = uses is None or not uses.adversarial
            self.adversary = Adversary(discriminator, self.adversarial, bfloat16, a_is_real)
            self.discriminator_optimizer = self._optimizer(
                discriminator,
                self.adversarial.learning_rate or settings.learning_rate,
                self.adversarial.r1_every if self._gamma else None,
            )
        if settings.compile:
            _compile(model)

    def train_step(
        self,
        images: np.ndarray | Tensor,
        augmented: Augmented | None = None,
        judged: np.ndarray | Tensor | None = None,
    ) -> dict[str, float]:
        """Take one step on a batch, of images uint8[B, R, R, 3], and return its terms, in the mean over workers,
        unweighted. Those of a codec with a loss of its own are what `Codec.step_loss` gives.

        judged: float32[B, d], latents whose pictures the discriminator judges as samples; none: from N(0, I).

        They are loss (the weighted sum), reconstruction (per pixel value), kl (nats per image), beta, perceptual,
        cycle, adversarial (the decoder's), discriminator (its own), real_logit, fake_logit, real_sign,
        augment_probability, gradient_norm, discriminator_gradient_norm; and, on the steps that evaluate them, r1,
        path_length and the norms of their gradients. What the settings do not ask for is absent.

        Raises:
            InputError: images, or a part of A, of another shape or dtype.
            DivergedError: a term or gradient of any worker is not finite. All workers raise it and nothing has moved.
        """
        generator = step_generator(self.seed, self.step, self.rank, self.device)
        if not isinstance(self.model, Autoencoder):
            return self._step_of_items(np.asarray(images), augmented, generator)
        batch = prepare(
            images,
            augmented,
            judged,
            uses=self.uses,
            resolution=self.model.resolution,
            latent_dim=self.model.latent_dim,
            flip=self.settings.horizontal_flip,
            world=self.world,
            device=self.device,
            generator=generator,
        )
        self.model.train()
        begun = self.step >= self.adversarial.start_step
        opposed = self.discriminator is not None and begun
        out = self._loss(batch, self.step, generator, opposed)
        moves, terms = self._main(out, batch, opposed, generator)
        if self._path_length and begun and self.step % self.adversarial.path_length_every == 0:
            moves.append(self._regularise_paths(batch, generator, terms))
        if opposed and self._gamma and self.step % self.adversarial.r1_every == 0:
            moves.append(self._regularise_discriminator(batch, generator, terms))
        numbers, mu = self._agree(moves, terms, out.mu)
        for move in moves:
            _take(move)
        self._follow(batch.real, mu, terms)
        return numbers

    def _step_of_items(
        self, rows: np.ndarray, augmented: Augmented | None, generator: torch.Generator
    ) -> dict[str, float]:
        """A step of a codec that brings its own loss."""
        self.model.train()
        objective = self.settings.objective
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bfloat16):
            out = items.pass_of(self.model, rows, augmented, self.uses, objective, self.step, self.world, generator)
        move = _backward([out.total], [None], self.optimizer, "gradient_norm")
        terms = {"loss": out.total.detach(), **out.terms}
        numbers, mu = self._agree([move], terms, out.mu)
        _take(move)
        self._follow(len(rows), mu, terms)
        return numbers

    def _main(self, out: Pass, batch: Batch, judged: bool, generator: torch.Generator) -> tuple[list[_Move], Terms]:
        """Gradients of both sides' losses."""
        total, terms = out.total, dict(out.terms)
        roots: list[Tensor] = [total]
        cotangents: list[Tensor | None] = [None]
        moves: list[_Move] = []
        if judged and out.fakes is not None:
            verdict = self.adversary.judge(batch, out.fakes, generator)
            moves.append(_backward([verdict.loss], [None], self.discriminator_optimizer, "discriminator_gradient_norm"))
            terms |= verdict.terms
            total = total + self.adversarial.weight * verdict.adversarial
            if out.fakes.images.requires_grad:
                roots.append(out.fakes.images)
                cotangents.append(self.adversarial.weight * verdict.gradient)
        moves.insert(0, _backward(roots, cotangents, self.optimizer, "gradient_norm"))
        return moves, {"loss": total.detach(), **terms}

    def _regularise_paths(self, batch: Batch, generator: torch.Generator, terms: Terms) -> _Move:
        """Path length regularisation on half of a batch. The running mean is that of the steps before."""
        every = self.adversarial.path_length_every
        z = torch.randn(max(1, batch.real // 2), self.model.latent_dim, generator=generator, device=self.device)
        decoder, centre = self.model.decoder, getattr(self.model, "centre", None)
        assert isinstance(decoder, Decoder)  # `_check`
        assert centre is not None
        lengths = path_lengths(decoder, z + centre, generator)
        penalty = (lengths - self.path_mean).square().mean()
        terms["path_length"] = penalty.detach()
        terms["mean_path"] = lengths.detach().mean()
        weighted = self._path_length * every * penalty
        return _backward([weighted], [None], self.optimizer, "path_length_gradient_norm")

    def _regularise_discriminator(self, batch: Batch, generator: torch.Generator, terms: Terms) -> _Move:
        penalty = self.adversary.r1(batch, generator)
        terms["r1"] = penalty.detach()
        weighted = self._gamma / 2 * self.adversarial.r1_every * penalty
        return _backward([weighted], [None], self.discriminator_optimizer, "r1_gradient_norm")

    def _agree(self, moves: list[_Move], terms: Terms, mu: Tensor) -> tuple[dict[str, float], Tensor]:
        """Average gradients and terms over workers, in place, clip, and check; gives the terms and the mean of μ."""
        gradients = [g for move in moves for g in move.gradients]
        mean = mu.mean(0)
        values = torch.stack(list(terms.values()))
        *averages, values, mean = mean_over_workers([*gradients, values, mean], self.world)
        if self.world > 1:
            torch._foreach_copy_(gradients, averages)
        terms.update(zip(terms, values.unbind(), strict=True))
        limit = self.settings.gradient_clip
        for move in moves:
            norm = nn.utils.get_total_norm(move.gradients)
            if limit is not None:
                torch._foreach_mul_(move.gradients, (limit / (norm + 1e-6)).clamp(max=1.0))
            terms[move.name] = norm
        numbers = dict(zip(terms, torch.stack(list(terms.values())).tolist(), strict=True))  # the one wait
        if bad := [name for name, value in numbers.items() if not math.isfinite(value)]:
            for move in moves:
                move.optimizer.zero_grad(set_to_none=True)
            causes = [n for n in bad if n != "loss" and not n.endswith("gradient_norm")] or bad  # the sum follows
            raise DivergedError(
                f"training diverged at step {self.step}: {', '.join(f'{n} = {numbers[n]}' for n in causes)}; lower "
                f"learning_rate (now {self.settings.learning_rate:g}) or set gradient_clip, and run again"
            )
        return numbers, mean

    @torch.no_grad()
    def _follow(self, images: int, mu: Tensor, terms: Terms) -> None:
        """What moves with the weights: the centre, the averages, ADA's probability, the running path length."""
        images *= self.world
        if self._centre is not None:
            self._centre.add_(mu, alpha=CENTRE_MOMENTUM)
        if "mean_path" in terms:
            self.path_mean.lerp_(terms["mean_path"], PATH_DECAY)
        if "real_sign" in terms:
            self.adversary.follow(terms["real_sign"], images, self.step)
        if self.averaged is not self.model:
            ema.update(self.averaged, self.model, ema.decay(self.settings.ema_half_life, self.images, images))
        self.images += images
        self.step += 1

    def _optimizer(self, network: nn.Module, learning_rate: float, every: int | None) -> torch.optim.Optimizer:
        """AdamW (Adam without decay). With a lazy regulariser every k steps Adam takes k + 1 steps for k, so its rate
        and moments get the correction c = k / (k + 1): Karras et al. 2020 (arXiv:1912.04958), appendix B."""
        c = 1.0 if every is None else every / (every + 1)
        beta1, beta2 = self.settings.adam_betas
        return AdamW(
            [p for p in network.parameters() if p.requires_grad],
            lr=learning_rate * c,
            betas=(beta1**c, beta2**c),
            eps=1e-8,
            weight_decay=self.settings.weight_decay,
            fused=True,  # one pass over weights and moments; many small layers make the plain form slow
        )


def step_generator(seed: int, step: int, rank: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on `device` that depends on (seed, step, rank) alone, through BLAKE2b."""
    digest = hashlib.blake2b(f"{seed}/{step}/{rank}".encode(), digest_size=8).digest()
    # 63 bits: torch takes seeds as signed integers
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "little") >> 1)


def _backward(
    roots: list[Tensor], cotangents: list[Tensor | None], optimizer: torch.optim.Optimizer, name: str
) -> _Move:
    """Gradients of an optimiser's parameters, in their own memory layout; unused ones are left out."""
    parameters: list[nn.Parameter] = optimizer.param_groups[0]["params"]
    torch.autograd.backward(roots, cotangents, inputs=parameters)
    used = [p for p in parameters if p.grad is not None]
    gradients = [p.grad for p in used if p.grad is not None]
    for parameter in used:
        parameter.grad = None
    return _Move(optimizer, used, gradients, name)


def _take(move: _Move) -> None:
    for parameter, gradient in zip(move.parameters, move.gradients, strict=True):
        parameter.grad = gradient
    move.optimizer.step()
    move.optimizer.zero_grad(set_to_none=True)


def _copied(model: Codec) -> Codec:
    """A copy whose weights take no gradient. TorchScript's parameters that take one cannot be copied as leaves."""
    wanted = [p.requires_grad for p in model.parameters()]
    copied = copy.deepcopy(model.requires_grad_(False))
    for parameter, trained in zip(model.parameters(), wanted, strict=True):
        parameter.requires_grad_(trained)
    return copied


def _bfloat16(precision: str, device: torch.device) -> bool:
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return precision == "bfloat16"


def _compile(model: Codec) -> None:
    """Compile the forward passes in place; weights keep their names, and path lengths their plain form."""
    model.encoder.compile()
    if isinstance(model.decoder, Decoder):
        setattr(model.decoder, "synthesis", torch.compile(model.decoder.synthesis))  # noqa: B010  mypy: a method
    else:
        model.decoder.compile()


def _check(model: Codec, settings: Optimisation, freeze: str, uses: Uses | None) -> None:
    """Raise ConfigError where the settings contradict the model or each other."""
    adversarial = settings.objective.adversarial
    if not isinstance(model, Autoencoder):
        items.check(settings.objective, uses)
    elif not isinstance(model.decoder, Decoder):
        for name in ("style_mixing", "path_length"):
            if getattr(adversarial, name):
                raise ConfigError(
                    f"objective.adversarial.{name}: only the StyleGAN2 decoder has styles; set it to 0 with this "
                    f"{type(model).__name__}"
                )
    if adversarial.path_length and freeze == "decoder":
        raise ConfigError("objective.adversarial.path_length: nothing to regularise with freeze: decoder; set it to 0")
    if uses is not None and uses.adversarial and not adversarial.weight:
        raise ConfigError(
            "uses.adversarial: there is no discriminator; set objective.adversarial.weight above 0, or this to 0"
        )
    if freeze not in ("none", "encoder", "decoder"):
        raise ConfigError(f"freeze: {freeze!r} is not one of none, encoder, decoder")
    frozen = {id(p) for p in getattr(model, freeze).parameters()} if freeze != "none" else set()
    if all(id(p) in frozen or not p.requires_grad for p in model.parameters()):
        raise ConfigError("the model has no weights to train (a frozen network, or all of it frozen by `freeze`)")
