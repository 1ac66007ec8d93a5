"""The sequence VAE: a GRU (Cho et al. 2014) reads the tokens, another writes them from z, one after the other.

Trained by teacher forcing with word dropout (Bowman et al. 2016, arXiv:1511.06349), so that the decoder has to ask z,
which joins each of its inputs. The loss is −log p(x|z) + β KL, in nats a molecule.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ldsaug_ray.common.molecule_tokens import BEGIN, END, MASK, PAD, Smiles, Vocabulary
from ldsaug_ray.config import Objective
from ldsaug_ray.models.codec import Codec
from ldsaug_ray.models.sequence.settings import SequenceVae
from ldsaug_ray.models.training.losses import free_bits, kl_standard_normal, warmed_up

IGNORED = -100  # cross entropy's own word for positions that do not count


class Reader(nn.Module):
    """Tokens to (μ, log σ²), from the state after the last."""

    def __init__(self, tokens: int, embedding: int, hidden: int, latent_dim: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(tokens, embedding, padding_idx=PAD)
        self.gru = nn.GRU(embedding, hidden, batch_first=True)
        self.head = nn.Linear(hidden, 2 * latent_dim)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """int64[B, T] -> float32[B, d] twice."""
        states, _ = self.gru(self.embed(tokens))
        last = (tokens != PAD).sum(1) - 1  # of END; states of the padding behind it are not looked at
        mu, logvar = self.head(states[torch.arange(len(tokens), device=tokens.device), last]).chunk(2, 1)
        return mu, logvar


class Writer(nn.Module):
    """z and the tokens before to logits of the next."""

    def __init__(self, tokens: int, embedding: int, hidden: int, latent_dim: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(tokens, embedding, padding_idx=PAD)
        self.begin = nn.Linear(latent_dim, hidden)
        self.gru = nn.GRU(embedding + latent_dim, hidden, batch_first=True)
        self.head = nn.Linear(hidden, tokens)

    def state(self, z: Tensor) -> Tensor:
        """float32[1, B, hidden] before the first token."""
        return torch.tanh(self.begin(z))[None]

    def forward(self, z: Tensor, before: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """float32[B, d], int64[B, T], float32[1, B, hidden] -> logits float32[B, T, V], the state after them."""
        given = torch.cat([self.embed(before), z[:, None].expand(-1, before.shape[1], -1)], 2)
        out, state = self.gru(given, state)
        return self.head(out), state


class SequenceVAE(Codec):
    """Latents of molecules, and molecules of latents.

    given: notation and tokens, as the domain learned them, and max_length, characters of a SMILES, and tokens that
    decoding takes at most. Weights follow from the arguments alone.
    """

    unit = "molecules"

    def __init__(self, settings: SequenceVae, given: Mapping[str, Any], seed: int) -> None:
        super().__init__()
        self.settings, self.given = settings, given
        self.vocabulary, self.max_length = Vocabulary(given["notation"], given["tokens"]), int(given["max_length"])
        self.latent_dim = settings.latent_dim
        self.word_dropout, self.temperature = settings.word_dropout, settings.temperature
        sizes = (len(self.vocabulary), settings.embedding, settings.hidden, settings.latent_dim)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.encoder, self.decoder = Reader(*sizes), Writer(*sizes)

    def blank(self, n: int) -> Smiles:
        """As of `Codec`."""
        return np.zeros(n, f"S{self.max_length}")

    def to_tensor(self, batch: Smiles) -> Tensor:
        """SMILES S[B] -> int64[B, T] on the CPU. Raises InputError for a token that the vocabulary lacks."""
        return torch.from_numpy(self.vocabulary.numbers(batch))

    def to_batch(self, output: Tensor) -> Smiles:
        """int64[B, T], as `decode` gives them, -> SMILES S[B], which need not be molecules."""
        return self.vocabulary.smiles(output.cpu().numpy(), self.max_length)

    def encode(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """(μ, log σ²) of q(z|x), both float32[B, d], of int64[B, T]."""
        mu, logvar = self.encoder(items)
        return mu, logvar

    def token_likelihood(self, z: Tensor, tokens: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """log p(x|z) in nats, float32[B], of latents and int64[B, T].

        A generator masks `word_dropout` of the tokens that the next ones are told from.
        """
        before = torch.cat([torch.full_like(tokens[:, :1], BEGIN), tokens[:, :-1]], 1)
        if generator is not None and self.word_dropout:
            drawn = torch.rand(before.shape, generator=generator, device=before.device)
            before = before.masked_fill((drawn < self.word_dropout) & (before > END), MASK)
        logits, _ = self.decoder(z, before, self.decoder.state(z))
        targets = tokens.masked_fill(tokens == PAD, IGNORED)
        return -nn.functional.cross_entropy(logits.mT, targets, ignore_index=IGNORED, reduction="none").sum(1)

    def likelihood(self, z: Tensor) -> Tensor:
        """log p(x|z) in nats, float32[B], of the tokens that are decoded of each latent."""
        return self.token_likelihood(z, self.decode(z))

    def step_loss(
        self, items: Tensor, weights: Tensor, objective: Objective, step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """As of `Codec`; `reconstruction` is −log p(x|z), in nats a molecule."""
        mu, logvar = self.encode(items)
        eps = torch.randn(mu.shape, generator=generator, device=mu.device)
        z = torch.addcmul(mu, torch.exp(0.5 * logvar), eps)
        error = -(weights @ self.token_likelihood(z, items, generator))
        kl = kl_standard_normal(mu, logvar)
        beta = warmed_up(objective.beta, step, objective.kl_warmup_steps)
        total = objective.reconstruction_weight * error + beta * free_bits(kl, weights, objective.free_bits)
        of = {"reconstruction": error, "kl": weights @ kl.sum(1), "beta": torch.full_like(error, beta)}
        return {"loss": total, **{name: term.detach() for name, term in of.items()}}

    @torch.inference_mode()
    def held_out_error(self, batch: Smiles, objective: Objective) -> float:
        """Mean −log p(x|μ), nats a molecule. Raises InputError for tokens that the training molecules lack."""
        self.eval()
        items = self.to_tensor(batch).to(self.device)
        return float(-self.token_likelihood(self.encode(items)[0], items).mean())

    def decode(self, z: Tensor, *, seed: int = 0) -> Tensor:
        """Tokens int64[B, max_length] of latents: a function of each z, the seed and the settings alone.

        With a temperature a token is drawn by the Gumbel-max trick, with numbers that follow from (seed, z).
        """
        logits_of, state = self.decoder, self.decoder.state(z)
        out = torch.full((len(z), self.max_length), PAD, dtype=torch.int64, device=z.device)
        last = torch.full((len(z), 1), BEGIN, dtype=torch.int64, device=z.device)
        done = torch.zeros(len(z), dtype=torch.bool, device=z.device)
        draws = [_generator(row, seed) for row in z.detach().cpu().numpy()] if self.temperature else []
        for at in range(self.max_length):
            logits, state = logits_of(z, last, state)
            scores = logits[:, 0]
            scores[:, [PAD, BEGIN, MASK]] = -torch.inf
            if draws:
                noise = np.stack([draw.gumbel(size=scores.shape[1]) for draw in draws])
                scores = scores + self.temperature * torch.from_numpy(noise).to(scores)
            last = scores.argmax(1, keepdim=True).masked_fill(done[:, None], PAD)
            out[:, at] = last[:, 0]
            done |= last[:, 0] == END
            if bool(done.all()):
                break
        return out


def _generator(z: np.ndarray[Any, Any], seed: int) -> np.random.Generator:
    digest = hashlib.blake2b(z.tobytes(), digest_size=8, key=seed.to_bytes(8, "little")).digest()
    return np.random.Generator(np.random.Philox(int.from_bytes(digest, "little")))
