"""What a stage gets of a cluster: workers that fit, nodes that are waited for."""

from __future__ import annotations

import pytest
from rich.console import Console

import ldsaug_ray.engines.ray as engine_module
from ldsaug_ray.config import Config, Workers
from ldsaug_ray.engines.ray import RayEngine, session
from ldsaug_ray.engines.resources import Pool, fitting, pool_of
from ldsaug_ray.errors import ResourceError

LAPTOP = {"CPU": 8, "memory": 1e10}
TWO_GPUS = [{"CPU": 4, "GPU": 1}] * 2


@pytest.mark.parametrize(
    ("workers", "nodes", "limit", "found"),
    [
        ({}, [LAPTOP], None, (8, 1, 0)),
        ({"cpus": 3}, [LAPTOP], None, (2, 3, 0)),
        ({}, [LAPTOP], 3, (3, 1, 0)),
        ({"count": 16}, [LAPTOP], 3, (3, 1, 0)),
        ({"count": 3}, [LAPTOP], None, (3, 1, 0)),
        ({"memory_gb": 3}, [LAPTOP], None, (3, 1, 0)),
        ({}, TWO_GPUS, None, (2, 1, 1)),
        ({"gpus": 0.5}, TWO_GPUS, None, (4, 1, 0.5)),
        ({"gpus": 0}, TWO_GPUS, None, (8, 1, 0)),
        ({"cpus": 3}, [{"CPU": 4}, {"CPU": 5}, {}], None, (2, 3, 0)),
    ],
)
def test_a_pool_is_what_fits(workers, nodes, limit, found):
    pool = pool_of(Workers(**workers), "encode", nodes, limit=limit)
    assert (pool.count, pool.cpus, pool.gpus) == found


def test_of_workers_that_reserve_nothing_there_are_as_many_as_the_pool_has():
    assert fitting(Pool(3, 0.0, 0.0, None, grows=True), [LAPTOP]) == 3


@pytest.mark.parametrize(
    ("workers", "nodes", "words"),
    [
        ({"count": 9}, [LAPTOP], r"asks for 9 × \(1 CPU\), but .* 8 CPUs, 0 GPUs and 10\.0 GB; .*\(count=8 fits\)"),
        ({"gpus": 1}, [LAPTOP], r"asks for 1 × \(1 CPU, 1 GPU\), but the cluster has 8 CPUs, 0 GPUs"),
        ({"memory_gb": 11}, [LAPTOP], r"asks for 1 × \(1 CPU, 11 GB\)"),
        ({"gpus": 2}, TWO_GPUS, r"asks for 1 × \(1 CPU, 2 GPU\), but the cluster has 8 CPUs, 2 GPUs .* on 2 nodes"),
        ({"cpus": 8}, TWO_GPUS, r"asks for 1 × \(8 CPU, 1 GPU\)"),
    ],
)
def test_what_no_node_has_is_said(workers, nodes, words):
    with pytest.raises(ResourceError, match=words):
        pool_of(Workers(**workers), "encode", nodes)


def test_the_limit_on_waiting_begins_anew_with_each_node_that_comes(tmp_path, monkeypatch):
    now, nodes = [0.0], [[], [{"CPU": 1}], [{"CPU": 1}] * 2, [{"CPU": 1}] * 2]
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setattr(engine_module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(RayEngine, "nodes", lambda self: nodes.pop(0) if len(nodes) > 1 else nodes[0])
    monkeypatch.setattr(RayEngine, "_ask_for", lambda *_: now.__setitem__(0, now[0] + 8 * 60))
    monkeypatch.setattr(session, "check_nodes", lambda config: None)
    engine = RayEngine(Config.model_validate({"run_dir": str(tmp_path), "data": {"source": "sklearn:digits"}}))
    assert engine.pool(Workers(count=2), "encode", Console(quiet=True)).count == 2
    with pytest.raises(ResourceError, match=r"count=2 fits.*waited 10 minutes for more nodes"):
        engine.pool(Workers(count=3), "encode", Console(quiet=True))
    assert now[0] > 16 * 60
