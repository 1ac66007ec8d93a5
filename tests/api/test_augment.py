"""`augment` keeps what the command line keeps of the same latents, by every rule; what cannot be used is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.special import logsumexp
from stages_helpers import merge

from ldsaug_ray import augment, load_run
from ldsaug_ray.commands.run import run_command
from ldsaug_ray.common.columns import matrix
from ldsaug_ray.config import Config
from ldsaug_ray.errors import ConfigError, ImpossibleError, InputError, LdsaugError, NothingSelectedError
from ldsaug_ray.run.directory import RunDir
from ldsaug_ray.run.latents import read_latents

RULES = {
    "the paper's": ({}, {}),
    "a count, with the parents left out": (
        {"keep": 321, "exclude_parents": True},
        {"select": {"top_count": 321, "top_fraction": None, "exclude_parents": True}},
    ),
    "a threshold": (
        {"tau": 0.001, "sigma": "norm*0.5"},
        {"select": {"tau": 0.001}, "score": {"sigma": {"scale": 0.5}}},
    ),
    "conformal": ({"tau": "auto", "tau_level": 0.2}, {"select": {"tau": "auto", "tau_level": 0.2}}),
    "typical, on the arc": (
        {"which": "typical", "typical": 0.8, "interpolation": "slerp", "sigma": "scott"},
        {
            "select": {"which": "typical", "typical": 0.8},
            "score": {"interpolation": "slerp", "sigma": {"rule": "scott"}},
        },
    ),
    "blocks, within each alpha": (
        {"plan": "blocks", "block": (8, 8), "alphas": (0.25, 0.5), "keep": 0.1, "stratify": True},
        {
            "score": {"plan": "blocks", "block": [8, 8], "alphas": [0.25, 0.5]},
            "select": {"top_fraction": 0.1, "stratify": True},
        },
    ),
    "random, estimated": (
        {"which": "random", "backend": "faiss"},
        {"select": {"which": "random"}, "score": {"backend": "faiss"}},
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_the_same_as_the_command_line(copied, rule, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, changes = RULES[rule]
    settings = merge(copied, changes)
    for command in ("score", "select"):
        assert run_command(Config.model_validate(settings), command) == 0
    run = RunDir(settings["run_dir"])
    train, test = read_latents(run, "train"), read_latents(run, "test")
    kept = load_run(settings["run_dir"]).selected.sort_by("candidate")
    found = augment(
        train.z, held_out=test.z, **{"n": settings["score"]["n_candidates"], "part_candidates": 180, **arguments}
    )
    assert found.candidate.tolist() == kept["candidate"].to_pylist()
    assert found.log_lds.tobytes() == kept["log_lds"].to_numpy().tobytes()
    parents = [train.rows(kept[side]).tolist() for side in ("parent_i", "parent_j")]
    assert found.parents.T.tolist() == parents
    assert found.sigma == run.require("score", "sigma")
    assert found.regime.numbers.n_selected == len(kept)
    assert run.require("select", "sentence")[1:] in found.regime.sentences[1]


DIGITS = {
    "engine": "inline",
    "data": {"source": "sklearn:digits", "attributes": "columns", "upscale": True, "train": 40, "test": 20},
    "train": {"steps": 2},
    "score": {"n_candidates": 270, "part_candidates": 90, "sigma": {"scale": 0.5}},
    "tracking": {"enabled": False},
}
PLANS = {
    "random": {},
    "random, noise": {"noise": 0.5},
    "blocks": {"plan": "blocks", "block": (5, 3)},
    "neighbours": {"plan": "neighbours", "neighbours": 4},
    "neighbours, noise": {"plan": "neighbours", "neighbours": 4, "noise": 0.5},
    "single, noise": {"plan": "single", "noise": 0.5},
}
COUNTED = [{"which": "lds"}, {"which": "lds", "top_count": 31}, {"which": "random"}]  # those that hold within groups
OTHERS = [
    {"tau": 0.001},
    {"tau": "auto"},
    {"which": "typical"},
    {"which": "typical", "top_fraction": 0.9},
    {"which": "none"},
]
BALANCES = ["none", "parent", "cluster", "label:even"]


@pytest.fixture(scope="module")
def digits(base, tmp_path_factory):
    """Settings of a run with a label, up to its latents."""
    settings = merge({**base, "run_dir": str(tmp_path_factory.mktemp("digits") / "run")}, DIGITS)
    for command in ("prepare", "train", "encode"):
        assert run_command(Config.model_validate(settings), command) == 0
    return settings


@pytest.mark.parametrize("plan", PLANS)
def test_every_rule_plan_and_balance_keeps_what_the_command_line_keeps(digits, plan):
    settings = merge(digits, {"score": PLANS[plan]})
    assert run_command(Config.model_validate(settings), "score") == 0
    run = RunDir(settings["run_dir"])
    train, test = read_latents(run, "train"), read_latents(run, "test")
    even = train.attributes[:, train.attribute_names.index("even")]
    chosen = [{**rule, "balance": balance, "clusters": 6} for rule in COUNTED for balance in BALANCES] + OTHERS
    seen = set()
    for rule in chosen:
        assert run_command(Config.model_validate(merge(settings, {"select": rule})), "select") == 0
        kept = load_run(settings["run_dir"]).selected
        arguments = {"n": 270, "part_candidates": 90, "sigma": "norm*0.5", **PLANS[plan], **rule}
        if rule.get("balance") == "label:even":
            arguments |= {"balance": "label", "labels": even}
        found = augment(train.z, held_out=test.z, **arguments)
        ids = kept.sort_by("candidate")["candidate"].to_pylist() if len(kept) else []
        assert found.candidate.tolist() == ids, rule
        seen.add(tuple(ids))
    assert len(seen) > len(chosen) / 2  # the rules differ


def test_the_latents_are_what_is_decoded(finished):
    run = load_run(finished.settings["run_dir"])
    z = read_latents(RunDir(run.place), "train").z
    decoded = run.augmented.sort_by("candidate")
    found = augment(z, n=4500, part_candidates=180)
    assert found.z.tobytes() == np.ascontiguousarray(matrix(decoded["z"])).tobytes()
    assert len(found) == len(decoded) == 900


def test_scores_are_the_mean_of_kernels_and_labels_the_nearer_parents():
    z = np.random.default_rng(0).normal(size=(50, 4))
    names = np.array(["a", "b", "c"])[np.arange(50) % 3]
    found = augment(z, n=450, sigma=0.8, labels=names)
    logs = -((found.z[:, None].astype(float) - z[None]) ** 2).sum(-1) / (2 * 0.8**2)
    np.testing.assert_allclose(found.log_lds, logsumexp(logs, axis=1) - np.log(50), atol=1e-4)
    i, j = found.parents.T
    want = np.where(found.alpha > 0.5, names[j], names[i])
    assert ((found.labels == want) | (found.alpha == 0.5)).all()
    assert found.z.dtype == np.float32
    assert found.alpha.dtype == np.float64


def test_tensors_and_lists_are_arrays():
    z = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    want = augment(z, n=90)
    tensor = torch.tensor(z, requires_grad=True)
    for given in (tensor, z.tolist(), np.asfortranarray(z), z.astype(np.float64)):
        assert augment(given, n=90).z.tobytes() == want.z.tobytes()
    assert augment(tensor.bfloat16(), n=90).z.shape == want.z.shape
    assert len(augment(z, n=90, which="none")) == 0


Z = np.random.default_rng(0).normal(size=(30, 3))
WITH_NAN = np.where(np.arange(90).reshape(30, 3) == 31, np.nan, Z)


@pytest.mark.parametrize(
    ("z", "arguments", "error", "words"),
    [
        (Z[0], {}, InputError, r"z must be a 2-D array \[N, d\]; found shape \(3,\)"),
        (Z[:1], {}, InputError, "z has 1 row; at least 2"),
        (Z[:0], {}, InputError, "z must have at least one row"),
        (WITH_NAN, {}, InputError, "z hold NaN, .* first in row 10"),
        (Z + 1j, {}, InputError, "z must be real numbers .* complex128"),
        (np.full((3, 2), "x"), {}, InputError, "z must be real numbers"),
        ([[1, 2], [3]], {}, InputError, "z is no array of numbers"),
        (Z * 1e39, {}, InputError, "out-of-float32-range"),
        (Z, {"labels": [0, 1]}, InputError, r"labels must be one for each of the 30 rows of z; found shape \(2,\)"),
        (Z, {"labels": np.arange(30) * np.nan}, InputError, "labels lack in 30 of 30 rows, first in row 0"),
        (Z, {"labels": ["a"] * 29 + [None]}, InputError, "labels lack in 1 of 30 rows, first in row 29"),
        (Z, {"labels": [[1], [1, 2]] * 15}, InputError, "labels must be one for each .* lists of several lengths"),
        (Z, {"balance": "label:sex", "labels": [0] * 30}, InputError, "^balance: label:sex: .* no such label"),
        (Z, {"balance": "cluster"}, ImpossibleError, "^clusters = 50 cells of 30 training latents"),
        (Z, {"balance": 5}, ConfigError, "balance = 5: must be text"),
        (Z, {"held_out": Z[:, :2]}, InputError, "held_out has 2 columns, z has 3"),
        (Z, {"held_out": WITH_NAN}, InputError, "held_out hold NaN"),
        (Z, {"n": 0}, ConfigError, "^n must be at least 1"),
        (Z, {"plan": "spiral"}, ConfigError, "^plan must be .*random"),
        (Z, {"keep": 1.5}, ConfigError, "^keep must be at most 1"),
        (Z, {"keep": 0.3, "top_fraction": 0.2}, ConfigError, "keep = 0.3 is top_fraction"),
        (Z, {"which": "densest"}, ConfigError, "^which: unknown selection rule"),
        (Z, {"which": "lds+sharpness"}, ConfigError, "looks at decoded images"),
        (Z, {"tau": "auto"}, ConfigError, "held_out is needed"),
        (Z, {"keep": np.float32(1.5)}, ConfigError, "^keep must be at most 1"),
        (Z, {"colour": 3}, ConfigError, "unknown argument 'colour'"),
        (Z, {"seed": -1}, ConfigError, "^seed must be at least 0"),
        (Z, {"work_dir": "here"}, InputError, "work_dir is for a Dataset"),
        (Z, {"tau": 0.9, "sigma": 0.01}, NothingSelectedError, "tau = 0.9 keeps none"),
    ],
)
def test_bad_input_names_the_argument(z, arguments, error, words):
    with pytest.raises(error, match=words):
        augment(z, **arguments)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
class TestDatasets:
    """A Dataset in, a Dataset out."""

    def dataset(self, z: np.ndarray, keys: list[str] | None = None):
        import ray.data

        keys = [f"k{n:03d}" for n in range(len(z))] if keys is None else keys
        return ray.data.from_arrow(pa.table({"key": keys, "z": list(z.astype(np.float32))}))

    def test_the_same_as_of_an_array_and_only_once_it_is_asked_for(self, tmp_path: Path):
        z = np.random.default_rng(1).normal(size=(64, 4))
        seen = tmp_path / "seen"

        def look(batch):
            seen.write_text("seen")
            return batch

        order = np.random.default_rng(2).permutation(len(z))  # rows go by their keys
        shuffled = self.dataset(z[order], [f"k{n:03d}" for n in order]).map_batches(look, batch_format="pyarrow")
        lazy = augment(shuffled, n=900, part_candidates=90)
        assert not seen.exists()
        got = lazy.sort("candidate").to_pandas()
        assert seen.exists()
        want = augment(z, n=900, part_candidates=90)
        assert got["candidate"].tolist() == want.candidate.tolist()
        assert np.stack(got["z"]).astype(np.float32).tobytes() == want.z.tobytes()
        assert got["log_lds"].to_numpy().tobytes() == want.log_lds.tobytes()
        assert got["parent_i"].tolist() == [f"k{n:03d}" for n in want.parents[:, 0]]

    def test_it_streams_on_and_keeps_its_scores_where_it_is_told_to(self, tmp_path: Path):
        z = np.random.default_rng(1).normal(size=(40, 4))
        out = augment(self.dataset(z), n=360, work_dir=tmp_path / "work")
        out.map_batches(lambda batch: {"norm": np.linalg.norm(np.stack(batch["z"]), axis=1)}).write_parquet(
            str(tmp_path / "norms")
        )
        assert load_run(tmp_path / "work").scores.num_rows == 360
        assert list((tmp_path / "norms").glob("*.parquet"))
        with pytest.raises(LdsaugError, match=r"work_dir .*norms: holds something else"):
            augment(self.dataset(z), n=360, work_dir=tmp_path / "norms").take_all()

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda t: t.drop_columns(["key"]), "no column 'key'"),
            (lambda t: t.set_column(0, "key", pa.array(["a", "b", "a", "c"])), "'a' twice"),
            (lambda t: t.set_column(1, "z", pa.array([[1.0], [2.0], [3.0], [np.nan]])), "z hold NaN"),
            (lambda t: t.set_column(1, "z", pa.array([[1.0], [2.0], [3.0], [4.0, 5.0]])), "different shapes"),
            (lambda t: t.slice(0, 1), "at least 2"),
            (lambda t: t.set_column(2, "of", pa.array(["x", None, "y", "y"])), "labels: the column of has none .*'b'"),
            (lambda t: t.drop_columns(["of"]), "no column 'of'"),
        ],
    )
    def test_bad_input_is_told_when_it_is_met(self, change, words):
        import ray.data

        table = pa.table({"key": list("abcd"), "z": [[0.0], [1.0], [2.0], [4.0]], "of": list("xxyy")})
        with pytest.raises(LdsaugError, match=words):
            augment(ray.data.from_arrow(change(table)), n=9, labels="of").take_all()

    def test_other_arguments_that_do_not_fit(self):
        z = self.dataset(np.random.default_rng(1).normal(size=(20, 4)))
        with pytest.raises(InputError, match="labels: of a Dataset, the name of a column; found list"):
            augment(z, labels=[0] * 20)
        with pytest.raises(LdsaugError, match="z has vectors of 4 numbers, held_out of 3; all must be as long"):
            augment(z, n=9, held_out=np.ones((5, 3))).take_all()
