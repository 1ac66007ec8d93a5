"""Settings: what is accepted, what is refused, and whether the refusal says what to do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ldsaug_ray import selection
from ldsaug_ray.config import Config, describe, load_config
from ldsaug_ray.config.load import build_config, settings_of
from ldsaug_ray.errors import ConfigError, LdsaugError, StorageError, UsageError
from ldsaug_ray.lds import SIGMA_RULES
from ldsaug_ray.models.priors import PRIORS

FIXED = settings(max_examples=40, deadline=None, derandomize=True, database=None)

NEEDED = ("run_dir=/runs/a", "data.source=/faces")


def config(*overrides: str) -> Config:
    return load_config(None, [*NEEDED, *overrides])


def refusal(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        config(*overrides)
    return str(caught.value)


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return str(path)


def test_the_defaults_are_the_papers() -> None:
    c = config()
    assert (c.data.resolution, c.vae.latent_dim, c.score.n_candidates) == (256, 512, 50_000)
    assert c.score.alphas == pytest.approx([k / 10 for k in range(1, 10)])
    assert (c.score.sigma.rule, c.score.sigma.numbers, c.select.top_fraction) == ("norm_fraction", {"scale": 0.2}, 0.2)


def test_overrides_win_over_the_file_and_reach_every_depth(tmp_path: Path) -> None:
    path = write(tmp_path, "run_dir: r\ndata: {source: s, resolution: 64}\nscore:\n  sigma:\n    scale: 0.5\n")
    c = load_config(path, ["score.sigma.scale=0.3", "train.objective.beta=2", "score.alphas=[0.25, 0.5]", "run_dir=q"])
    assert (c.score.sigma.scale, c.train.objective.beta, c.score.alphas, c.run_dir) == (0.3, 2.0, (0.25, 0.5), "q")
    assert c.data.resolution == 64
    assert load_config(path, ["score.sigma.scale=0.3", "score.sigma.scale=0.4"]).score.sigma.scale == 0.4
    assert load_config(path, ["score.sigma={scale: 0.7}"]).score.sigma.scale == 0.7
    assert load_config(path, [" seed = 3"]).seed == 3


def test_values_are_yaml_and_keep_equals_signs() -> None:
    c = config("data.source=gs://b/k?a=b", "select.top_fraction=null", "select.tau=1e-3", "tracking.enabled=false")
    assert c.data.source == "gs://b/k?a=b"
    assert (c.select.top_fraction, c.select.tau, c.tracking.enabled) == (None, 0.001, False)


def test_a_count_and_a_fraction_stay_apart() -> None:
    assert (config("data.train=1").data.train, config("data.train=1.0", "data.test=0").data.train) == (1, 1.0)
    assert isinstance(config("data.train=1").data.train, int)
    assert isinstance(config("data.train=1.0", "data.test=0.0").data.train, float)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seeed=1", "unknown setting seeed; did you mean seed?"),
        ("scor.n_candidates=3", "unknown setting scor; did you mean score?"),
        ("score.n_candidats=3", "unknown setting score.n_candidats; did you mean score.n_candidates?"),
        ("train.objective.bet=3", "unknown setting train.objective.bet; did you mean train.objective.beta?"),
        ("n_candidates=3", "did you mean score.n_candidates?"),
        ("score.tau=0.3", "unknown setting score.tau; did you mean select.tau?"),
        ("sigma.scale=0.3", "unknown setting sigma; did you mean score.sigma or sample.sigma?"),
        ("score.batch_size=3", "train.batch_size or encode.batch_size"),
        ("score.sigma.zzz=1", "unknown setting score.sigma.zzz; possible here: rule, scale, value, share"),
        ("zzz=1", "possible here: run_dir, seed, engine, ray, domain, data"),
    ],
)
def test_an_unknown_setting_says_what_was_meant(override: str, words: str) -> None:
    assert words in refusal(override)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("score.n_candidates=many", "score.n_candidates must be a whole number (found many)"),
        ("score.n_candidates=1.5", "score.n_candidates must be a whole number (found 1.5)"),
        ("seed=", "seed must be a whole number (found null)"),
        ("seed=2020-01-01", "seed must be a whole number (found 2020-01-01)"),
        ("seed=-1", "seed must be at least 0 (found -1)"),
        ("seed=4294967296", "seed must be less than 4294967296 (found 4294967296)"),
        ("train.learning_rate=0", "train.learning_rate must be more than 0 (found 0)"),
        ("train.objective.beta=x", "train.objective.beta must be a number (found x)"),
        ("select.tau=.nan", "select.tau must be a finite number or 'auto' (found .nan)"),
        ("select.tau=.inf", "select.tau must be a finite number or 'auto' (found .inf)"),
        ("select.tau=high", "select.tau must be a number or 'auto' (found high)"),
        ("select.tau=1.5", "select.tau must be less than 1 or 'auto' (found 1.5)"),
        ("select.top_fraction=20", "select.top_fraction must be at most 1 (found 20)"),
        ("score.workers.count=many", "score.workers.count must be a whole number or 'auto' (found many)"),
        ("score.workers.count=0", "score.workers.count must be at least 1 or 'auto' (found 0)"),
        ("encode.workers.gpus=x", "encode.workers.gpus must be a number or 'auto' (found x)"),
        ("score.workers.gpus=1.5", "score.workers.gpus: must be 0, a fraction below 1, or a whole number (found 1.5)"),
        ("data.train=-1", "data.train must be at least 0 (found -1)"),
        ("data.train=x", "data.train must be a number (found x)"),
        ("data.train=1.5", "data.train must be a whole number or at most 1 (found 1.5)"),
        ("data.format=png", "data.format must be 'auto', 'folder', 'parquet', 'webdataset' or 'digits' (found png)"),
        ("data.resolution=100", "data.resolution: must be one of 16, 32, 64, 128, 256 (found 100)"),
        ("data.attribute_names=Male", "data.attribute_names must be a list, such as [a, b] (found Male)"),
        ("data.attribute_names=[Male, 1]", "data.attribute_names item 2 must be text"),
        ("data.upscale=3", "data.upscale must be true or false (found 3)"),
        ("tracking.experiment=12", "tracking.experiment must be text (in quotes, where it looks like something else)"),
        ("score=3", "score is a section: give settings in it (alphas, approximate, backend, block, interpolation,"),
        (
            "score.sigma=0.3",
            "score.sigma is a section: give settings in it (rule, scale, share, value) or leave it out",
        ),
        ("score.alphas=0.3", "score.alphas must be a list, such as [a, b] (found 0.3)"),
        ("score.alphas=[]", "score.alphas must be a list of at least 1 (found [])"),
        ("score.alphas=[0.3, x]", "score.alphas item 2 must be a number (found x)"),
        ("score.alphas=[0.3, .nan]", "score.alphas item 2 must be a finite number (found .nan)"),
        (
            "score.alphas=[0.3, 1]",
            "score.alphas: every alpha must lie in -100..100 and be neither 0 nor 1",
        ),
        ("score.alphas=[0.3, 0.3]", "score.alphas: an alpha is listed twice"),
        ("train.adam_betas=[0.1]", "train.adam_betas item 2 must be there (found nothing)"),
        ("train.adam_betas=[0, 0, 0]", "train.adam_betas must be a list of at most 2 (found [0, 0, 0])"),
        ("train.adam_betas=[0, 1]", "train.adam_betas: both must lie in [0, 1) (found [0, 1])"),
    ],
)
def test_a_wrong_value_names_setting_possible_and_found(override: str, words: str) -> None:
    text = refusal(override)
    assert words in text
    assert "\n" not in text  # one mistake, one line
    assert "pydantic" not in text


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["score.sigma.rule=fixed"], "score.sigma: value is needed with rule: fixed"),
        (["score.sigma.value=3"], "score.sigma: value belongs to rule: fixed; leave it out (or null) with rule: norm_"),
        (
            ["score.sigma.rule=leave_one_out", "score.sigma.scale=2"],
            "score.sigma: scale belongs to rule: nearest_neighbour or norm_fraction",
        ),
        (["select.top_fraction=null"], "select: give at least one of tau, typical, top_fraction, top_count"),
        (["select.tau=0.1", "select.stratify=true"], "select: stratify goes with top_fraction or top_count"),
        (["select.tau=auto", "data.test=0"], "select.tau: auto and select.typical compare with held-out images"),
        (["select.typical=0.9", "data.test=0.0"], "select.tau: auto and select.typical compare with held-out images"),
        (["data.train=0.9", "data.test=0.3"], "data: train + test = 1.2 is more than all images"),
        (["data.train=0"], "data: train: 0 leaves nothing to train on"),
    ],
)
def test_contradictions(overrides: list[str], words: str) -> None:
    assert words in refusal(*overrides)


@pytest.mark.parametrize("domain", ["vectors", "molecules", "audio"])
@pytest.mark.parametrize(
    ("given", "only"),
    [
        ("finetune.uses.adversarial=0.5", "0"),
        ("finetune.uses.cycle=1", "0"),
        ("train.objective.adversarial.weight=0.1", "0"),
        ("finetune.objective.perceptual.network=lpips", "null"),
        ("finetune.judge=kde", '"normal"'),
        ("train.horizontal_flip=true", "false"),
    ],
)
def test_others_are_not_trained_as_images_are(domain: str, given: str, only: str) -> None:
    tree = {"run_dir": "r", "domain": domain, "data": {"source": "s"}}
    build_config(tree, [f"{given.partition('=')[0]}={only}"])
    name, _, value = given.partition("=")
    value = "True" if value == "true" else value
    with pytest.raises(ConfigError) as told:
        build_config(tree, [given])
    assert str(told.value) == f"{name} = {value}: only data of domain=images are trained so; set it to {only}"
    with pytest.raises(ConfigError, match=r"lds\+sharpness: only data of domain=images have a sharpness; set lds"):
        build_config(tree, ["select.which=lds+sharpness"])


def test_rules_may_be_combined() -> None:
    c = config("select.tau=0.28", "select.top_count=10", "score.sigma.rule=fixed", "score.sigma.value=4")
    assert (c.select.tau, c.select.top_fraction, c.select.top_count, c.score.sigma.value) == (0.28, None, 10, 4.0)
    assert config("select.tau=0.28", "select.top_fraction=0.1").select.top_fraction == 0.1
    assert config("select.tau=auto").select.top_fraction is None
    assert config("select.typical=0.9").select.top_fraction is None
    assert config("select.exclude_parents=true").select.top_fraction == 0.2  # the paper's rule, where none is given


def test_every_mistake_is_reported_at_once_with_the_files_name(tmp_path: Path) -> None:
    path = write(tmp_path, "run_dir: r\ndata: {source: s, resolution: 7}\ntrain: {steps: -1}\nfoo: 1\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path, ["score.n_candidates=-1"])
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    assert [line.startswith(f"{path}: ") for line in lines] == ["score." not in line for line in lines]
    for name in ("data.resolution", "train.steps", "score.n_candidates", "foo"):
        assert sum(name in line for line in lines) == 1


def test_what_is_required(tmp_path: Path) -> None:
    for path in (None, write(tmp_path, ""), write(tmp_path, "# nothing yet\n")):
        with pytest.raises(ConfigError, match="run_dir is required") as caught:
            load_config(path)
        assert "data is required" in str(caught.value)
    with pytest.raises(ConfigError, match=r"data\.source is required"):
        load_config(None, ["run_dir=r", "data.resolution=64"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- 1\n- 2\n", r"expected settings as `name: value` lines, found \[1, 2\]"),
        ("hello\n", "expected settings as `name: value` lines, found hello"),
        ("a: b: c\n", "not valid YAML: mapping values are not allowed here"),
        ("seed: [1\n", "not valid YAML"),
        ("seed: !!python/object/apply:os.getcwd []\n", "not valid YAML: could not determine a constructor"),
        ("score: {tile_rows: 3}\nseed: 1\nscore: {n_candidates: 4}\n", "score is given twice"),
        ("score:\n  tile_rows: 1\n  tile_rows: 2\n", "tile_rows is given twice"),
        ("? [1]\n: 2\n", "not valid YAML"),
        ("1: 2\n", "unknown setting 1; possible here: run_dir"),
        ("score:\n", "score is a section"),
    ],
)
def test_broken_files(tmp_path: Path, text: str, words: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=words) as caught:
        load_config(path, NEEDED)
    assert path in str(caught.value)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot read .*nope.yaml: no such file"):
        load_config(str(tmp_path / "nope.yaml"))
    with pytest.raises(StorageError, match="cannot read"):
        load_config(str(tmp_path))
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(StorageError, match=r"b.yaml: not a UTF-8 text file"):
        load_config(str(tmp_path / "b.yaml"))
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbfrun_dir: r\ndata: {source: s}\n")  # as Windows editors save
    assert load_config(str(tmp_path / "bom.yaml")).run_dir == "r"


@pytest.mark.parametrize("override", ["seed", "=3", "", "a..b=3", ".a=3", "a.=3"])
def test_an_override_without_a_name_or_value(override: str) -> None:
    with pytest.raises(UsageError, match=r"expected name=value, such as score\.sigma\.scale=0\.3") as caught:
        config(override)
    assert repr(override) in str(caught.value)


def test_an_override_that_is_not_yaml() -> None:
    with pytest.raises(UsageError, match=r"override 'seed=\[1': the value is not valid YAML"):
        config("seed=[1")


def test_an_override_into_a_scalar_or_an_empty_section(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"override 'seed\.x=1': seed is a value, not a section"):
        config("seed=1", "seed.x=1")
    with pytest.raises(ConfigError, match=r"score\.sigma is a value, not a section"):
        load_config(write(tmp_path, "score: {sigma: 3}\n"), ["score.sigma.scale=0.2"])
    assert load_config(write(tmp_path, "score:\n"), [*NEEDED, "score.tile_rows=7"]).score.tile_rows == 7


def leaves(tree: dict[str, object], prefix: str = "") -> list[str]:
    found: list[str] = []
    for name, value in tree.items():
        section = isinstance(value, dict) and value  # an empty mapping is a value: its names are the user's
        found += leaves(value, f"{prefix}{name}.") if section else [prefix + name]
    return found


def test_describe_covers_every_leaf_in_the_trees_order() -> None:
    rows = list(describe())
    assert [name for name, _, _ in rows] == leaves(config().dump())
    assert all(text.strip() for _, _, text in rows)
    defaults = {name: default for name, default, _ in rows if default != "(required)"}
    assert {n for n, _, _ in rows} - set(defaults) == {"run_dir", "data.source"}
    assert config(*(f"{name}={default}" for name, default in defaults.items())) == config()


def test_the_help_has_the_entries_of_registries() -> None:
    help_of = {name: text for name, _, text in settings_of("images")}
    for setting, registry in {
        "select.which": selection.RULES,
        "select.rank": selection.RANKS,
        "select.balance": selection.BALANCES,
        "score.sigma.rule": SIGMA_RULES,
        "sample.prior": PRIORS,
    }.items():
        for name in registry.names():
            assert f"{name}: {registry.get(name).words}" in help_of[setting]
            assert registry.get(name).words
    assert not [name for name, text in help_of.items() if re.search(r"\{[A-Z]", text)]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("evaluate.extractor=incept", r"evaluate\.extractor: unknown extractor 'incept'; possible: inception"),
        ("evaluate.extractor=fingerprints", "is of domain=molecules, not of domain=images; possible: .*pixels"),
        ("evaluate.extractor=nowhere:Mine", "there is no module 'nowhere'"),
    ],
)
def test_an_extractor_is_known_and_of_the_domain(given: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        config(given)


def test_a_dumped_config_loads_as_itself(tmp_path: Path) -> None:
    c = config("score.alphas=[0.5]", "data.train=100", "data.test=1.0", "train.workers.gpus=0.5", "data.source='a: #b'")
    path = write(tmp_path, yaml.safe_dump(c.dump(), sort_keys=False, allow_unicode=True))
    again = load_config(path)
    assert again == c
    assert again.dump() == c.dump()
    assert [type(again.data.train), type(again.data.test)] == [int, float]


@FIXED
@given(
    seed=st.integers(0, 2**32 - 1),
    tau=st.none() | st.floats(1e-300, 0.999),
    alphas=st.lists(st.floats(1e-9, 0.999), min_size=1, max_size=9, unique=True),
    name=st.none() | st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=9),
    train=st.integers(1, 10**9) | st.floats(1e-6, 0.8),
)
def test_round_trip(seed: int, tau: float | None, alphas: list[float], name: str | None, train: float) -> None:
    tree = {
        "run_dir": "r",
        "seed": seed,
        "data": {"source": "s", "train": train},
        "score": {"alphas": alphas},
        "select": {"tau": tau},
        "tracking": {"run_name": name},
    }
    c = Config.model_validate(tree)
    assert Config.model_validate(yaml.safe_load(yaml.safe_dump(c.dump(), allow_unicode=True))) == c


def test_settings_are_frozen() -> None:
    c = config()
    with pytest.raises(ValidationError, match="frozen"):
        c.seed = 1  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        c.score.sigma.scale = 1.0  # type: ignore[misc]


@FIXED
@given(st.text(max_size=30), st.sampled_from([n for n, _, _ in describe()]))
def test_whatever_is_typed_ends_in_a_config_or_a_clear_error(text: str, name: str) -> None:
    words = None
    try:
        config(f"{name}={text}")
    except LdsaugError as e:
        words = str(e)
    assert words is None or name.split(".")[0] in words


@pytest.mark.parametrize(
    ("settings", "unit"),
    [
        (["score.n_candidates=50000"], 4095),  # whole pairs of nine
        (["score.n_candidates=1000000"], 62496),
        (["score.n_candidates=100000000"], 1048572),
        (["score.part_candidates=100"], 99),
        (["score.part_candidates=5"], 9),
        (["score.plan=blocks", "score.block=[10, 20]"], 1800),
    ],
)
def test_candidates_of_a_unit(settings: list[str], unit: int) -> None:
    assert config(*settings).score.unit_candidates == unit


@pytest.mark.parametrize(
    ("vae", "message"),
    [
        ({"kind": "diffusers"}, "vae: kind: diffusers needs path"),
        ({"kind": "torchscript", "encoder": "e.pt"}, "vae: kind: torchscript needs decoder and pixel_range"),
        ({"path": "p"}, r"vae: path belongs to kind: diffusers; leave it out \(or null\) with kind: stylegan2"),
        ({"kind": "diffusers", "path": "p", "encoder": "e"}, "encoder belongs to kind: torchscript"),
        ({"kind": "diffusers", "path": "p", "latent_dim": 512}, "latent_dim belongs to kind: stylegan2"),
        ({"kind": "diffusers", "path": "p", "mapping_layers": 0}, "mapping_layers belongs to kind: stylegan2"),
        ({"latent_dim": None}, "kind: stylegan2 needs latent_dim"),
        ({"kind": "onnx"}, "vae.kind must be 'stylegan2', 'diffusers' or 'torchscript'"),
    ],
)
def test_settings_of_one_kind_of_autoencoder(tmp_path: Path, vae: dict[str, object], message: str) -> None:
    path = write(tmp_path, yaml.safe_dump({"run_dir": "r", "data": {"source": "s"}, "vae": vae}))
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_a_pretrained_autoencoder_is_not_trained_by_default(tmp_path: Path) -> None:
    needed = {"run_dir": "r", "data": {"source": "s"}}
    pretrained = {**needed, "vae": {"kind": "diffusers", "path": "p"}}
    c = Config.model_validate(pretrained)
    assert (c.train.steps, c.vae.latent_dim, c.vae.is_pretrained) == (0, None, True)
    assert Config.model_validate(c.dump()) == c, "what is saved can be read again"
    assert Config.model_validate({**pretrained, "train": {"batch_size": 4}}).train.steps == 0
    assert Config.model_validate({**pretrained, "train": {"steps": 5}}).train.steps == 5
    assert Config.model_validate(needed).train.steps == 100_000
    with pytest.raises(ConfigError, match=r"train\.steps: 0 is for autoencoders that are trained already"):
        load_config(None, [*NEEDED, "train.steps=0"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"test": 0}, "train": {"best_by": "held_out_reconstruction"}}, "train.best_by: held_out_recon"),
        ({"finetune": {"best_by": "perceptual"}}, "best_by: perceptual needs objective.perceptual.network"),
        (
            {"train": {"best_by": "perceptual", "objective": {"perceptual": {"network": "n.pt", "weight": 0}}}},
            "weight above 0",
        ),
        (
            {
                "train": {
                    "best_by": "perceptual",
                    "checkpoint_every": 4,
                    "objective": {"perceptual": {"network": "n.pt", "every": 5}},
                }
            },
            "a value for every checkpoint",
        ),
    ],
)
def test_the_best_checkpoint_needs_its_term(changes: dict[str, Any], message: str) -> None:
    tree = {"run_dir": "r", **changes, "data": {"source": "d", **changes.get("data", {})}}
    with pytest.raises(ValueError, match=message):
        Config.model_validate(tree)


def test_an_override_changes_one_of_the_sections_that_an_alias_gives(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    text = "run_dir: r\ndata: {source: x}\nencode: &one {batch_size: 5, workers: {count: 1}}\ndecode: *one\n"
    file.write_text(text)
    config = load_config(str(file), ["encode.workers.count=2", "encode.batch_size=7"])
    assert (config.encode.batch_size, config.encode.workers.count) == (7, 2)
    assert (config.decode.batch_size, config.decode.workers.count) == (5, 1)
    file.write_text("data: &all {source: *all}")
    with pytest.raises(ConfigError, match="an alias"):
        load_config(str(file))
