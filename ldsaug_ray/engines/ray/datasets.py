"""Lazy Datasets: what is to be done is written down now, and done when somebody consumes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from ray.data import Dataset


def later(make: Callable[[], Iterator[pa.Table]]) -> Dataset:
    """The tables that `make` gives, blocks of a Dataset. `make` runs when they are consumed, in a task of its own that
    reserves no CPU, so that it may ask Ray for workers and wait for them; it is sent there, with what it holds.
    """
    import ray.data

    def tables(_: pa.Table) -> Iterator[pa.Table]:
        yield from make()

    one = ray.data.range(1, override_num_blocks=1)
    return one.map_batches(tables, batch_size=None, batch_format="pyarrow", num_cpus=0)
