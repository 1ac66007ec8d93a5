"""Which modes A has: by hand, and against select.balance itself."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pytest
from scipy import stats
from stages_helpers import manifest, merge

from ldsaug_ray.commands.run import run_command
from ldsaug_ray.commands.status import status_command
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config
from ldsaug_ray.report import gather, report_page
from ldsaug_ray.run.directory import RunDir
from ldsaug_ray.run.latents import read_latents
from ldsaug_ray.run.opening import open_run_dir
from ldsaug_ray.selection.balance import cells
from ldsaug_ray.stages.shared.modes import sentence


def test_a_lost_mode_is_told_with_the_number_that_balance_holds() -> None:
    told = sentence("values of digit", {"train": 9.98, "a": 7.66, "parent": 9.91})
    assert told == (
        "A holds 7.7 of the training images' 10.0 effective values of digit: the densest candidates are those of the "
        "densest modes. select.balance: parent would hold 9.9, by these scores."
    )
    assert sentence("clusters", {"train": 9.98, "a": 9.5, "parent": 9.91}).endswith("effective clusters: none is lost.")
    assert sentence("clusters", {"train": 9.98, "a": 5.5, "parent": 5.4}).endswith("are those of the densest modes.")
    assert sentence("clusters", {"train": 9.98, "a": 5.5}, "").endswith("10.0 effective clusters.")


def test_what_would_be_held_is_what_balance_holds(copied, capsys):
    def effective(settings) -> float:
        """Clusters of A's parents, by nearness, counted one by one."""
        run = RunDir(Location.of(settings["run_dir"]))
        latents = read_latents(run, "train")
        of, weights = cells(latents.z, 4, 0), np.zeros(4)
        table: pa.Table = pads.dataset(f"{settings['run_dir']}/selected", format="parquet").to_table()
        for row in table.to_pylist():
            i, j = latents.rows(pa.array([row["parent_i"], row["parent_j"]]))
            weights[of[i]] += 1 - row["alpha"]
            weights[of[j]] += row["alpha"]
        return float(np.exp(stats.entropy(weights)))

    def selected(settings):
        assert run_command(Config.model_validate(settings), "select") == 0
        return manifest(settings)["select"]

    copied = merge(copied, {"select": {"clusters": 30}})  # of which 44 latents allow four
    plain = selected(copied)
    assert plain["modes"]["clusters"]["a"] == pytest.approx(effective(copied), rel=1e-9)
    (told,) = plain["modes_sentences"]
    assert told in capsys.readouterr().out
    config = Config.model_validate(copied)
    page = report_page(gather(open_run_dir(config, create=False), config))
    assert told.replace("'s ", "’s ").replace("images' ", "images&#39; ") in page
    assert status_command(copied["run_dir"]) == 0
    assert f"select: {told}" in capsys.readouterr().out

    balanced = selected(merge(copied, {"select": {"balance": "parent"}}))
    held = effective(copied)
    assert plain["modes"]["clusters"]["parent"] == pytest.approx(held, rel=1e-9)
    assert balanced["modes"]["clusters"] == {"train": plain["modes"]["clusters"]["train"], "a": pytest.approx(held)}


def test_what_is_lost_is_not_laid_to_density_where_that_did_not_choose(copied):
    few = {"select": {"clusters": 30, "top_count": 1}}

    def told(**select):
        settings = merge(copied, merge(few, {"select": select}))
        assert run_command(Config.model_validate(settings), "select") == 0
        (found,) = manifest(settings)["select"]["modes_sentences"]
        return found

    assert "densest modes" in told()
    for others in ({"which": "random"}, {"balance": "parent"}):
        assert told(**others).endswith("effective clusters.")


def test_what_to_set_is_told_with_what_it_replaces() -> None:
    mend = "select.balance: parent with select.top_count: 7 in place of select.tau"
    told = sentence("clusters", {"train": 9, "a": 3, "parent": 8}, mend=mend)
    assert told.endswith(f"modes. {mend} would hold 8.0, by these scores.")
