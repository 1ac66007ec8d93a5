"""Lookup by name and by dotted path: what is found, and what each mistake is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from ldsaug_ray.common.registry import Registry, import_all
from ldsaug_ray.errors import ConfigError


class Rule:
    def __init__(self, keeps: int = 3) -> None:
        self.keeps = keeps


@pytest.fixture
def rules() -> Registry[Rule]:
    registry = Registry("rule", Rule)
    registry.add("two", Rule(2))
    registry.add("one", Rule(1))
    return registry


def test_an_entry_is_found_by_its_name_and_a_name_is_taken_once(rules: Registry[Rule]) -> None:
    assert rules.names() == ("one", "two")
    assert (rules.get("two").keeps, rules.check("two")) == (2, "two")
    with pytest.raises(ValueError, match="two entries of the rule 'two'"):
        rules.add("two", Rule())


MINE = f"""
from {__name__} import Rule
class Mine(Rule):
    pass
class Needy(Rule):
    def __init__(self, keeps):
        pass
five = Rule(5)
seven = 7
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "its_rules").mkdir()
    (tmp_path / "its_rules" / "__init__.py").touch()
    (tmp_path / "its_rules" / "good.py").write_text(MINE)
    (tmp_path / "its_rules" / "broken.py").write_text("1 / 0")
    (tmp_path / "its_rules" / "lacking.py").write_text("import not_there_at_all")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("mine")
def test_a_dotted_path_gives_an_instance_or_an_instance_of_the_class(rules: Registry[Rule]) -> None:
    assert (rules.get("its_rules.good:five").keeps, rules.get("its_rules.good:Mine").keeps) == (5, 3)


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("three", "unknown rule 'three'; possible: one, two, or one of your own as package.module:Name"),
        ("its_rules.good:", "not of the form package.module:Name"),
        ("../good:Mine", "not of the form package.module:Name"),
        ("its_rules.absent:Mine", "there is no module 'its_rules.absent'; install it, or add its folder to PYTHONPATH"),
        ("its_rules.lacking:Mine", "no module 'not_there_at_all', which its_rules.lacking imports"),
        ("its_rules.broken:Mine", "cannot be used: ZeroDivisionError: division by zero"),
        ("its_rules.good:Needy", "cannot be used: TypeError"),
        ("its_rules.good:Absent", "the module its_rules.good has no 'Absent'"),
        ("its_rules.good:seven", "is no Rule but int"),
    ],
)
def test_each_mistake_is_told(rules: Registry[Rule], name: str, told: str) -> None:
    with pytest.raises(ConfigError) as e:
        rules.get(name)
    assert told in str(e.value)
    with pytest.raises(ValueError, match="rule"):
        rules.check(name)


@pytest.mark.usefixtures("mine")
def test_every_module_of_a_package_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    (tmp_path / "a_room").mkdir()
    (tmp_path / "a_room" / "__init__.py").write_text(
        "from ldsaug_ray.common.registry import import_all\nimport_all(__name__, __path__)\n"
    )
    for name in ("one", "two"):
        (tmp_path / "a_room" / f"{name}.py").touch()
    import a_room  # type: ignore[import-not-found]

    import_all(a_room.__name__, a_room.__path__)  # again: nothing happens
    assert {"a_room.one", "a_room.two"} <= set(sys.modules)
