from __future__ import annotations

import numpy as np
import pytest
from lds_oracles import score

from ldsaug_ray.lds import PairScores, plan_block, plan_pairs, shards

ALPHAS = [0.1, 0.5, 0.9]


def latents(n: int = 230, d: int = 16) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((n, d)).astype(np.float32) + np.float32(3)


def assert_close(got: PairScores, want: dict[str, np.ndarray]) -> None:
    for name in ("log_lds", "log_lds_excluding_parents"):
        np.testing.assert_allclose(getattr(got, name), want[name], rtol=0, atol=1e-5)
    for name in ("parent_share", "effective_neighbours"):
        np.testing.assert_allclose(getattr(got, name), want[name], rtol=1e-4)


@pytest.mark.parametrize("kind", ["linear", "slerp"])
@pytest.mark.parametrize("size", [230, 100, 37, 1])
def test_any_shards_give_the_score(size: int, kind) -> None:
    z, sigma = latents(), 1.5
    pairs = plan_pairs(len(z), 40, 2)
    rows, local, shape = shards.parents_of(pairs)
    np.testing.assert_array_equal(rows[local], pairs)
    work = shards.Work.of(rows, z[rows], local, ALPHAS, [sigma], kind, shape)
    frame, cuts = shards.Frame.over(z), shards.cut(len(z), size)
    assert [n for c in cuts for n in range(len(z))[c]] == list(range(len(z)))
    got = shards.scores(work, (shards.part(frame, work, z[c], c.start) for c in cuts), len(z))
    assert_close(got, score(z, pairs, ALPHAS, [sigma], kind))


def test_whole_rows_of_a_block_are_scored_as_a_grid() -> None:
    z, sigma = latents(), 1.5
    i, j = plan_block(len(z), (9, 7), 0, 1)
    pairs = np.stack([np.repeat(i, 7), np.tile(j, 9)], axis=1)[: 4 * 7]
    rows, local, shape = shards.parents_of(pairs, 7)
    assert shape == (4, 7)
    np.testing.assert_array_equal(rows[local], pairs)
    work = shards.Work.of(rows, z[rows], local, ALPHAS, [sigma], "linear", shape)
    frame = shards.Frame.over(z)
    parts = [shards.part(frame, work, z[c], c.start) for c in shards.cut(len(z), 90)]
    got = shards.scores(work, parts, len(z))
    assert_close(got, score(z, pairs, ALPHAS, [sigma]))
