"""The pure part of experiments: plan, summary, tables, page."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml

from ldsaug_ray.common.columns import vectors
from ldsaug_ray.common.storage import Location
from ldsaug_ray.errors import ConfigError
from ldsaug_ray.experiment import (
    REAL,
    Cell,
    Failure,
    Plan,
    Result,
    differences_csv,
    markdown,
    plan_experiment,
    read_result,
    results_csv,
    summarise,
)
from ldsaug_ray.experiment.page import experiment_page
from ldsaug_ray.experiment.results import Setting
from ldsaug_ray.experiment.tables import difference_text
from ldsaug_ray.experiment.words import findings
from ldsaug_ray.metrics import OF_SETS, Measure, Reading, paired_difference
from ldsaug_ray.run.directory import Counts, UnitResult, mark

HOW = Setting("net.pt", 8, 5, 100, 50, "normal")


def write(folder: Path, experiment: dict[str, Any], **settings: Any) -> str:
    tree = {
        "run_dir": str(folder / "all"),
        "data": {"source": "sklearn:digits", "attributes": "columns"},
        "evaluate": {"extractor": "net.pt", "attributes": ["Male"]},
        "experiment": experiment,
        **settings,
    }
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(tree, sort_keys=False))
    return str(file)


ARMS = {
    "continued": {"settings": {"select.which": "none"}},
    "lds": {"about": "the paper's"},
    "typical": {"settings": {"select.which": "typical"}},
    "judged": {"settings": {"finetune.steps": 7}, "control": "lds"},
}
ASKED = {
    "arms": ARMS,
    "control": "continued",
    "seeds": [3, 4],
    "train": [50, 90],
    "tables": {"Two": ["lds", "baseline"]},
}


def test_each_cell_has_the_baseline_and_every_arm(tmp_path):
    plan = plan_experiment(write(tmp_path, ASKED), ["finetune.steps=5"])
    assert [c.name for c in plan.cells] == ["n50-seed3", "n90-seed3", "n50-seed4", "n90-seed4"]
    assert [r.arm for r in plan.of(Cell(90, 4))] == ["baseline", *ARMS]
    for run in plan.runs:
        assert run.config.data.train == run.cell.train
        assert run.config.seed == run.cell.seed
        assert run.config.run_dir == f"{tmp_path}/all/arms/{run.arm}/{run.cell.name}"
        assert run.config.evaluate.models == (("train",) if run.arm == "baseline" else ("finetune",))
        assert run.config.finetune.steps == (7 if run.arm == "judged" else 5)
        assert not run.config.experiment.arms
    # an arm's settings stand before defaults are filled in: typical alone, not typical and the densest fifth
    typical = plan.of(Cell(50, 3))[3].config.select
    assert (typical.typical, typical.top_fraction) == (0.9, None)
    assert len({run.config.run_dir for run in plan.runs}) == len(plan.runs)


def test_without_sizes_the_data_settings_stand(tmp_path):
    asked = {"arms": ARMS, "control": "continued", "seeds": [0]}
    plan = plan_experiment(write(tmp_path, asked), [])
    assert [c.name for c in plan.cells] == ["seed0"]
    assert plan.runs[0].config.data.train == 0.8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arms": {}, "control": "baseline", "tables": {}}, "names no arm"),
        (
            {"control": "nobody"},
            r"control: there is no arm nobody; there are baseline, continued, lds, typical, judged",
        ),
        ({"tables": {"T": ["ldss"]}}, "tables.T: there is no arm ldss"),
        ({"seeds": [1, 1]}, "seeds: each value once"),
        ({"arms": {**ARMS, "baseline": {}}}, "baseline is there already"),
        ({"arms": {**ARMS, "lds": {"control": "lds"}}}, "cannot be its own control"),
        ({"arms": {**ARMS, "lds": {"settings": {"seed": 3}}}}, "arms.lds.settings: seed cannot differ between arms"),
        ({"arms": {**ARMS, "lds": {"settings": {"data": {"train": 20}}}}}, "arms.lds.settings: data cannot differ"),
        ({"arms": {**ARMS, "lds": {"settings": {"evaluate.k": 3}}}}, "arms.lds.settings: evaluate.k cannot differ"),
        ({"arms": {**ARMS, "LDS": {}}}, "differ in case alone"),
        (
            {"arms": {**ARMS, "lds": {"settings": {"select.whihc": "lds"}}}},
            "arms.lds.settings: unknown setting select.w",
        ),
        (
            {"arms": {**ARMS, "lds": {"settings": {"select.tau": 3}}}},
            "experiment.arms.lds.settings: select.tau must be",
        ),
        ({"arms": {**ARMS, "a/b": {}}}, "arms: 'a/b' is no name for a folder"),
        (
            {"arms": {**ARMS, "lds": {"setings": {}}}},
            r"unknown setting experiment.arms.lds.setings; did you mean .*settings",
        ),
        ({"arms": {**ARMS, "lds": {"settings": 3}}}, r"experiment.arms.lds.settings must be"),
        ({"arms": {**ARMS, "lds": 3}}, r"experiment.arms.lds is a section"),
        ({"train": [0]}, "experiment.train item 1 must be at least 1"),
        ({"train": [50, 50]}, "train: each value once"),
    ],
)
def test_what_is_wrong_with_an_experiment_is_said_before_work_starts(tmp_path, change, message):
    with pytest.raises(ConfigError, match=message):
        plan_experiment(write(tmp_path, {**ASKED, **change}), [])


def test_an_experiment_needs_measures(tmp_path):
    file = write(tmp_path, ASKED)
    with pytest.raises(ConfigError, match=r"set evaluate\.extractor"):
        plan_experiment(file, ["evaluate.extractor=null"])


def results_of(plan: Plan, numbers: dict[str, list[float]], train: int = 50) -> list[Result]:
    """Fréchet distances of each arm at seeds 3 and 4; coverage follows from them."""
    found = []
    for arm, values in numbers.items():
        for seed, frechet in zip((3, 4), values, strict=False):
            known = {"frechet": frechet, "coverage": 1 / frechet, "share of Male": None, "density": 1.0}
            every = {m: known.get(m) for m in (*(m.name for m in OF_SETS), "share of Male")}
            found.append(Result(arm, Cell(train, seed), HOW, every, None if arm == "baseline" else 30, (), train))
    return found


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return plan_experiment(write(tmp_path, ASKED), [])


def test_differences_are_paired_by_seed(plan):
    found = results_of(plan, {"baseline": [30, 40], "continued": [20, 30], "lds": [21, 33], "judged": [22, 32]})
    (group,) = summarise(plan, found[::-1]).groups
    means = {row.arm: row.means["frechet"] for row in group.rows}
    assert means["continued"].mean == 25
    assert means["continued"].standard_error == pytest.approx(np.std([20, 30], ddof=1) / 2**0.5)
    differences = {(c.arm, c.control): c.differences["frechet"] for c in group.comparisons}
    assert set(differences) == {("lds", "continued"), ("judged", "lds"), ("continued", "baseline")}
    lds = differences["lds", "continued"]
    assert (lds.mean, lds.standard_error, lds.n) == (2, pytest.approx(1), 2)
    assert (lds.low, lds.high) == (1, 3)
    assert lds.t_high == pytest.approx(2 + 12.7062, abs=1e-3)  # Student's with one degree of freedom
    assert any("judged had 7 further steps" in note and "not compute-matched" in note for note in group.notes)
    assert not any(note.startswith("lds had") for note in group.notes)


def test_a_seed_that_one_side_lacks_is_left_out(plan):
    (group,) = summarise(plan, results_of(plan, {"continued": [20, 30], "lds": [21]})).groups
    (lds,) = (c.differences["frechet"] for c in group.comparisons)
    assert {row.arm: row.seeds for row in group.rows} == {"continued": 2, "lds": 1}
    assert any("continued is not compared: its control baseline has no result" in note for note in group.notes)
    assert (lds.mean, lds.n, lds.low) == (1, 1, None)
    assert group.comparisons[0].differences["share of Male"] is None


def test_sentences_claim_no_more_than_the_interval(plan):
    wide = {"continued": [20, 30], "lds": [21, 33], "typical": [18, 28.001]}
    summary = summarise(plan, results_of(plan, wide))
    told = " ".join(findings(summary.groups[0]))
    assert "Lowest Fréchet distance of 3 arms: typical" in told
    assert (
        "Fréchet distance below the control’s, Student’s interval without zero: typical (−2.00 [−2.01, −1.99])" in told
    )
    assert "Not told apart from the control by Fréchet distance: lds (+2.00 [−10.7, +14.7])" in told
    assert "2 comparisons at 95 % each, not corrected" in told
    one = summarise(plan, results_of(plan, {"continued": [20], "lds": [10]}))
    assert findings(one.groups[0])[1:] == [
        "One seed: no difference can be told from chance. In Fréchet distance lds is 10 below its control continued."
    ]


def test_tables_and_csv_hold_every_result(plan):
    found = results_of(plan, {"baseline": [30, 40], "continued": [20, 30], "lds": [21, 33]})
    found += results_of(plan, {"baseline": [3, 4]}, train=90)
    text = markdown(plan, summarise(plan, found, results_of(plan, {REAL: [2, 2]})))
    assert "100 images drawn from each model (prior normal) against 50 test images; features: net.pt, 8 dim" in text
    assert "| lds | 2 | 30 | 100 |" in text
    assert "| training images | 2 | 30 | 100 |" in text
    assert "| lds − continued | 2 | +2.00 [+1.00, +3.00] | [−10.7, +14.7] |" in text
    two = text.split("### Two")[1].splitlines()
    assert [line.split(" | ")[0] for line in two[4:7]] == ["| lds", "| baseline", "| baseline − lds"]
    assert " +8.00 [+7.00, +9.00] " in two[6]
    assert "**judged**: finetune.steps=7" in text
    assert text.count("\n## ") == 3
    rows = list(csv.DictReader(io.StringIO(results_csv(found))))
    assert [(r["arm"], r["train_images"], r["seed"], float(r["frechet"])) for r in rows[-2:]] == [
        ("baseline", "90", "3", 3.0),
        ("baseline", "90", "4", 4.0),
    ]
    assert rows[0]["share of Male"] == ""
    differences = list(csv.DictReader(io.StringIO(differences_csv(summarise(plan, found)))))
    (lds,) = (d for d in differences if (d["arm"], d["measure"]) == ("lds", "frechet"))
    assert [float(lds[x]) for x in ("seeds", "mean", "bootstrap_low", "bootstrap_high")] == [2, 2, 1, 3]
    assert float(lds["student_high"]) == pytest.approx(2 + 12.7062, abs=1e-3)


def test_measures_of_another_domain_are_in_no_table(plan):
    summary = summarise(plan, results_of(plan, {"continued": [20, 30], "lds": [21, 33]}))
    assert list(summary.compared) == ["frechet", "density", "coverage", "share of Male"]
    assert set(summary.measures) == set(summary.compared)


def test_what_failed_is_told(plan):
    found = results_of(plan, {"baseline": [30, 40], "continued": [20, 30], "lds": [21]})
    failed = [Failure("lds", Cell(50, 4), "nothing is left\nmore"), Failure("typical", Cell(90, 3), "other")]
    failed.append(Failure("baseline", Cell(90, 3), "fewer images"))
    summary = summarise(plan, found, (), failed)
    group, without = summary.groups  # a size at which nothing has a result is not passed over
    assert "lds, seed 4, came to no result: nothing is left" in group.notes
    assert not any("typical" in note for note in group.notes)
    assert not without.rows
    assert "baseline, seed 3, came to no result: fewer images" in without.notes
    assert "came to no result: fewer images" in markdown(plan, summary)
    assert "came to no result: fewer images" in experiment_page(plan, summary, found, "name", {})


def test_the_page_stands_alone_and_says_what_is_missing(plan):
    found = results_of(plan, {"baseline": [30, 40], "continued": [20, 30], "lds": [21, 33]})
    files = {"results.csv": results_csv(found), "differences.csv": "a,b", "tables.md": "c"}
    page = experiment_page(plan, summarise(plan, found), found, "a<b", files)
    assert "a&lt;b" in page
    assert f"{len(found)} of {len(plan.runs)} runs are done" in page
    assert "https:" not in page
    assert "http://" not in page
    assert page.count("<img") == page.count(" alt=")
    assert 'download="differences.csv"' in page
    assert 'download="results.csv"' in page
    assert page == experiment_page(plan, summarise(plan, found), found, "a<b", files)


def test_results_are_read_from_run_directories(plan, tmp_path):
    baseline, arm = plan.runs[0], plan.runs[2]
    assert read_result(baseline) is None
    told = {
        "extractor": {"name": "/models/net.pt", "dimension": 8},
        "reference": {"n": 50},
        "k": 5,
        "prior": "normal",
        "sets": {"finetuned": {"n": 100, "frechet": {"value": 12.5}, "c_t": {"value": None}}},
        "attributes": {
            "Male": {
                "probe": {"balanced_accuracy": {"value": 0.9}},
                "shares": {"finetuned": {"value": 0.4}},
            }
        },
        "notes": {"finetuned": ["few images"]},
    }
    folder = Path(arm.config.run_dir)
    (folder / "evaluate").mkdir(parents=True)
    (folder / "evaluate/metrics.json").write_text(json.dumps(told))
    names = ("fingerprint", "digest", "rows_in", "rows_dropped", "rows_quarantined", "seconds")
    entry = {**dict.fromkeys(names, 0), "rows_out": 77, "train_images": 50}
    root = Location.of(folder)
    labels = pa.array([{"Male": x} for x in (1, -1, 0)], pa.struct([("Male", pa.int8())]))
    latents = {"key": ["a", "b", "c"], "split": ["train"] * 3, "z": vectors(np.eye(3, dtype=np.float32))}
    (root / "latents/part-000000.parquet").write_table(pa.table({**latents, "attributes": labels}))
    parents = {"parent_i": ["a", "b", "c"], "parent_j": ["b", "a", "a"], "alpha": [0.1, 0.5, 0.5]}
    (root / "augmented/part-000000.parquet").write_table(pa.table(parents))
    mark(root, "decode", UnitResult(0, Counts(3, 3), 1, ("augmented/part-000000.parquet",), (3,)))
    (folder / "manifest.json").write_text(
        json.dumps({"format": 1, "stages": {"prepare": entry, "encode": entry, "evaluate": entry, "decode": entry}})
    )
    found = read_result(arm)
    assert found is not None
    assert found.setting == HOW
    assert (found.values["frechet"], found.values["c_t"], found.values["share of Male"]) == (12.5, None, 0.4)
    assert (found.n_of_a, found.notes) == (77, ("few images",))
    assert found.values["share of Male in A"] == pytest.approx((0.9 + 0.5) / 2)  # the third has an unlabelled parent
    assert found.probes == {"Male": 0.9}


def test_the_caption_names_the_arms_with_another_prior(plan):
    found = results_of(plan, {"baseline": [30, 40], "continued": [20, 30], "lds": [21, 33]})
    found = [replace(r, setting=replace(HOW, prior="kde")) if r.arm == "lds" else r for r in found]
    caption = summarise(plan, found).caption
    assert caption.count("images drawn") == 1
    assert "(prior normal; kde in lds)" in caption


def test_ones_own_measure_stands_in_every_table(plan):
    own = Measure(name="vendi", title="Vendi score", better="more", take=lambda _: Reading(0.0))
    found = results_of(plan, {"baseline": [30, 40], "continued": [20, 30], "lds": [21, 33]})
    found = [replace(r, values={**r.values, "vendi": 2.0 * r.values["frechet"]}, own=(own,)) for r in found]
    summary = summarise(plan, found)
    assert summary.compared["vendi"] == "Vendi score"
    lines = markdown(plan, summary).splitlines()
    assert any("| Vendi score ↑ |" in line for line in lines)
    rows = list(csv.DictReader(io.StringIO(results_csv(found))))
    assert [float(r["vendi"]) for r in rows] == [2.0 * float(r["frechet"]) for r in rows]
    differences = list(csv.DictReader(io.StringIO(differences_csv(summary))))
    means = [float(d["mean"]) for d in differences if (d["arm"], d["measure"]) == ("lds", "vendi")]
    assert means == [4.0]  # twice that of the Fréchet distance


def test_seeds_that_cancel_are_a_difference_of_nothing():
    found = paired_difference([0.3, 0.6, 0.1], [0.1, 0.5, 0.4])
    assert 0 < abs(found.mean) < 1e-15
    assert difference_text(found).startswith("0 [−0.3")
