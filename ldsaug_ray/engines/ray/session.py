"""Ray's session: a cluster that is there, looked at before work starts, or a local Ray; and what Ray says of itself."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from ldsaug_ray.common.secrets import first_line
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config
from ldsaug_ray.engines.ray.socket_folder import not_started, short_temp_dir
from ldsaug_ray.errors import ConfigError, InputError, LdsaugError, ResourceError
from ldsaug_ray.run.directory import RunDir
from ldsaug_ray.run.progress import make_console

_ANSWER_SECONDS = 60.0  # a node has to answer within, Python's start included
_SHARED_SECONDS = 5.0  # a new file may take to be seen elsewhere, on a shared file system
_started_here = False  # whether the Ray of this process is one that the session below started


@contextmanager
def ray_session(config: Config, *, verbose: bool = False) -> Iterator[bool]:
    """Attach to the cluster of RAY_ADDRESS, or start a local Ray; leave it when the block ends. Gives whether it was
    started here, by this block or one around it, so that nobody else has work there.

    Raises:
        ResourceError: there is no Ray, the cluster does not answer, or a local Ray does not start.
        ConfigError: limits of a local Ray were given for an existing cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's future default; silences its warning
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
    os.environ.setdefault("RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING", "0")  # it would set this process's loggers
    if "RAY_ADDRESS" not in os.environ:  # a local Ray's node is never taken away; one process less beside the training
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        # how often the controller looks at its workers: Ray's 2 s go by where ranks that stay no longer are to end
        os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    if not verbose:
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
    except ImportError as e:
        raise ResourceError(f"Ray cannot be imported ({e}); engine=inline does the work in this process") from None

    global _started_here
    if ray.is_initialized():  # a caller's session (tests, notebooks): use it, leave it alone
        quieten_ray(verbose)
        yield _started_here
        return
    handlers = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    address = os.environ.get("RAY_ADDRESS")
    limits = config.ray
    quiet: dict[str, Any] = {
        "log_to_driver": verbose,
        "logging_level": logging.INFO if verbose else logging.ERROR,
    }
    if address:
        if limits.limits:
            raise ConfigError(
                f"ray.{limits.limits[0]}: limits a local Ray, but RAY_ADDRESS={address} names an existing cluster; "
                "unset one of them"
            )
        _check_answers(address)
        with _held_back(not verbose) as held:
            try:
                ray.init(address=address, **quiet)
            except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as e:
                raise ResourceError(f"RAY_ADDRESS={address}: {_why_not(e, held())}") from e
    else:
        store = None if limits.object_store_gb is None else int(limits.object_store_gb * 1e9)
        with _held_back(not verbose):
            try:
                ray.init(
                    address="local",  # not a head that happens to run on this machine
                    num_cpus=limits.num_cpus,
                    num_gpus=limits.num_gpus,
                    object_store_memory=store,
                    include_dashboard=False,
                    _temp_dir=short_temp_dir(),
                    **quiet,
                )
            except Exception as e:  # OSError, ValueError, RuntimeError, or no more than Exception, as Ray has it
                raise not_started(e, limits) from e
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():  # Ray's C++ core has put its own in their place
            signal.signal(number, handler)
    try:
        quieten_ray(verbose)
        if address:
            check_nodes(config)
        _started_here = not address
        yield _started_here
    finally:
        _started_here = False
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
        advice = "check the address, or unset RAY_ADDRESS to start a local Ray"
        if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
            advice = "Ray gave the job this address; where several heads run on a machine, it may be another's"
        raise ResourceError(f"RAY_ADDRESS={address}: the cluster does not answer ({e.strerror or e}); {advice}") from e


def _why_not(error: BaseException, said: str) -> str:
    """Why a cluster that listens would not have us, in words; `said`: what Ray's core printed."""
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    lines = [line.strip() for e in causes for line in str(e).splitlines() if line.strip()]
    text = " ".join(dict.fromkeys(lines)) or type(error).__name__
    if any(word in f"{text} {said}".lower() for word in ("token", "unauthenticated")):
        return (
            "the cluster does not accept the token (RAY_AUTH_TOKEN, or the file of RAY_AUTH_TOKEN_PATH, by default "
            f"~/.ray/auth_token; with RAY_AUTH_MODE=token): {lines[0] if lines else text}"
        )
    if "version mismatch" in text.lower():
        return f"this Python is not the cluster's: {text}"
    return f"the cluster does not answer ({text})"


def check_nodes(config: Config) -> None:
    """Every node must be able to run our code, and see the run directory, and the images where these are files.

    Raises:
        ResourceError: a node cannot run this package.
        InputError: a node does not see one of the places.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    run_dir, source = Location.of(config.run_dir), config.data.source
    probe = run_dir / f".seen-{uuid.uuid4().hex[:8]}"
    places: dict[str, str] = {}
    if "://" not in source.removeprefix("file://") and RunDir(run_dir).entry("prepare") is None:
        images = Location.of(source)
        if images.exists():  # sklearn:digits is no place
            places["data.source"] = images.path
    if run_dir.is_local and run_dir.exists():
        probe.write_bytes(b"")
        places["run_dir"] = probe.path
    task = ray.remote(num_cpus=0, max_retries=0)(_unseen)
    try:
        asked = {}
        for node in (n for n in ray.nodes() if n["Alive"]):
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked[task.options(scheduling_strategy=there).remote(places)] = (
                f"node {node['NodeManagerAddress']} ({node['NodeManagerHostname']})"
            )
        answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_SECONDS)
        for ref, who in asked.items():
            if ref not in answered:
                _remark(f"{who} has not answered within {_ANSWER_SECONDS:g} s; the run goes on")
                continue
            try:
                unseen = ray.get(ref)
            except (ray.exceptions.RayTaskError, ray.exceptions.RuntimeEnvSetupError) as e:
                raise ResourceError(
                    f"{who} cannot run this project's code ({first_line(getattr(e, 'cause', e))}); install it there, "
                    "or submit a job with --working-dir"
                ) from e
            except ray.exceptions.RayError as e:
                _remark(f"{who} is going away ({first_line(e)}); the run goes on")
                continue
            for name in unseen:
                place = {"run_dir": config.run_dir, "data.source": config.data.source}[name]
                raise InputError(
                    f"{name} {place}: {who} does not see it; on a cluster it must be on storage that every node "
                    "reaches under the same name (a shared file system, or s3:// and the like)"
                )
    finally:
        if "run_dir" in places:
            probe.delete()


def _remark(text: str) -> None:
    make_console().print(text, highlight=False)


def _unseen(places: Mapping[str, str]) -> list[str]:
    """Names of the places that are not there, on the node where this runs."""
    until = time.monotonic() + _SHARED_SECONDS
    while unseen := [name for name, place in places.items() if not os.path.exists(place)]:
        if time.monotonic() > until:
            break
        time.sleep(0.1)
    return unseen


def quieten_ray(verbose: bool) -> None:
    """Turn the messages of Ray's libraries off unless asked for."""
    level = logging.INFO if verbose else logging.ERROR
    for name in ("ray", "ray.data", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(level)
    for name in () if verbose else ("ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what crashes is told in words of ours


@contextmanager
def _held_back(quiet: bool) -> Iterator[Callable[[], str]]:
    """Keep what Ray's C++ core prints while it starts off the terminal, and give it to who asks; show it where starting
    fails for a reason that nobody could tell."""
    if not quiet:
        yield str
        return
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as file:

        def held() -> str:
            file.seek(0)
            return file.read().decode(errors="replace")

        os.dup2(file.fileno(), 2)
        try:
            yield held
        except BaseException as e:
            if not isinstance(e, LdsaugError):
                with suppress(OSError):  # nobody reads it
                    os.write(terminal, held().encode())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
