"""The additions that CONTRIBUTING.md shows: its own lines, run through the real functions by their dotted paths."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from ldsaug_ray import stages
from ldsaug_ray.common.columns import vectors
from ldsaug_ray.config import Config, Sampling, Score, load_config
from ldsaug_ray.engines import engine_of
from ldsaug_ray.lds import resolve_sigma
from ldsaug_ray.metrics import Sample, measure_set, open_extractor, own_measures
from ldsaug_ray.models.priors import Draws
from ldsaug_ray.run import pipeline
from ldsaug_ray.run.directory import Counts
from ldsaug_ray.run.opening import open_run_dir
from ldsaug_ray.run.pipeline import KEPT, STAGES
from ldsaug_ray.selection import sentence_of
from ldsaug_ray.stages import select
from ldsaug_ray.stages.shared.job import Job
from ldsaug_ray.stages.shared.runner import run_stages

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
Addition = Callable[[str], str]


def code_after(heading: str) -> str:
    """The first block of code, fenced, below a heading of CONTRIBUTING.md and above the next one."""
    (section,) = re.findall(rf"^#+ {re.escape(heading)}$(.*?)(?=^## |^### |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    found = re.search(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert found is not None, f"no code below {heading!r}"
    return found[1]


@pytest.fixture
def addition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Addition]:
    """Gives the name of a module that holds the lines below a heading, as a user would have them."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    made = []

    def write(heading: str) -> str:
        name = "added_" + re.sub(r"\W+", "_", heading).lower()
        code = code_after(heading)
        assert sum(bool(line.strip()) for line in code.splitlines()) <= 10
        (folder / f"{name}.py").write_text(code)
        made.append(name)
        return name

    yield write
    for name in made:
        sys.modules.pop(name, None)


def test_a_selection_rule(addition: Addition, tmp_path: Path) -> None:
    name = f"{addition('A selection rule')}:HalfWay"
    config = load_config(
        None, [f"run_dir={tmp_path / 'run'}", "data.source=s", "engine=inline", f"select.which={name}"]
    )
    job = Job(config, open_run_dir(config), Console(file=io.StringIO()), engine_of(config))
    alphas = np.tile([0.25, 0.5, 0.75], 4)
    scores = {"candidate": np.arange(12), "alpha": alphas, "log_lds": -np.arange(12.0)}
    scores |= {"parent_i": ["a", "b"] * 6, "parent_j": ["c"] * 12}
    latents = {"key": list("abc"), "split": ["train"] * 3, "z": vectors(np.eye(3, dtype=np.float32))}
    for folder in ("scores", "latents"):
        (tmp_path / "run" / folder).mkdir()
    pq.write_table(pa.table(latents), tmp_path / "run/latents/part-000000.parquet")
    job.run.finish("encode", "f", Counts(3, 3), "d", 1.0, 3, latent_dim=3)
    pq.write_table(pa.table(scores), tmp_path / "run/scores/part-000000.parquet")
    job.run.finish("score", "f", Counts(12, 12), "d", 1.0, 12)
    outcome = select.run(job, {})
    assert outcome.counts == Counts(12, 4, 8)
    assert pq.read_table(tmp_path / "run/selected")["candidate"].to_pylist() == [1, 4, 7, 10]
    told = "kept 4 of 12 candidates, those half-way between their parents"
    assert sentence_of(outcome.facts) == told


def test_a_sigma_rule(addition: Addition) -> None:
    name = f"{addition('A sigma rule')}:rule"
    z = np.random.default_rng(0).standard_normal((50, 3)) + 7.0
    spread = np.sqrt(((z - z.mean(0)) ** 2).sum(1).mean())
    found = resolve_sigma(z, Score.model_validate({"sigma": {"rule": name}}))
    assert (found.sigma, found.numbers["spread"]) == (pytest.approx(0.5 * spread), pytest.approx(spread))
    assert found.sentence == f"0.5 × the spread about the mean, {spread:.4g}"
    assert resolve_sigma(z, Score.model_validate({"sigma": {"rule": name, "scale": 2}})).sigma == pytest.approx(
        2 * spread
    )


def test_a_measure(addition: Addition) -> None:
    (vendi,) = own_measures([f"{addition('A measure')}:Vendi"])
    for k in (1, 3, 6):  # k directions, equally often: as many different images
        sample = Sample(np.repeat(np.eye(6)[:k], 4, axis=0) * 7)
        assert measure_set(sample, [vendi]).value("vendi") == pytest.approx(k)


def test_a_prior(addition: Addition) -> None:
    name = f"{addition('A prior')}:Wide"
    z = np.random.default_rng(0).normal(3.0, 2.0, (4000, 5)).astype(np.float32)
    prior = Sampling(prior=name).source
    fitted = prior.fit(z, Sampling(prior=name), 0)
    draws = Draws(name, fitted, z[:0])
    draws.check(0)
    drawn = draws.sample(0, 4000, 0)
    np.testing.assert_allclose(drawn.mean(axis=0), z.mean(axis=0), atol=0.15)
    np.testing.assert_allclose(drawn.std(axis=0), z.std(), rtol=0.05)
    assert prior.sentence(fitted, "9 latents") == f"N(mean, s² I) of 9 latents, s = {z.std():.4g}"


def test_an_extractor(addition: Addition) -> None:
    extractor = open_extractor(f"{addition('An extractor')}:Quarters")
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 6, 3)).astype(np.uint8)
    expected = images.reshape(3, 2, 4, 2, 3, 3).astype(np.float64).mean((2, 4)).transpose(0, 3, 1, 2).reshape(3, 12)
    np.testing.assert_allclose(extractor(images), expected, rtol=1e-5)


def test_a_stage(addition: Addition, copied: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = addition("A stage")
    monkeypatch.setattr(stages, "__path__", [*stages.__path__, str(tmp_path / "theirs")])  # as if it were beside them
    (tmp_path / "theirs" / f"{name}.py").rename(tmp_path / "theirs/tally.py")
    for known in (STAGES, KEPT):
        monkeypatch.setattr(known, "_found", {})  # so that the declared ones are looked up anew, then and afterwards
        monkeypatch.delattr(known, "_found")
    monkeypatch.setattr(pipeline, "_DECLARED", dict(pipeline._DECLARED))
    monkeypatch.setitem(sys.modules, "ldsaug_ray.stages.tally", import_module("ldsaug_ray.stages.tally"))
    assert list(STAGES).index("tally") > list(STAGES).index("select")
    config = Config.model_validate(copied)
    job = Job(config, open_run_dir(config), Console(file=io.StringIO()), engine_of(config))
    assert run_stages(job, ["tally"]) == {"tally": "run"}
    assert run_stages(job, ["tally"]) == {"tally": "complete"}
    kept = job.run.require("select", "rows_out")
    assert json.loads((Path(copied["run_dir"]) / "tally/tally.json").read_text()) == {"selected": kept}
    assert job.run.require("tally", "rows_out") == kept
