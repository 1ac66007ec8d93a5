"""The run directory: accounting, markers, going on after a crash, and never touching what is not its own."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ldsaug_ray.common.digest import digest_text
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config
from ldsaug_ray.errors import InputError, MissingStageError, StorageError
from ldsaug_ray.run.directory import Counts, RunDir, UnitResult, mark, total
from ldsaug_ray.run.opening import open_run_dir
from ldsaug_ray.run.pipeline import FORMAT, STAGES

FIXED = settings(deadline=None, derandomize=True, database=None)


def config(run_dir: Path | str, source: str = "sklearn:digits") -> Config:
    return Config.model_validate({"run_dir": str(run_dir), "data": {"source": source}})


@pytest.fixture(params=["local", "memory"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunDir]:
    """A new run directory."""
    place = str(tmp_path / "run") if request.param == "local" else f"memory://{uuid.uuid4().hex}/run"
    run = open_run_dir(config(place))
    yield run
    run.root.delete()


def reopened(run: RunDir) -> RunDir:
    return open_run_dir(config(run.root.uri))


def write(run: RunDir, *names: str) -> None:
    for name in names:
        (run.root / name).write_bytes(b"x")


def present(run: RunDir) -> list[str]:
    skip = len(run.root.path) + 1
    return [f.path[skip:] for f in run.root.files()]


def finish(run: RunDir, stage: str, fingerprint: str = "f") -> None:
    run.finish(stage, fingerprint, Counts(5, 3, 1, 1), "d" * 64, 2.0, 4)


# Accounting


@pytest.mark.parametrize("counts", [Counts(5, 5), Counts(5, 2, 2, 1), Counts(), Counts(3, 0, 0, 3)])
def test_rows_that_add_up(counts: Counts) -> None:
    counts.check("here")


@pytest.mark.parametrize("counts", [Counts(5, 4), Counts(5, 6), Counts(5, 2, 2, 2), Counts(0, 1)])
def test_lost_rows_are_an_error(counts: Counts, run: RunDir) -> None:
    with pytest.raises(StorageError, match=rf"here: {counts.rows_in} rows went in, but {counts.rows_out} came out"):
        counts.check("here")
    with pytest.raises(StorageError, match=r"stage encode: .* rows went in"):
        run.finish("encode", "f", counts, "d", 1.0, 1)
    with pytest.raises(StorageError, match=r"stage encode, unit 3: .* rows went in"):
        mark(run.root, "encode", UnitResult(3, counts, 0))
    assert reopened(run).entry("encode") is None
    assert run.finished_units("encode") == {}


_names = st.lists(st.text(st.characters(codec="utf-8"), max_size=5), max_size=3).map(tuple)
_results = st.builds(
    UnitResult,
    st.integers(0, 10**6),
    st.builds(lambda a, b, c: Counts(a + b + c, a, b, c), *[st.integers(0, 10**12)] * 3),
    st.integers(0, 2**256 - 1),
    _names,
    st.lists(st.integers(0, 10**9), max_size=3).map(tuple),
    st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=4), st.floats(allow_nan=False), max_size=2),
)


@FIXED
@given(_results)
def test_markers_survive_json(result: UnitResult) -> None:
    assert UnitResult.from_json(json.loads(json.dumps(result.to_json()))) == result


@FIXED
@given(st.lists(_results, max_size=5), st.randoms(use_true_random=False))
def test_the_total_does_not_depend_on_the_order(results: list[UnitResult], random: object) -> None:
    shuffled = list(results)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert total(shuffled) == total(results)
    counts, digest = total(results)
    assert counts.rows_in == sum(r.counts.rows_in for r in results)
    counts.check("the sum")
    assert digest == digest_text(sum(r.digest for r in results) % 2**256)


# Stages and units


def test_an_entry_is_what_the_specification_says(run: RunDir) -> None:
    finish(run, "encode")
    (entry,) = (run.root / "manifest.json").read_json()["stages"].values()
    assert entry == {
        "fingerprint": "f",
        "rows_in": 5,
        "rows_out": 3,
        "rows_dropped": 1,
        "rows_quarantined": 1,
        "seconds": 2.0,
        "rows_per_second": 2.0,
        "digest": "d" * 64,
        "files": 0,
    }
    assert reopened(run).entry("encode") == entry
    assert reopened(run).require("encode") == entry
    assert reopened(run).require("encode", "rows_out") == 3


def test_more_facts_and_no_time_at_all(run: RunDir) -> None:
    run.finish("select", "f", Counts(), "d", 0.0, 0, tau=0.28)
    assert run.entry("select") == {**run.require("select"), "tau": 0.28, "rows_per_second": None}


def test_a_stage_that_is_missing_says_what_to_run(run: RunDir) -> None:
    assert run.entry("score") is None
    with pytest.raises(
        MissingStageError, match="stage score is not complete; run `ldsaug score` or `ldsaug run` first"
    ):
        run.require("score")


def test_going_on_keeps_what_is_finished(run: RunDir) -> None:
    assert run.begin("encode", "f") == {}
    write(run, "latents/0.parquet", "latents/1.parquet")
    done = UnitResult(0, Counts(2, 2), 7, ("latents/0.parquet",), (2,), {"x": 0.5})
    mark(run.root, "encode", done)
    again = reopened(run)
    assert again.interrupted("encode", "f")
    assert not again.interrupted("encode", "g")
    # unit 1 has its file but no marker: a crash came between, it is done again
    assert again.begin("encode", "f") == {0: done}
    assert {"latents/0.parquet", "latents/1.parquet"} <= set(present(run))


def test_another_fingerprint_starts_anew(run: RunDir) -> None:
    run.begin("encode", "f")
    run.begin("score", "s")
    write(run, "latents/0.parquet", "quarantine/encode/0.parquet", "quarantine/prepare/0.parquet", "scores/0.parquet")
    mark(run.root, "encode", UnitResult(0, Counts(2, 2), 7))
    mark(run.root, "score", UnitResult(0, Counts(1, 1), 7))
    finish(run, "encode")
    assert run.begin("encode", "g") == {}
    assert run.entry("encode") is None
    assert reopened(run).entry("encode") is None
    left = present(run)
    assert not any(f.startswith(("latents/", "quarantine/encode/")) for f in left)
    assert {"quarantine/prepare/0.parquet", "scores/0.parquet"} <= set(left)
    assert set(run.finished_units("score")) == {0}
    assert run.interrupted("encode", "g")


def test_a_finished_unit_is_replaced_not_added(run: RunDir) -> None:
    run.begin("encode", "f")
    for digest in (1, 2):
        mark(run.root, "encode", UnitResult(4, Counts(2, 2), digest))
    assert {n: u.digest for n, u in run.finished_units("encode").items()} == {4: 2}


def test_a_crash_while_deleting_never_leaves_markers_without_files(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever deletion the crash hits, going back to the old settings must not trust a marker whose file is gone."""
    delete = Location.delete
    for survived in range(len(STAGES["encode"].writes) + 1):
        run.reset("encode")
        run.begin("encode", "f")
        write(run, "latents/0.parquet", "quarantine/encode/0.parquet")
        mark(run.root, "encode", UnitResult(0, Counts(2, 2), 7, ("latents/0.parquet",)))
        finish(run, "encode")
        left = [survived]

        def crash(self: Location, left: list[int] = left) -> None:
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            delete(self)

        monkeypatch.setattr(Location, "delete", crash)
        with pytest.raises(KeyboardInterrupt):
            run.begin("encode", "g")
        monkeypatch.setattr(Location, "delete", delete)
        again = reopened(run)
        assert again.entry("encode") is None  # the entry goes first
        for unit in again.begin("encode", "f").values():
            assert all((again.root / f).exists() for f in unit.files)


def test_notes_are_kept_beside_the_stages(run: RunDir) -> None:
    finish(run, "encode")
    run.note("mlflow", {"run_id": "1"})
    assert reopened(run).manifest["mlflow"] == {"run_id": "1"}
    assert reopened(run).entry("encode") is not None


def test_the_resolved_settings_are_saved(run: RunDir) -> None:
    saved = run.saved_config()
    assert saved == config(run.root.uri).dump()
    assert Config.model_validate(saved) == config(run.root.uri)
    assert yaml.safe_load((run.root / "config.yaml").read_text())["select"]["top_fraction"] == 0.2


# Opening


def test_opening_twice_changes_nothing(run: RunDir) -> None:
    finish(run, "encode")
    before = {f: (run.root / f).read_bytes() for f in present(run)}
    reopened(run)
    assert {f: (run.root / f).read_bytes() for f in present(run)} == before


def test_a_look_writes_nothing(tmp_path: Path) -> None:
    run = open_run_dir(config(tmp_path / "run"), create=False)
    assert run.manifest == {"format": FORMAT, "stages": {}}
    assert run.saved_config() is None
    assert not (tmp_path / "run").exists()


def test_hidden_files_and_empty_folders_are_welcome(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".DS_Store").write_text("x")
    open_run_dir(config(tmp_path))
    assert (tmp_path / ".DS_Store").read_text() == "x"
    assert sorted(p.name for p in tmp_path.iterdir()) == [".DS_Store", ".git", "config.yaml", "manifest.json"]


@pytest.mark.parametrize("name", ["thesis.tex", "images/0001.jpg", "latents/a.parquet", "config.yaml", "a/b/c"])
def test_a_folder_with_strangers_is_refused(tmp_path: Path, name: str) -> None:
    """Also where it has the name of a stage's folder: without a manifest it is not ours to delete."""
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("data: {source: x}")
    for options in ({}, {"overwrite": True}, {"create": False}):
        with pytest.raises(
            StorageError, match=rf"holds files that no run wrote \({name.split('/')[0]}\); choose an empty"
        ):
            open_run_dir(config(tmp_path), **options)
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()] == [name]


def test_a_file_is_not_a_run_directory(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    with pytest.raises(StorageError, match=r"run_dir .*/f: is a file; choose a folder"):
        open_run_dir(config(tmp_path / "f"))
    with pytest.raises(StorageError, match="a part of the path is a file, not a folder"):
        open_run_dir(config(tmp_path / "f" / "run"))


def test_an_unwritable_place() -> None:
    with pytest.raises(StorageError, match="cannot create /proc/run"):
        open_run_dir(config("/proc/run"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("not json", r"manifest\.json: not valid JSON"),
        ("", r"manifest\.json: not valid JSON"),
        ("[]", "not a manifest of ldsaug_ray; choose another run_dir"),
        ('{"name": "an extension of a browser"}', "not a manifest of ldsaug_ray"),
        ('{"format": 1, "stages": []}', "not a manifest of ldsaug_ray"),
        ('{"format": "1", "stages": {}}', "not a manifest of ldsaug_ray"),
        ('{"stages": {}}', "not a manifest of ldsaug_ray"),
        ('{"format": 1, "stages": {"encode": 3}}', "not a manifest of ldsaug_ray"),
        ('{"format": 1, "stages": {"encode": {}}}', "not a manifest of ldsaug_ray"),
        (f'{{"format": {FORMAT + 1}, "stages": {{}}}}', rf"newer ldsaug_ray \(format {FORMAT + 1} > {FORMAT}\)"),
    ],
)
def test_a_manifest_that_is_not_ours(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(StorageError, match=words) as caught:
        open_run_dir(config(tmp_path))
    assert str(tmp_path / "manifest.json") in str(caught.value)
    assert (tmp_path / "manifest.json").read_text() == text


def test_an_older_format_is_read_and_raised(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"format": 0, "stages": {}}')
    run = open_run_dir(config(tmp_path))
    run.note("x", 1)
    assert json.loads((tmp_path / "manifest.json").read_text())["format"] == FORMAT


@pytest.mark.parametrize("text", ["a: b: c", "[]", "seed: 1", "data: 3", ""])
def test_saved_settings_that_are_not_ours(run: RunDir, text: str) -> None:
    (run.root / "config.yaml").write_bytes(text.encode())
    with pytest.raises(StorageError, match=r"config\.yaml: not the settings of a run"):
        reopened(run)


@pytest.mark.parametrize("text", ["{}", "[]", '{"unit": 0, "counts": {"rows": 1}}', "3"])
def test_a_marker_that_is_not_ours(run: RunDir, text: str) -> None:
    run.begin("encode", "f")
    (run.root / "_progress/encode/000000.unit.json").write_bytes(text.encode())
    with pytest.raises(StorageError, match=r"000000\.unit\.json: not the marker of a finished unit; delete it"):
        run.begin("encode", "f")


# Two drivers


def test_a_run_directory_has_one_driver_at_a_time(tmp_path: Path) -> None:
    settings = config(tmp_path / "run", "/faces")
    with ExitStack() as first:
        run = open_run_dir(settings, held=first)
        write(run, "images/train/0.parquet")
        with ExitStack() as second, pytest.raises(StorageError, match=rf"another command .*process {os.getpid()} on"):
            open_run_dir(config(tmp_path / "run", "/cats"), overwrite=True, held=second)
        assert "images/train/0.parquet" in present(run)
        open_run_dir(settings, create=False)  # a look is no work
    with ExitStack() as third:
        open_run_dir(settings, held=third)


# Other data


def test_other_data_is_refused_and_nothing_touched(tmp_path: Path) -> None:
    run = open_run_dir(config(tmp_path / "run", "/faces"))
    finish(run, "prepare")
    write(run, "images/train/0.parquet")
    before = present(run)
    with pytest.raises(InputError) as caught:
        open_run_dir(config(tmp_path / "run", "/cats"))
    assert "data.source=/faces" in str(caught.value)
    assert "data.source=/cats" in str(caught.value)
    assert "--overwrite" in str(caught.value)
    assert present(run) == before
    assert open_run_dir(config(tmp_path / "run", "/faces")).entry("prepare") is not None


def test_where_nothing_came_of_it_the_source_may_be_corrected(tmp_path: Path) -> None:
    """A mistyped data.source must not need --overwrite; a single written file does."""
    run = open_run_dir(config(tmp_path / "run", "/typo"))
    run.begin("prepare", "f")
    run = open_run_dir(config(tmp_path / "run", "/faces"))
    assert run.saved_config() == config(tmp_path / "run", "/faces").dump()
    write(run, "images/train/0.parquet")
    with pytest.raises(InputError, match="--overwrite"):
        open_run_dir(config(tmp_path / "run", "/cats"))


def test_overwriting_deletes_the_stages_and_nothing_else(run: RunDir) -> None:
    for stage in STAGES.values():
        run.begin(stage.name, "f")
        write(run, *(f"{folder}/x/0.parquet" for folder in stage.writes))
        mark(run.root, stage.name, UnitResult(0, Counts(1, 1), 1))
        finish(run, stage.name)
    write(run, "notes.txt", "mine/a.txt", "quarantine/mine.txt")
    run.note("mlflow", "old run")
    other = config(run.root.uri, "memory://elsewhere/cats")
    open_run_dir(other, overwrite=True, create=False)
    assert reopened(run).entry("report") is not None  # a look does not delete
    again = open_run_dir(other, overwrite=True)
    assert again.manifest == {"format": FORMAT, "stages": {}}
    assert (run.root / "manifest.json").read_json() == again.manifest
    assert present(run) == ["config.yaml", "manifest.json", "mine/a.txt", "notes.txt", "quarantine/mine.txt"]
    assert again.saved_config() == other.dump()


def test_overwriting_with_the_same_data_discards_nothing(run: RunDir) -> None:
    finish(run, "encode")
    assert open_run_dir(config(run.root.uri), overwrite=True).entry("encode") is not None


@pytest.mark.parametrize(
    ("source", "run_dir"),
    [
        ("faces", "faces/run"),
        ("run/images", "run"),
        ("x", "x"),
        ("run/*.tar", "run"),
        ("./a/../run/x", "run"),
        (".", "run"),
    ],
)
def test_images_and_run_directory_lie_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, run_dir: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="lie in one another; choose another run_dir"):
        open_run_dir(config(run_dir, source), overwrite=True)
    assert list(tmp_path.iterdir()) == []


def test_neighbours_are_apart(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "run2")
    open_run_dir(config(tmp_path / "run", str(tmp_path / "run-images")))
    with pytest.raises(InputError, match="lie in one another"):
        open_run_dir(config(tmp_path / "run2", str(tmp_path / "link" / "faces")))
