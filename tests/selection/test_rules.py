"""Selection rules as records: what each keeps, what counts for its fingerprint, and the sentence that tells it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ldsaug_ray.config import Config, load_config
from ldsaug_ray.errors import ConfigError, InputError, NothingSelectedError
from ldsaug_ray.run import pipeline
from ldsaug_ray.run.pipeline import STAGES
from ldsaug_ray.selection import RULES, Selection, sentence_of
from ldsaug_ray.selection.rule import checked_sentence, chosen

SCORES = np.random.default_rng(0).normal(-9.0, 2.0, (40, 2))  # candidates; log LDS with the own parents and without
REAL = np.linspace(-12.0, -6.0, 39)


def config(*overrides: str) -> Config:
    return load_config(None, ["run_dir=r", "data.source=s", "seed=7", *overrides])


def tables() -> Iterator[pa.Table]:
    for ids in (np.arange(25, 40), np.arange(25)):
        yield pa.table(
            {
                "candidate": ids,
                "log_lds": SCORES[ids, 0],
                "log_lds_excluding_parents": SCORES[ids, 1],
                "alpha": np.tile([0.25, 0.5], 20)[ids],
            }
        )


def kept(*overrides: str) -> Selection:
    c = config(*overrides)
    return chosen(tables(), 40, c, REAL)


def densest(scores: np.ndarray, n: int) -> list[int]:
    return sorted(sorted(range(40), key=lambda c: -scores[c])[:n])


def test_lds_keeps_the_densest_by_the_score_that_counts() -> None:
    assert kept("select.top_count=5").ids.tolist() == densest(SCORES[:, 0], 5)
    assert kept("select.top_count=5", "select.exclude_parents=true").ids.tolist() == densest(SCORES[:, 1], 5)
    sharp = kept("select.top_count=5", "select.which=lds+sharpness")  # the rest is the work of decode
    assert sharp.ids.tolist() == densest(SCORES[:, 0], 5)


def test_typical_has_a_band_of_its_own() -> None:
    found = kept("select.which=typical")  # 39 real latents: the 2nd smallest and largest leave 5 % on either side
    assert found.ids.tolist() == np.flatnonzero((SCORES[:, 0] >= REAL[1]) & (SCORES[:, 0] <= REAL[-2])).tolist()
    assert config("select.which=typical", "select.typical=0.5").select.typical == 0.5


def splitmix(x: int) -> int:
    """Of Steele et al. 2014, in whole numbers."""
    x = (x + 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)


def test_random_draws_as_many_by_the_hash_of_seed_and_id() -> None:
    found = kept("select.which=random", "select.top_count=6")
    order = sorted(range(40), key=lambda c: (splitmix((c + splitmix(7)) % 2**64) >> 11, c))
    assert found.ids.tolist() == sorted(order[:6])
    assert (found.rules, found.threshold_log, found.binding) == ({"top_count": 6}, None, None)


def test_none_keeps_nothing_and_looks_at_nothing() -> None:
    c = config("select.which=none", "select.tau=auto", "data.test=0")
    assert not c.select.needs_held_out
    found = chosen(iter(lambda: 1 / 0, None), 40, c, None)
    assert (found.ids.dtype, len(found.ids), found.n_candidates, found.rules) == (np.int64, 0, 40, {})


@pytest.mark.parametrize(
    ("which", "of_select", "of_decode"),
    [
        ("lds", {}, {}),
        ("typical", {}, {}),
        ("none", {}, {}),
        ("random", {"seed": 7}, {}),
        ("lds+sharpness", {}, {"which": "lds+sharpness"}),
    ],
)
def test_what_counts_for_fingerprints(
    which: str, of_select: dict[str, Any], of_decode: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in run directories of before the rules were records, or these would be computed again."""
    monkeypatch.setattr(pipeline, "fingerprint", lambda value: value)
    c = config(f"select.which={which}")
    own = {
        "which": which,
        "tau": None,
        "tau_level": 0.05,
        "typical": 0.9 if which == "typical" else None,
        "top_fraction": None if which == "typical" else 0.2,
        "top_count": None,
        "stratify": False,
        "exclude_parents": False,
    }
    decode = {"batch_size": 64, "part_rows": 512, "sharpest": 0.5}
    assert STAGES["select"].fingerprint(c, {})[2] == {"select": own, **of_select}
    assert STAGES["decode"].fingerprint(c, {})[2] == {"decode": decode, **of_decode}


NUMBERS = {"rows_in": 4500, "rows_out": 900, "threshold_tau": 0.0125, "threshold_log_lds": -4.382, "paper_tau": 0.28}


@pytest.mark.parametrize("which", ["lds", "lds+sharpness", "typical", "random", "none"])
def test_the_sentence_of_each(which: str) -> None:
    entry = {"which": which, **NUMBERS, "binding_rule": "top_fraction", "rules": {"top_fraction": 900}}
    by_threshold = "kept 900 of 4,500 candidates: LDS ≥ 0.0125 (log -4.382, by top_fraction); the paper's tau is 0.28"
    told = {
        "random": "kept 900 of 4,500 candidates, drawn at random: as many as top_fraction keeps, no threshold",
        "none": "kept 0 of 4,500 candidates: select.which is none, so that there is no A",
    }.get(which, by_threshold)
    assert RULES.get(which).sentence(entry) == told
    assert sentence_of(entry) == told  # of a manifest of before
    assert sentence_of({**entry, "which": "gone:Rule", "sentence": "kept all"}) == "kept all"


OWN = """
import numpy as np
from ldsaug_ray.selection import Rule, Selection
class Wrong(Rule):
    def choose(self, tables, n, config, held_out):
        return Selection(self.ids, None, n)
class Twice(Wrong):
    ids = np.array([3, 3])
class Beyond(Wrong):
    ids = np.array([3, 40])
class Floats(Wrong):
    ids = np.array([3.0])
class Empty(Wrong):
    ids = np.array([], np.int64)
class Real(Rule):
    def needs_held_out(self, settings):
        return True
class Elsewhere(Rule):
    def columns(self, settings):
        return ("sharpness",)
class Nothing(Rule):
    def choose(self, tables, n, config, held_out):
        return None
class Fails(Rule):
    def choose(self, tables, n, config, held_out):
        raise KeyError("alpha")
    def sentence(self, entry):
        return entry["alpha"]
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rules_of_mine.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("name", ["Twice", "Beyond", "Floats"])
def test_a_rule_that_gives_no_selection_is_told(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name} must give different ids of 0..39, int64\[K\] ascending"):
        kept(f"select.which=rules_of_mine:{name}")


@pytest.mark.usefixtures("own")
def test_a_rule_that_keeps_nothing_or_ranks_by_something_else_is_told() -> None:
    with pytest.raises(NothingSelectedError, match="rules_of_mine:Empty keeps none of 40 candidates"):
        kept("select.which=rules_of_mine:Empty")
    with pytest.raises(ConfigError, match="ranks by sharpness; first must be log_lds or"):
        kept("select.which=rules_of_mine:Elsewhere")


@pytest.mark.usefixtures("own")
def test_a_rule_that_fails_is_named() -> None:
    with pytest.raises(ConfigError, match=r"which: rules_of_mine:Nothing gave NoneType; a Selection is needed"):
        kept("select.which=rules_of_mine:Nothing")
    with pytest.raises(InputError, match=r"select.which rules_of_mine:Fails failed \(KeyError: 'alpha'\)"):
        kept("select.which=rules_of_mine:Fails")
    with pytest.raises(InputError, match=r"select.which rules_of_mine:Fails failed \(KeyError: 'alpha'\)"):
        checked_sentence("rules_of_mine:Fails", {})
    with pytest.raises(InputError, match=r"rules_of_mine:Fails gave NoneType as its sentence; text is needed"):
        checked_sentence("rules_of_mine:Fails", {"alpha": None})


@pytest.mark.usefixtures("own")
def test_a_rule_that_needs_held_out_latents_is_told_where_there_are_none() -> None:
    with pytest.raises(ConfigError, match="rules_of_mine:Real compares with held-out images"):
        config("select.which=rules_of_mine:Real", "data.test=0")


@pytest.mark.parametrize(
    ("which", "told"),
    [
        (
            "some",
            f"select.which: unknown selection rule 'some'; possible: {', '.join(RULES.names())}, or one of your own",
        ),
        ("absent.rules:Mine", "select.which: selection rule 'absent.rules:Mine': there is no module 'absent'"),
        ("math:pi", "select.which: selection rule 'math:pi' is no Rule but float"),
        ("math:tau_", "select.which: selection rule 'math:tau_': the module math has no 'tau_'"),
        ("3", "select.which must be text"),
    ],
)
def test_a_rule_that_is_not_there_is_told_before_work_starts(which: str, told: str) -> None:
    with pytest.raises(ConfigError) as e:
        config(f"select.which={which}")
    assert told in str(e.value)
