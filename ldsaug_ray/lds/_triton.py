"""The engine's inner loop on a GPU: the same sums as `_compiled.add_combinations`, one program a candidate, by Triton.

Imported only where a GPU is asked for, or TRITON_INTERPRET=1, with which Triton runs the same code on a CPU: slow, but
it shows without a GPU that the code is right.
"""

from __future__ import annotations

import os

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray

BLOCK = 256  # latents of one candidate at a time


def interpreted() -> bool:
    """Whether Triton runs on the CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@triton.jit
def _add(  # type: ignore[no-untyped-def]
    cross, norms, common, own, i, j, u, v, w, factors, low, total, squares, n_latents, n_alphas, n_sigmas, far,
    BLOCK: tl.constexpr, WIDE: tl.constexpr
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64)  # the candidate: alpha fastest
    row_i, row_j = tl.load(i + at // n_alphas), tl.load(j + at // n_alphas)
    u_share, v_share, w_share = tl.load(u + at), tl.load(v + at), tl.load(w + at)
    own_i, own_j = tl.load(own + row_i), tl.load(own + row_j)
    s = tl.arange(0, WIDE)
    factor = tl.load(factors + s, mask=s < n_sigmas, other=0.0)
    place = at * n_sigmas + s
    all_weights = tl.load(total + place, mask=s < n_sigmas, other=0.0)
    all_squares = tl.load(squares + place, mask=s < n_sigmas, other=0.0)
    least = tl.load(low + at)
    for start in range(0, n_latents, BLOCK):
        k = start + tl.arange(0, BLOCK)
        inside = k < n_latents
        x = tl.load(cross + row_i * n_latents + k, mask=inside, other=0.0)
        y = tl.load(cross + row_j * n_latents + k, mask=inside, other=0.0)
        norm, product = tl.load(norms + k, mask=inside, other=0.0), tl.load(common + k, mask=inside, other=0.0)
        seen = inside & (k != own_i) & (k != own_j)
        gap = tl.where(seen, norm - 2 * (u_share * x + v_share * y + w_share * product), far)
        nearest = tl.minimum(least, tl.min(gap, axis=0))
        shrink = tl.exp2(factor * (nearest - least)).to(tl.float64)
        weight = tl.exp2(factor[:, None] * (nearest - gap)[None, :])
        weight = tl.where(seen[None, :], weight, 0.0)
        all_weights = all_weights * shrink + tl.sum(weight, axis=1).to(tl.float64)
        all_squares = all_squares * shrink * shrink + tl.sum(weight * weight, axis=1).to(tl.float64)
        least = nearest
    tl.store(low + at, least)
    tl.store(total + place, all_weights, mask=s < n_sigmas)
    tl.store(squares + place, all_squares, mask=s < n_sigmas)


class Combinations:
    """Sums at the points u z_i + v z_j + w c of some pairs; everything but one tile of latents stays on the device."""

    def __init__(
        self,
        device: torch.device,
        rows: NDArray[np.floating],  # [R, d]
        i: NDArray[np.int64],  # [P] rows
        j: NDArray[np.int64],
        shares: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],  # u, v, w: [P, A]
        factors: NDArray[np.float64],  # [S] log2(e) / 2 sigma**2
    ) -> None:
        self.device, self.kind = device, torch.from_numpy(rows).dtype
        self.rows = torch.from_numpy(rows).to(device)
        self.i, self.j = (torch.from_numpy(side).to(device) for side in (i, j))
        self.shares = [torch.from_numpy(np.ascontiguousarray(x)).to(device, self.kind) for x in shares]
        self.factors = torch.from_numpy(factors).to(device, self.kind)
        self.far = 1e30 if self.kind == torch.float32 else 1e300
        shape = shares[0].shape
        self.low = torch.full(shape, self.far, dtype=self.kind, device=device)
        self.total, self.squares = (
            torch.zeros((*shape, len(factors)), dtype=torch.float64, device=device) for _ in range(2)
        )

    def add(
        self,
        latents: NDArray[np.floating],  # [k, d]
        norms: NDArray[np.floating],  # [k] squared
        common: NDArray[np.floating],  # [k] inner products with c
        own: NDArray[np.int64],  # [R] the latent that a row is, or a number outside
    ) -> None:
        """Add the weights of one tile of latents; a row's own one has none."""
        tile, norms_, common_, own_ = (torch.from_numpy(x).to(self.device) for x in (latents, norms, common, own))
        cross = torch.mm(self.rows, tile.T)
        n_alphas, n_sigmas = self.total.shape[1:]
        wide = triton.next_power_of_2(n_sigmas)
        _add[(self.low.numel(),)](
            cross, norms_, common_, own_, self.i, self.j, *self.shares, self.factors, self.low, self.total,
            self.squares, len(tile), n_alphas, n_sigmas, self.far, BLOCK=max(16, BLOCK // wide), WIDE=wide
        )  # fmt: skip

    def result(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Least gap [P, A] (infinite where no latent has weight), sums of weights and of their squares [P, A, S]."""
        low = self.low.double()
        low[low >= self.far] = torch.inf
        return low.cpu().numpy(), self.total.cpu().numpy(), self.squares.cpu().numpy()
