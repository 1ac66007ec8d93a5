"""A search in a real MLflow: a run a trial, found again, never a second one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from ldsaug_ray.commands.compare import compare_command, find_runs
from ldsaug_ray.engines import engine_of
from ldsaug_ray.errors import InputError, StorageError, UsageError
from ldsaug_ray.run.opening import open_run_dir
from ldsaug_ray.run.progress import make_console
from ldsaug_ray.search.log import SearchLog
from ldsaug_ray.search.plan import Search, plan_search
from ldsaug_ray.search.run import _Kept
from ldsaug_ray.search.trials import Trial, read_trials
from ldsaug_ray.stages.shared.job import Job

MEASURED = {"a_nearer": 0.5, "a_likelihood": 3.0}


@pytest.fixture
def search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow_there: None) -> Search:
    monkeypatch.chdir(tmp_path)
    tree = {
        "run_dir": str(tmp_path / "run"),
        "data": {"source": "sklearn:digits"},
        "tune": {
            "space": {"score.sigma.scale": [0.1, 0.2], "select.tau": [0.3, 0.6, 0.9]},
            "objectives": [{"a_nearer": 1.0}],
        },
    }
    (tmp_path / "tune.yaml").write_text(yaml.safe_dump(tree))
    return plan_search(str(tmp_path / "tune.yaml"))


def log(search: Search) -> SearchLog:
    return SearchLog(Job(search.config, open_run_dir(search.config), make_console(), engine_of(search.config)), search)


def trial(number: int, state: str = "finished", value: float = 0.5) -> Trial:
    point = {"score.sigma.scale": 0.1, "select.tau": [0.3, 0.6, 0.9][number - 1]}
    if state in ("running", "failed"):
        return Trial(point, number, "same", state, why="nothing was kept" if state == "failed" else "")
    return Trial(point, number, "same", state, {"a_nearer": value}, ((0, {"a_nearer": value}),))


def runs(uri: str) -> dict[str, list]:
    """Runs by name."""
    client = MlflowClient(uri)
    found: dict[str, list] = {}
    for run in client.search_runs([e.experiment_id for e in client.search_experiments()]):
        found.setdefault(run.info.run_name, []).append(run)
    return found


def test_a_run_a_trial_and_never_a_second(search, tmp_path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    first = log(search)
    for state in (trial(1, "running"), trial(1), trial(2, "running")):
        first.send(state)
    first.__exit__(KeyboardInterrupt, None, None)
    assert {n: r[0].info.status for n, r in runs(uri).items()} == {
        "run": "KILLED",
        "trial 1": "FINISHED",
        "trial 2": "KILLED",
    }
    with log(search) as again:
        again.catch_up([trial(1), trial(2, "running")])
        again.send(trial(2, "running"))
        again.flush()
        assert runs(uri)["trial 2"][0].info.status == "RUNNING"
        again.send(trial(2, value=0.25))
        again.send(trial(3, "failed"))
        again.finish([trial(1), trial(2, value=0.25), trial(3, "failed")])
    found = runs(uri)
    assert all(len(r) == 1 for r in found.values())
    found = {name: r[0] for name, r in found.items()}
    parent = found.pop("run")
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["ldsaug.best_trial"] == trial(2).key
    assert {n: r.info.status for n, r in found.items()} == {
        "trial 1": "FINISHED",
        "trial 2": "FINISHED",
        "trial 3": "FAILED",
    }
    assert {r.data.tags["mlflow.parentRunId"] for r in found.values()} == {parent.info.run_id}
    assert trial(2).point.keys() <= found["trial 2"].data.params.keys()
    assert "vae.latent_dim" not in found["trial 2"].data.params  # the same in all trials: the search has it
    assert found["trial 2"].data.params["select.tau"] == "0.6"
    assert parent.data.params["vae.latent_dim"] == str(search.config.vae.latent_dim)
    assert found["trial 2"].data.metrics["objective"] == 0.25
    assert found["trial 2"].data.tags["ldsaug.best"] == "true"
    assert "ldsaug.best" not in found["trial 1"].data.tags
    assert found["trial 3"].data.tags["ldsaug.why"] == "nothing was kept"
    history = MlflowClient(uri).get_metric_history(found["trial 1"].info.run_id, "a_nearer")
    assert len(history) == 1  # catching up sent nothing twice

    with log(search) as better:  # more trials: another is the best
        better.finish([trial(1, value=0.1), trial(2, value=0.25)])
    found = {name: r[0] for name, r in runs(uri).items()}
    assert (found["trial 1"].data.tags["ldsaug.best"], found["trial 2"].data.tags["ldsaug.best"]) == ("true", "false")


def test_other_objectives_of_the_same_trials(search, tmp_path):
    """What is sought next is what MLflow's plots show; no trial is done again for it."""
    both = [replace(t, measures=m, curve=((0, m),)) for t, m in ((trial(1), MEASURED), (trial(2), MEASURED))]
    with log(search) as first:
        for each in both:
            first.send(each)
        first.finish(both)
    tune = search.config.tune.model_copy(update={"objectives": ({"a_likelihood": 2.0},)})
    with log(replace(search, config=search.config.model_copy(update={"tune": tune}))) as second:
        second.catch_up([*both, trial(3)])  # the third was not measured so
        second.finish([*both, trial(3)])
    found = {name: r[0].data.metrics for name, r in runs(f"sqlite:///{tmp_path / 'mlflow.db'}").items()}
    assert found["trial 1"]["objective"] == found["trial 2"]["objective"] == -6.0
    assert "objective" not in found["trial 3"]


def test_a_trial_that_cannot_be_sent_holds_up_no_other(search, tmp_path, capsys):
    with log(search) as tracked:
        tracked.send(replace(trial(1), point={"select.tau": 7.0, "score.sigma.scale": 0.1}))  # no settings of a run
        tracked.send(trial(2))
        tracked.finish([trial(2)])
    assert "1 trials could not be sent" in capsys.readouterr().err
    found = {name: some[0].info.status for name, some in runs(f"sqlite:///{tmp_path / 'mlflow.db'}").items()}
    assert found == {"run": "FINISHED", "trial 2": "FINISHED"}


def test_a_measure_without_a_value_does_not_lose_the_others(search, tmp_path, capsys):
    """Other objectives find them; MLflow has them too."""
    job = Job(search.config, open_run_dir(search.config), make_console(), engine_of(search.config))
    with SearchLog(job, search) as tracked:
        kept = _Kept(job, search, {}, tracked)
        key = kept.begin(trial(1).point).key
        measures = {"a_nearer": None, "a_likelihood": 3.0}
        kept.evaluated(key, {"step": 0, "measures": measures, "failed": "", "over": True, "seconds": 1.0})
        kept.end(key)
        kept.write()
        tracked.finish(kept.all())
    (found,) = read_trials(job.run.root)
    assert (found.state, found.measures) == ("finished", measures)
    assert found.values([{"a_likelihood": 1}]) == [-3.0]
    why = "a_nearer has no value for these images"
    assert f"trial 1: finished: {why}" in capsys.readouterr().err
    assert why in (tmp_path / "run/search/index.html").read_text()
    (run,) = runs(f"sqlite:///{tmp_path / 'mlflow.db'}")["trial 1"]
    assert (run.info.status, run.data.metrics["a_likelihood"]) == ("FINISHED", 3.0)
    assert run.data.tags["ldsaug.why"] == why


def test_a_server_that_is_away_at_the_start_is_one_message(search, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://someone:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(StorageError, match=r"MLflow at http://[^ ]*127\.0\.0\.1:9 cannot be used") as caught:
        log(search)
    assert "secret" not in str(caught.value)


def test_compare_shows_what_differs(search, capsys, tmp_path):
    with log(search) as tracked:
        for n, value in ((1, 0.5), (2, 0.125)):
            tracked.send(trial(n, "running"))
            tracked.send(trial(n, value=value))
        tracked.finish([trial(1), trial(2, value=0.125)])
    capsys.readouterr()
    assert compare_command(["trial 1", "trial 2"]) == 0
    output = capsys.readouterr().out
    assert "0.125 (-0.375)" in output
    (line,) = [x for x in output.splitlines() if "select.tau" in x]
    assert "0.3" in line
    assert "0.6" in line
    assert "score.sigma.scale" not in output  # the same in both
    assert "run_dir" not in output
    (other,) = runs(f"sqlite:///{tmp_path / 'mlflow.db'}")["trial 2"]
    assert compare_command(["trial 1", other.info.run_id[:8], str(tmp_path / "run")], as_csv=True) == 0
    rows = [line.split(",") for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["", "trial 1", "trial 2", "run"]
    assert ["a_nearer", "0.5", "0.125", ""] in rows

    with pytest.raises(InputError, match="no such run is no run id, run name or run directory"):
        compare_command(["trial 1", "no such run"])
    with pytest.raises(UsageError, match="at least two"):
        compare_command(["trial 1"])
    with pytest.raises(InputError, match="named twice"):
        compare_command(["trial 2", other.info.run_id])
    assert compare_command([str(tmp_path / f"run/trials/{trial(1).key}"), "trial 2"]) == 0
    capsys.readouterr()
    with log(replace(search, config=search.config.model_copy(update={"run_dir": str(tmp_path / "second")}))) as second:
        second.send(trial(1))
        second.finish([trial(1)])
    with pytest.raises(InputError, match=r"2 runs are named trial 1; give the id: \w+ \(.*/trials/"):
        compare_command(["trial 1", "trial 2"])

    # of two searches: how they sought differs, and what they sought cannot be subtracted
    assert compare_command([str(tmp_path / "run"), str(tmp_path / "second")]) == 0
    assert "no setting differs" in capsys.readouterr().out
    tune = search.config.tune.model_copy(update={"objectives": ({"a_likelihood": 2.0},)})
    other = search.config.model_copy(update={"run_dir": str(tmp_path / "third"), "tune": tune})
    with log(replace(search, config=other)) as third:
        likelier = replace(trial(2), measures=MEASURED, curve=((0, MEASURED),))
        third.send(likelier)
        third.finish([likelier])
    assert compare_command([str(tmp_path / "run"), str(tmp_path / "third")]) == 0
    output = capsys.readouterr().out
    assert "tune.objectives" in output
    assert "best objective" not in output

    key = trial(1).key  # now of two runs: the folder tells which
    places = [f"{tmp_path}/run/trials/{key}", f"second/trials/{key}/"]
    first, other = find_runs(places)
    assert first.run_id != other.run_id
    assert [x.run_id for x in find_runs(places[::-1])] == [other.run_id, first.run_id]
    tag = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}").get_run(other.run_id).data.tags["ldsaug.run_dir"]
    assert tag == f"{tmp_path}/second/trials/{key}"
    for name in (key, f"elsewhere/trials/{key}"):
        with pytest.raises(InputError, match=f"2 runs are named {name}; give the id"):
            find_runs([name])
