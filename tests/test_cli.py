"""The command line's own: help in groups, a demo that needs no repository, a commented config, shell completion."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from ldsaug_ray.cli import main
from ldsaug_ray.commands.init import commented_config
from ldsaug_ray.config import Config, load_config
from ldsaug_ray.config.load import settings_of
from ldsaug_ray.run.pipeline import STAGES

GIVEN = ["run_dir=runs/mine", "data.source=images"]


@pytest.fixture
def help_text(capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_the_help_has_every_command_once_in_a_group(help_text, capsys):
    with pytest.raises(SystemExit):
        main(["no-such-command"])
    known = re.findall(r"'([\w-]+)'", capsys.readouterr().err.split("choose from")[1])
    assert {"run", "demo", "init", "tune", *STAGES} <= set(known)
    assert help_text.startswith("usage: ldsaug COMMAND")
    groups = re.findall(r"^(\w[^:\n]*):\n((?:  \w.*\n)+)", help_text, re.M)
    listed = [(title, line.split()[0]) for title, lines in groups for line in lines.splitlines()]
    assert sorted(name for _, name in listed) == sorted(known)
    assert {title for title, name in listed if name in STAGES} == {"stages of a run, one at a time"}


def test_the_usage_of_a_command(capsys):
    with pytest.raises(SystemExit):
        main(["sample", "--help"])
    assert capsys.readouterr().out.startswith("usage: ldsaug sample [-h]")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["run"], "the following arguments are required: config"),
        (["measure", "real"], "the following arguments are required: FAKE"),
    ],
)
def test_what_lacks_is_told(words, said, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert told.endswith(f": error: {said}\n")
    assert words or "ldsaug --help" in told


def test_the_demo_runs_from_anywhere(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--dry-run", "engine=inline", "run_dir=here", "tracking.enabled=false"]) == 0
    shown = capsys.readouterr()
    assert "here" in shown.out + shown.err
    assert re.search(r"lds +│ continued", shown.out)  # an arm, and what it is compared with
    assert main(["demo", "--dry-run", "no.such=1"]) == 1
    assert "unknown setting no" in capsys.readouterr().err


def test_demos_of_other_data(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "cheeses"]) == 2
    assert re.search(r"there is no demo cheeses; possible: audio, demo, molecules, vectors", capsys.readouterr().err)
    pytest.importorskip("rdkit", reason="pip install ldsaug_ray[molecules]")
    assert main(["demo", "molecules", "--dry-run", "run_dir=here", "tracking.enabled=false"]) == 0
    assert re.search(r"lds +│ continued", capsys.readouterr().out)


def test_init_writes_what_loads_as_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["init"]) == 0
    assert "ldsaug run ldsaug.yaml" in capsys.readouterr().out
    assert load_config("ldsaug.yaml") == load_config(None, GIVEN)
    assert main(["init"]) == 1
    assert "ldsaug.yaml: is there already" in capsys.readouterr().err
    assert main(["init", "no/such/folder.yaml"]) == 1
    assert "no/such/folder.yaml: cannot be written (No such file" in capsys.readouterr().err


def test_every_setting_of_init_has_its_default(tmp_path):
    """All comments taken away, it says what the defaults say; each alone is a setting, told with its meaning."""
    text = commented_config()
    whole = tmp_path / "whole.yaml"
    whole.write_text(re.sub(r"^# ( *[a-z_]+:)", r"\1", text, flags=re.M))
    expected = load_config(None, GIVEN)
    found = load_config(str(whole))
    assert found == expected
    assert found.model_fields_set == set(Config.model_fields)
    for _, _, meaning in settings_of("images"):
        assert f"  # {meaning}\n" in text


def completed(*words: str) -> list[str]:
    """What bash offers for the last of the words."""
    line = " ".join(f"'{w}'" for w in words)
    lines = f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _ldsaug; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    script = subprocess.run(["bash", "-c", f"{SCRIPT.read_text()}\n{lines}"], capture_output=True, text=True)
    assert script.returncode == 0, script.stderr
    return script.stdout.split()


SCRIPT = Path("completion.bash")


def test_bash_completes_commands_options_and_settings(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["completion"]) == 0
    SCRIPT.write_text(capsys.readouterr().out)
    assert completed("ldsaug", "exp") == ["experiment", "export"]
    assert set(STAGES) <= set(completed("ldsaug", ""))
    assert completed("ldsaug", "tune", "x.yaml", "--re") == ["--resume"]
    assert completed("ldsaug", "run", "x.yaml", "--re") == []
    assert completed("ldsaug", "run", "x.yaml", "score.sigma.sc") == ["score.sigma.scale="]
    assert completed("ldsaug", "run", "x.yaml", "score.sigma.scale=0") == []
    assert completed("ldsaug", "run", "configs/de") == []


def test_settings_of_another_domain(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "--domain", "vectors", "vae."]) == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} == {"vae.kind", "vae.standardise"}
    assert main(["settings", "data.tr", "--domain", "vectors"]) == 0
    assert "training rows: a count" in capsys.readouterr().out
    assert main(["settings", "--domain", "tables"]) == 1
    assert "unknown domain 'tables'" in capsys.readouterr().err
