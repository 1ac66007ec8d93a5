"""Section `vae` of the sequence VAE."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ldsaug_ray.config import CommonVae, Positive


class SequenceVae(CommonVae):
    """A VAE of token sequences, GRU to GRU, trained here."""

    kind: Literal["sequence"] = Field("sequence", description="sequence: a GRU encoder and a GRU decoder of tokens")
    latent_dim: Positive = Field(32, description="d, the latent's dimension")
    embedding: Positive = Field(48, description="dimensions of a token")
    hidden: Positive = Field(192, description="width of both GRUs")
    word_dropout: float = Field(
        0.1, ge=0, lt=1, description="share of the tokens before that are hidden from the decoder in training"
    )
    temperature: float = Field(
        0.0, ge=0, description="of decoding: 0 takes the likeliest token each time; else tokens are drawn, by z alone"
    )
