"""What every stage gets: the settings, the run directory, a console, and Ray's session and resources."""

from __future__ import annotations

import ctypes
import logging
import math
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from ldsaug_ray.config import Config, Workers
from ldsaug_ray.errors import ConfigError, ResourceError
from ldsaug_ray.rundir import RunDir


@dataclass(frozen=True)
class Job:
    """One invocation: a stage function reads from it and writes through it.

    alone: whether this process keeps other drivers out of the run directory.
    """

    config: Config
    run: RunDir
    console: Console
    verbose: bool = False
    alone: bool = False


@dataclass(frozen=True)
class Pool:
    """Actors of a stage, resolved against the cluster."""

    count: int
    cpus: float
    gpus: float
    memory: int | None  # bytes

    @property
    def threads(self) -> int:
        """Threads of one actor: what it reserves, rounded up."""
        return max(1, math.ceil(self.cpus))

    def text(self) -> str:
        """For the plan."""
        gpus = f", {self.gpus:g} GPU" if self.gpus else ""
        memory = f", {self.memory / 1e9:g} GB" if self.memory else ""
        return f"{self.count} × ({self.cpus:g} CPU{gpus}{memory})"


@contextmanager
def ray_session(config: Config, *, verbose: bool = False) -> Iterator[None]:
    """Attach to the cluster of RAY_ADDRESS, or start a local Ray; leave it when the block ends.

    Raises:
        ResourceError: the cluster does not answer.
        ConfigError: limits of a local Ray were given for an existing cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's future default; silences its warning
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
    # Threads that wait for each other spin a moment, then sleep. Endless spinning is many times slower on busy cores;
    # sleeping at once (OMP_WAIT_POLICY=PASSIVE) costs a third of the training's speed on idle ones.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    if "RAY_ADDRESS" not in os.environ:  # a local Ray's node is never taken away; one process less beside the training
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        # how often the controller looks at its workers: of Ray's 2 s two or three go by at the end of each training
        os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    if not verbose:
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray

    if ray.is_initialized():  # a caller's session (tests, notebooks): use it, leave it alone
        quieten_data(verbose)
        yield
        return
    handlers = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    address = os.environ.get("RAY_ADDRESS")
    limits = config.ray
    quiet: dict[str, Any] = {
        "log_to_driver": verbose,
        "logging_level": logging.INFO if verbose else logging.ERROR,
    }
    if address:
        given = [k for k, v in limits.model_dump().items() if v is not None]
        if given:
            raise ConfigError(
                f"ray.{given[0]}: limits a local Ray, but RAY_ADDRESS={address} names an existing cluster; "
                "unset one of them"
            )
        _check_answers(address)
        try:
            with _held_back(not verbose):
                ray.init(address=address, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as e:
            reason = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
            raise ResourceError(f"RAY_ADDRESS={address}: the cluster does not answer ({reason})") from e
    else:
        store = None if limits.object_store_gb is None else int(limits.object_store_gb * 1e9)
        with _held_back(not verbose):
            ray.init(
                address="local",  # not a head that happens to run on this machine
                num_cpus=limits.num_cpus,
                num_gpus=limits.num_gpus,
                object_store_memory=store,
                include_dashboard=False,
                **quiet,
            )
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():  # Ray's C++ core has put its own in their place
            signal.signal(number, handler)
    try:
        quieten_data(verbose)
        yield
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Knock at the address first: Ray itself tries for minutes before it gives up.

    Raises:
        ResourceError: nothing listens there.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return  # auto, local, or another scheme that Ray resolves
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as e:
        raise ResourceError(
            f"RAY_ADDRESS={address}: the cluster does not answer ({e.strerror or e}); check the address, or unset "
            "RAY_ADDRESS to start a local Ray"
        ) from e


def quieten_data(verbose: bool) -> None:
    """Turn Ray Data's own progress bars and messages off unless asked for."""
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = verbose
    context.print_on_execution_start = verbose
    level = logging.INFO if verbose else logging.ERROR
    for name in ("ray", "ray.data", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(level)


def cluster_resources() -> Mapping[str, float]:
    """CPUs, GPUs and memory of the attached cluster."""
    import ray

    return ray.cluster_resources()


def pool_of(workers: Workers, stage: str, resources: Mapping[str, float], *, limit: int | None = None) -> Pool:
    """Resolve `auto` and check that the cluster can hold the actors.

    Args:
        workers: the stage's settings.
        stage: its name, for messages.
        resources: what the cluster has.
        limit: no more actors than units of work.

    Raises:
        ResourceError: the cluster has not what even one actor needs, or not what the asked number needs.
    """
    cpus, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    per_actor = (1.0 if gpus else 0.0) if workers.gpus == "auto" else float(workers.gpus)
    memory = None if workers.memory_gb is None else int(workers.memory_gb * 1e9)
    fits = [cpus / workers.cpus]
    if per_actor:
        fits.append(gpus / per_actor)
    if memory:
        fits.append(resources.get("memory", 0.0) / memory)
    most = math.floor(min(fits) + 1e-9)
    need = 1 if workers.count == "auto" else int(workers.count)
    if most < need:
        asked = Pool(need, workers.cpus, per_actor, memory).text()
        raise ResourceError(
            f"{stage}.workers asks for {asked}, but the cluster has {cpus:g} CPUs, {gpus:g} GPUs and "
            f"{resources.get('memory', 0.0) / 1e9:.1f} GB; lower {stage}.workers or add nodes"
        )
    count = most if workers.count == "auto" else need
    return Pool(max(1, min(count, limit) if limit is not None else count), workers.cpus, per_actor, memory)


def limit_threads(threads: int) -> None:
    """Set the thread counts of the BLAS and, where the worker has imported it, of torch, from what it reserves."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def keep_freed_memory() -> None:
    """Let the C library keep what this process frees: tensors of every training step then come from pages it has, and
    not from the kernel, which clears each page anew (measured: 13 % of a step at 32 px). Memory stays at its peak.

    Only glibc knows the setting; elsewhere nothing happens. Who sets MALLOC_TRIM_THRESHOLD_ has chosen.
    """
    if "MALLOC_TRIM_THRESHOLD_" in os.environ or not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        m_trim_threshold, m_mmap_threshold = -1, -3  # malloc.h
        mallopt(m_trim_threshold, 2**31 - 1)
        mallopt(m_mmap_threshold, 32 * 2**20)  # the most glibc takes


@contextmanager
def _held_back(quiet: bool) -> Iterator[None]:
    """Keep what Ray's C++ core prints while it starts off the terminal; show it if starting fails."""
    if not quiet:
        yield
        return
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(terminal, held.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
