"""Ranks on Ray Train: kept from one training to the next, started again where one dies, and gone where one must be."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import ray
import ray.train

from ldsaug_ray.engines.base import Rank, Training
from ldsaug_ray.engines.ray.training import KeptRanks
from ldsaug_ray.engines.resources import Pool
from ldsaug_ray.errors import InputError

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_local")]

POOL = Pool(1, 1, 0, None)


def note(file: Path, deaths: int, rank: Rank) -> None:
    """Leaves a line with the process that trains, and dies at the first so many attempts."""
    with file.open("a") as lines:
        lines.write(f"{os.getpid()}\n")
    rank.tell(7, "loss 1")
    if len(file.read_text().split()) <= deaths:
        os.kill(os.getpid(), signal.SIGKILL)


def refuse(rank: Rank) -> None:
    raise InputError("no such image")


@pytest.fixture
def ranks() -> Iterator[Callable[..., KeptRanks]]:
    this, made = sys.modules[__name__], []
    ray.cloudpickle.register_pickle_by_value(this)  # ranks do not see the tests

    def make(deaths: int = 1) -> KeptRanks:
        made.append(KeptRanks(1, POOL, deaths, reserves=False))
        return made[-1]

    yield make
    for kept in made:
        kept.close()
    ray.cloudpickle.unregister_pickle_by_value(this)


def test_they_are_kept_but_not_after_a_death_nor_an_error_of_the_users(ranks, tmp_path):
    kept, told = ranks(), []

    def trained(name: str, deaths: int = 0) -> list[str]:
        """Processes that were at work."""
        work = partial(note, tmp_path / name, deaths)
        kept.train(Training("train", work, 1, POOL, 1), lambda *state: told.append(state))
        return (tmp_path / name).read_text().split()

    first = trained("first")
    assert trained("second") == first
    assert (7, "loss 1") in told
    assert not kept.over
    before, after = trained("third", deaths=1)
    assert [before] == first
    assert after != before
    assert kept.over  # its one death is used up

    kept = ranks()
    with pytest.raises(InputError, match=r"^no such image$"):
        kept.train(Training("train", refuse, 1, POOL, 1), lambda *_: None)
    assert kept.over
    kept = ranks(deaths=0)
    with pytest.raises(ray.train.WorkerGroupError):
        trained("fourth", deaths=1)
    assert kept.over
