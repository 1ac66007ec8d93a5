"""What `gather` reads, against direct computations on the run's own files."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

from ldsaug_ray.common.storage import Location
from ldsaug_ray.domains.images import image_array
from ldsaug_ray.errors import InputError, MissingStageError
from ldsaug_ray.lds import interpolate
from ldsaug_ray.models import decode_images, load_vae
from ldsaug_ray.report import ReportData, gather
from ldsaug_ray.report._scores import read_ranked, read_scores
from ldsaug_ray.report.images import evenly
from ldsaug_ray.report.pictures import score_histogram
from ldsaug_ray.report.sheets import tiles
from ldsaug_ray.run.directory import RunDir
from ldsaug_ray.run.latents import read_latents
from ldsaug_ray.stages.shared import held_out
from ldsaug_ray.stages.shared.job import Job


@pytest.fixture(scope="module")
def data(digits_job: Job) -> ReportData:
    return gather(digits_job.run, digits_job.config)


def _table(job: Job, folder: str, columns: list[str] | None = None) -> pa.Table:
    return pa.concat_tables(f.read_table(columns) for f in job.run.folder(folder).files(".parquet")).sort_by(
        "candidate"
    )


def test_scores_are_those_on_disk(digits_job: Job, data: ReportData) -> None:
    table, chosen = _table(digits_job, "scores"), _table(digits_job, "selected")
    for name in ("candidate", "alpha", "log_lds", "log_lds_excluding_parents", "parent_share", "effective_neighbours"):
        np.testing.assert_array_equal(getattr(data.scores, name), table[name].to_numpy())
    assert data.scores.max_log == table["log_lds"].to_numpy().max()
    np.testing.assert_array_equal(data.scores.candidate[data.scores.selected], chosen["candidate"].to_numpy())
    keys = np.array(read_latents(digits_job.run, "train").keys.to_pylist())
    assert keys[data.scores.parent_i].tolist() == table["parent_i"].to_pylist()
    assert not data.scores.sampled


def test_held_out_latents_are_those_of_the_test_split(digits_job: Job, data: ReportData) -> None:
    run = digits_job.run
    latents = pa.concat_tables(f.read_table() for f in run.folder("latents").files(".parquet")).sort_by("key")
    split = np.array(latents["split"].to_pylist())
    z = np.array(latents["z"].to_pylist(), np.float32)
    found = pa.concat_tables(f.read_table() for f in run.folder("held_out").files(".parquet"))
    assert found["key"].to_pylist() == np.array(latents["key"].to_pylist())[split == "test"].tolist()
    squares = cdist(z[split == "test"], z[split == "train"], "sqeuclidean")
    want = logsumexp(-squares / (2 * run.require("score", "sigma") ** 2), axis=1) - np.log(120)
    np.testing.assert_allclose(found["log_lds"].to_numpy(), want, rtol=0, atol=1e-5)
    assert data.held_out is not None
    assert (data.held_out.count, data.held_out.median) == (24, pytest.approx(np.median(want)))
    assert data.regime.denser_than_median == np.mean(data.scores.log_lds > data.held_out.median)


def test_of_many_held_out_latents_the_same_are_scored(digits_job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = (read_latents(digits_job.run, split) for split in ("train", "test"))
    z = test.z
    written: list[pa.Table] = []
    monkeypatch.setattr(Location, "write_table", lambda self, table: written.append(table))
    monkeypatch.setattr(held_out, "LIMIT", 10)
    order = np.random.default_rng(0).permutation(len(z))
    for some in (np.arange(len(z)), order):
        monkeypatch.setattr(held_out, "read_latents", lambda *_, s=some: replace(test, keys=test.keys.take(s), z=z[s]))
        held_out.score_held_out(digits_job, train.z, [1.0], [digits_job.run])
    first, again = (dict(zip(*t.to_pydict().values(), strict=True)) for t in written)
    assert len(first) == 10
    assert first == pytest.approx(again)
    monkeypatch.setattr(held_out, "read_latents", lambda *_: replace(test, z=np.full_like(z, np.nan)))
    with pytest.raises(InputError, match=r"the held-out latents hold NaN.*\(key "):
        held_out.score_held_out(digits_job, train.z, [1.0], [digits_job.run])


def test_histogram_counts_every_candidate(data: ReportData) -> None:
    found = score_histogram(data)
    assert found.all.sum() == 1500
    assert found.kept.sum() == 300
    low = np.searchsorted(found.edges, data.threshold.log, side="right") - 1
    assert found.kept[:low].sum() == 0  # nothing below the threshold is selected


def test_bands_hold_their_members(digits_job: Job, data: ReportData) -> None:
    assert [b.number for b in data.bands] == [1, 2, 3, 4]
    assert sum(b.n for b in data.bands) == 1500
    assert max(b.n for b in data.bands) - min(b.n for b in data.bands) <= 1
    assert sum(b.n_selected for b in data.bands) == 300
    for upper, lower in zip(data.bands, data.bands[1:], strict=False):
        assert upper.low >= lower.high
    scores = dict(zip(data.scores.candidate.tolist(), data.scores.log_lds.tolist(), strict=True))
    for band in data.bands:
        assert len(band.members) == len(band.tiles) == 6
        assert len({m.candidate for m in band.members}) == 6
        assert all(band.low <= m.log_lds == scores[m.candidate] <= band.high for m in band.members)


def test_tiles_are_the_decoded_candidates(digits_job: Job, data: ReportData) -> None:
    latents = read_latents(digits_job.run, "train")
    place = {key: n for n, key in enumerate(latents.keys.to_pylist())}
    vae = load_vae(digits_job.run.folder("train/vae.safetensors"))
    images = {}
    for file in digits_job.run.folder("images").files(".parquet"):
        table = file.read_table()
        images.update(zip(table["key"].to_pylist(), image_array(table), strict=True))
    for pick in data.picks:
        s = pick.shown
        z = interpolate(latents.z, [place[s.parent_i]], [place[s.parent_j]], [s.alpha])
        near = decode_images(vae, z, 1)[0].astype(int)
        assert np.abs(pick.tiles[1][::4, ::4].astype(int) - near).max() <= 1  # 16 px shown at 64; batches round alike
        np.testing.assert_array_equal(pick.tiles[[0, 2]], tiles(np.stack([images[s.parent_i], images[s.parent_j]])))


def test_picks_run_from_densest_to_threshold(data: ReportData) -> None:
    assert [p.rank for p in data.picks] == [1, 61, 121, 180, 240, 300]
    scores = np.sort(data.scores.log_lds[data.scores.selected])[::-1]
    assert [p.shown.log_lds for p in data.picks] == [scores[p.rank - 1] for p in data.picks]
    assert data.picks[-1].shown.log_lds == data.threshold.log


def test_attributes_are_those_of_the_parents(digits_job: Job, data: ReportData) -> None:
    values, train = {}, []
    for file in digits_job.run.folder("images").files(".parquet"):
        for row in file.read_table(["key", "split", "attributes"]).to_pylist():
            values[row["key"]] = row["attributes"]
            train += [row["attributes"]] * (row["split"] == "train")
    rows = _table(digits_job, "selected")
    parents = [values[k] for side in ("parent_i", "parent_j") for k in rows[side].to_pylist()]
    assert len(data.parents.attributes) == data.parents.n_attributes == 3
    for found in data.parents.attributes:
        assert found.train == pytest.approx(np.mean([v[found.name] == 1 for v in train]))
        assert found.parents == pytest.approx(np.mean([v[found.name] == 1 for v in parents]))
    changes = [abs(a.parents - a.train) for a in data.parents.attributes]
    assert changes == sorted(changes, reverse=True)
    used = np.unique(rows["parent_i"].to_pylist() + rows["parent_j"].to_pylist(), return_counts=True)[1]
    assert (data.parents.n_distinct, data.parents.most_used) == (len(used), used.max())


def test_sample_is_exact_where_it_says_so(digits_job: Job, data: ReportData) -> None:
    latents = read_latents(digits_job.run, "train")
    sample, again = (read_scores(digits_job.run, latents, "log_lds", 3, limit=200) for _ in range(2))
    assert len(sample) == 200
    assert sample.sampled
    assert (sample.n_total, sample.max_log) == (1500, data.scores.max_log)
    np.testing.assert_array_equal(sample.candidate, again.candidate)
    where = np.searchsorted(data.scores.candidate, sample.candidate)
    np.testing.assert_array_equal(sample.log_lds, data.scores.log_lds[where])
    np.testing.assert_array_equal(sample.selected, data.scores.selected[where])


def test_ranking_without_parents_uses_its_own_score(digits_job: Job) -> None:
    ranked = read_ranked(digits_job.run, "log_lds_excluding_parents", 5, 0)
    scores = ranked["log_lds_excluding_parents"].to_numpy()
    assert (np.diff(scores) <= 0).all()
    assert ranked["rank"].to_pylist() == [1, 76, 151, 225, 300]


def test_reconstruction_error(digits_job: Job, data: ReportData) -> None:
    shown = data.reconstructions
    assert shown.split == "test"
    assert shown.after is not None
    error = np.mean(np.square(shown.originals / 255 - shown.before / 255))
    assert shown.error_before == pytest.approx(error)
    assert shown.error_of_mean > 0


def test_quarantine(folder_job: Job) -> None:
    found = gather(folder_job.run, folder_job.config).quarantine
    assert (found.total, found.others) == (1, 0)
    assert found.reasons[0].examples == ("<img src=x onerror=alert(2)>.png",)


def test_unfinished_run_says_what_to_do(digits_job: Job, tmp_path: object) -> None:
    with pytest.raises(MissingStageError, match="stage prepare is not complete; run"):
        gather(RunDir(Location.of(str(tmp_path))), digits_job.config)


def test_evenly() -> None:
    assert evenly(5, 10).tolist() == [0, 1, 2, 3, 4]
    assert evenly(100, 3).tolist() == [0, 50, 99]
    assert evenly(1, 4).tolist() == [0]
    assert evenly(0, 4).tolist() == []


def test_report_never_imports_ray() -> None:
    code = "import sys, ldsaug_ray.report, ldsaug_ray.stages.report; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
