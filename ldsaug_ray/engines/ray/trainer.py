"""Ray Train without the processes that it starts beside its ranks, each of which imports for seconds: its controller
works in a thread of this process, and nothing of Ray Data's is there, since ranks read themselves what they train on.

What is overridden is not Ray's public interface, which has nothing for it. Imported where ranks start.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable
from threading import Event, Thread
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.controller.state import AbortedState, RunningState
from ray.train.v2._internal.execution.failure_handling import DefaultFailurePolicy, FailureDecision
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group import WorkerGroup
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from ldsaug_ray.errors import LdsaugError

CLOSE_SECONDS = 10.0  # that ranks may take to end; they may be waiting for CPUs


def meant_for_user(failed: BaseException) -> LdsaugError | None:
    """What a rank raised on purpose, among the reasons why Ray Train gave up."""
    errors = getattr(failed, "worker_failures", {}).values()
    return next((e for e in errors if isinstance(e, LdsaugError)), None)


class _Failures(DefaultFailurePolicy):
    """An error meant for the user ends all: trying again would only meet it again."""

    def make_decision(self, training_failed_error: Any) -> FailureDecision:
        if meant_for_user(training_failed_error) is not None:
            return FailureDecision.RAISE
        return super().make_decision(training_failed_error)


class _Workers(FixedScalingPolicy):
    """As many as asked for. Their placement group tells an autoscaler of them; nobody else has to know."""

    def after_controller_start(self, train_run_context: Any) -> None: ...

    def _maybe_send_resource_request(self) -> None: ...


class _Group(WorkerGroup):
    def _init_train_context_on_workers(self, workers: Any, sync_actor: Any, train_context_args: Any) -> None:
        """As Ray Train's own, but that the controller is no actor."""
        begun = [
            worker.actor.init_train_context.remote(
                train_run_context=self._train_run_context,
                distributed_context=worker.distributed_context,
                synchronization_actor=sync_actor,
                storage_context=self._storage_context,
                worker_callbacks=self._worker_callbacks_to_propagate,
                controller_actor=None,
                **{name: values[n] for name, values in train_context_args.items()},
            )
            for n, worker in enumerate(workers)
        ]
        ray.get(begun)

    @staticmethod
    def _get_worker_runtime_env(custom_runtime_env: Any) -> Any:
        """A local Ray's processes have the environment of this one; to be given it starts Python twice."""
        return WorkerGroup._get_worker_runtime_env(custom_runtime_env) if "RAY_ADDRESS" in os.environ else {}


class _Controller(TrainController):
    worker_group_cls = _Group
    closed = Event()  # in its place: that of the run

    async def run(self) -> None:
        """As Ray Train's own, until somebody closes the run."""
        while not self.get_state().is_terminal():
            if not self.closed.is_set():
                await self._run_control_loop_iteration()
                continue
            if (group := self.get_worker_group()) is not None:
                group.abort()
            self._set_state(AbortedState())


class _Trainer(DataParallelTrainer):
    run: TrainRun

    def _create_default_callbacks(self) -> list[Any]:
        unused = (DatasetsCallback,) if self.run.cleaned else (DatasetsCallback, PlacementGroupCleanerCallback)
        return [c for c in super()._create_default_callbacks() if not isinstance(c, unused)]

    def _initialize_and_run_controller(self, **given: Any) -> Any:
        given["scaling_policy"] = _Workers(given["scaling_policy"].scaling_config)
        given["failure_policy"] = _Failures(given["failure_policy"].failure_config)
        self.run.controller = controller = _Controller(**given)
        controller.closed = self.run.closed
        asyncio.run(controller.run())
        return controller.get_result()


class TrainRun:
    """A run of Ray Train's in a thread: a notebook's main thread has a loop of its own, and a signal must not hit the
    controller between two of its steps."""

    def __init__(
        self, work: Callable[[], None], world: int, each: dict[str, float], max_failures: int, *, cleaned: bool
    ):
        """
        Args:
            work: a rank's whole life.
            each: resources of a rank.
            cleaned: somebody frees what ranks reserve where this process dies and its job does not.
        """
        self._work, self._world, self._each, self._max_failures, self.cleaned = work, world, each, max_failures, cleaned
        self.controller: _Controller | None = None
        self.closed = Event()
        self.failed: Exception | None = None
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def over(self) -> bool:
        """Whether ranks have ended, or failed too often."""
        return not self._thread.is_alive()

    def group(self) -> Any:
        """Ranks at work: Ray Train's group; none while they start."""
        if self.controller is None or not isinstance(self.controller.get_state(), RunningState):
            return None
        return self.controller.get_worker_group()

    def close(self) -> None:
        """End the ranks, whatever they do."""
        self.closed.set()
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        try:
            self._fit()
        except Exception as e:
            self.failed = e

    def _fit(self) -> None:
        gpus, backend = self._each.get("GPU", 0), None
        if self._world > 1 or gpus:  # one alone on CPUs needs no group of torch's
            from ray.train.torch import TorchConfig

            backend = TorchConfig(backend="nccl" if gpus else "gloo")
        # Ray Train's own folder; nothing in it serves resuming
        with tempfile.TemporaryDirectory(prefix="ldsaug-train-") as folder:
            trainer = _Trainer(
                self._work,
                backend_config=backend,
                scaling_config=ScalingConfig(
                    num_workers=self._world, use_gpu=gpus > 0, resources_per_worker=self._each
                ),
                run_config=RunConfig(
                    name="train", storage_path=folder, failure_config=FailureConfig(max_failures=self._max_failures)
                ),
            )
            trainer.run = self
            trainer.fit()
