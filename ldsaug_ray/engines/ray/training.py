"""A training on Ray Train: ranks in workers that start again when one of them dies, batches read ahead by Ray Data."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import ray
import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.collective import broadcast_from_rank_zero

from ldsaug_ray.engines.base import Asked, Training
from ldsaug_ray.engines.ray.beside import Monitor, beside_driver
from ldsaug_ray.engines.ray.meters import Meters
from ldsaug_ray.engines.ray.session import quieten_data
from ldsaug_ray.engines.signals import kept_back
from ldsaug_ray.errors import LdsaugError, error_named
from ldsaug_ray.run.progress import repeated

LOOK_SECONDS = 0.5
BLOCK_BYTES = 32_000_000  # of what is read ahead at a time


def train(training: Training, shown: Callable[[int, str], None], search: Any) -> None:
    """As of `Engine.train`. `search`: a monitor that may ask to stop, too; none: this is no trial's training.

    Raises:
        SystemExit: it did, and the ranks have saved.
    """
    from ray.train.torch import TorchTrainer

    pool, storage = training.pool, training.storage
    monitor: Any = beside_driver(Monitor)
    folder = storage / f"ray-{uuid.uuid4().hex[:8]}"  # Ray Train's own; nothing in it serves resuming

    class OurSignals(TorchTrainer):
        def _register_sigint_handler(self, controller: Any) -> None:
            """Not Ray's: it ends the ranks before they have saved, and stays when the training is over."""

    trainer = OurSignals(
        _work,
        train_loop_config={"training": training, "monitor": monitor},
        scaling_config=ScalingConfig(
            num_workers=training.world,
            use_gpu=pool.gpus > 0,
            resources_per_worker={
                "CPU": pool.cpus,
                **({"GPU": pool.gpus} if pool.gpus else {}),
                **({"memory": pool.memory} if pool.memory else {}),
            },
        ),
        run_config=RunConfig(
            name=folder.name,
            storage_path=storage.path,
            storage_filesystem=None if storage.is_local else storage.fs,
            failure_config=FailureConfig(max_failures=training.max_failures),
        ),
    )
    if search is not None:
        ray.get(search.count.remote(1))
    try:
        with _watch(monitor, shown, search):
            try:
                trainer.fit()  # a signal that was kept back acts as the block is left
            except Exception:
                if (failure := ray.get(monitor.failure.remote())) is not None:
                    raise error_named(*failure) from None
                raise
        if (failure := ray.get(monitor.failure.remote())) is not None:
            raise error_named(*failure)
        if search is not None and ray.get(search.stopping.remote()):
            raise SystemExit
    finally:
        folder.delete()
        if search is not None:
            search.count.remote(-1)


def _work(config: dict[str, Any]) -> None:
    """A rank's whole life. An error meant for the user ends all: trying again would only meet it again."""
    training, monitor = config["training"], config["monitor"]
    if ray.get(monitor.failure.remote()) is not None:  # of another rank, in the attempt before
        return
    quieten_data(False)
    rank = _Rank(training, monitor)
    try:
        training.work(rank)
    except LdsaugError as e:
        ray.get(monitor.fail.remote(type(e).__name__, str(e)))
        if rank.world > 1:
            raise  # or the other ranks would wait for this one


class _Rank:
    """As of `base.Rank`."""

    def __init__(self, training: Training, monitor: Any):
        import ray.train.torch

        context = ray.train.get_context()
        self.number, self.world = context.get_world_rank(), context.get_world_size()
        self.device = str(ray.train.torch.get_device()) if training.pool.gpus else "cpu"
        self.count = Meters(training.stage).count
        self._monitor = monitor
        self._leaving: list[str] = []

    def tell(self, step: int, note: str) -> None:
        """Left with the monitor, which the driver looks at."""
        self._monitor.set.remote(step, note)

    def meet(self) -> None:
        """Ray Train's report is a barrier."""
        ray.train.report({})

    def agree(self, value: int | None) -> int | None:
        """Sent by Ray Train's controller."""
        return broadcast_from_rank_zero(value)

    def asked(self) -> Asked | None:
        """By the driver; or, to save, since a node with a rank on it is about to be taken away."""
        if broadcast_from_rank_zero(self.number == 0 and ray.get(self._monitor.stopping.remote())):
            return "stop"
        notice = ray.train.get_preemption_info()
        leaving = [] if notice is None else notice.preempted_node_ids
        if leaving == self._leaving:
            return None
        self._leaving = leaving
        return "save"

    def stream(
        self,
        make: Callable[..., Callable[[pa.Table], Iterator[pa.Table]]],
        arguments: Sequence[Any],
        tasks: Sequence[Mapping[str, int]],
    ) -> Iterator[pa.Table]:
        """Read ahead by an actor of Ray Data's."""
        import ray.data

        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True  # the stream's order is what makes a resumed run the same run
        context.target_max_block_size = BLOCK_BYTES
        # one block each; from_arrow would run a task a block, and wait for a CPU that is taken
        data = ray.data.from_items([dict(task) for task in tasks], override_num_blocks=len(tasks)).map_batches(
            make,
            fn_constructor_args=tuple(arguments),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=0,  # must not wait for the CPUs that training holds
            compute=ray.data.ActorPoolStrategy(size=1),
        )
        for block in data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1):
            assert isinstance(block, pa.Table)
            yield block


@contextmanager
def _watch(monitor: Any, shown: Callable[[int, str], None], search: Any) -> Iterator[None]:
    begun = asked = False

    def look() -> None:
        nonlocal begun, asked
        try:
            if not asked and (told_to_stop() or (search is not None and ray.get(search.stopping.remote(), timeout=10))):
                ray.get(monitor.stop.remote(), timeout=10)
                asked = True
            state = ray.get(monitor.get.remote(), timeout=10)
        except ray.exceptions.RayError:
            return  # progress is a courtesy: training goes on without it
        if state is not None:
            begun = True
            shown(*state)

    with kept_back(lambda: begun) as told_to_stop, repeated(LOOK_SECONDS, look):
        yield
