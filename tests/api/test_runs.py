"""`run` and `load_run`: a run from Python is the run of the command line, and its tables are its files."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest
import yaml
from stages_helpers import digests

from ldsaug_ray import Config, load_run, run
from ldsaug_ray.errors import ConfigError, InputError, MissingStageError


def test_run_goes_on_where_the_command_line_was(copied, save, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = digests(copied)
    for config in (copied, Config.model_validate(copied), str(save(copied)), save(copied)):
        tables = run(config)
        assert digests(copied) == before
        assert tables.place == copied["run_dir"]
    less = run(copied, "select.top_fraction=0.1")
    assert less.selected.num_rows == 450
    assert less.augmented.num_rows == 450
    assert less.config.select.top_fraction == 0.1
    with pytest.raises(InputError, match="overrides go with a file or a mapping"):
        run(Config.model_validate(copied), "seed=1")
    with pytest.raises(ConfigError, match="unknown setting colour"):
        run(copied, "colour=1")


def test_tables_are_the_files(finished, tmp_path):
    folder = finished.folder / "run"
    for place in (folder, str(folder)):
        tables = load_run(place)
        for name in ("latents", "scores", "selected", "augmented"):
            assert getattr(tables, name).equals(pq.read_table(folder / name).select(getattr(tables, name).column_names))
        assert tables.manifest["stages"]["score"]["rows_out"] == tables.scores.num_rows == 4500
        assert tables.config.score.n_candidates == 4500
        assert yaml.safe_load((folder / "config.yaml").read_text())["seed"] == tables.config.seed
        assert "score" in repr(tables)
    with pytest.raises(MissingStageError, match="stage evaluate is not complete"):
        _ = load_run(folder).metrics
    with pytest.raises(InputError, match="there is no run"):
        load_run(tmp_path)
