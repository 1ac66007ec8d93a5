"""The command line: `ldsaug run CONFIG [name=value …]`, single stages, and what `ldsaug --help` lists besides.

Exit codes: 0 done; 1 an error, told in one message; 2 a malformed command line; 130 or 143 stopped from outside.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
from bdb import BdbQuit
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ldsaug_ray import __version__
from ldsaug_ray.common.secrets import without_password
from ldsaug_ray.errors import LdsaugError, UsageError
from ldsaug_ray.run.output import forgiving_output
from ldsaug_ray.run.pipeline import STAGES

_EPILOG = """\
Settings are given as name=value after the config file: ldsaug run ldsaug.yaml score.sigma.scale=0.3
`ldsaug settings` lists them all. Run the same command again to go on with an interrupted run.
With RAY_ADDRESS set, commands attach to that cluster; otherwise they start a local Ray.
"""

# what of them is not printed is not done
_ALL_IS_OUTPUT = ("settings", "status", "compare", "doctor", "measure", "completion")
_OVERRIDES: dict[str, Any] = {"nargs": "*", "default": [], "metavar": "name=value"}
_WITH_VALUE = ("--domain", "--n", "--out", "--images", "--train", "--extractor", "--json", "--html")  # others are flags


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    with forgiving_output() as out:
        arguments = _parse(_parser()[0], list(sys.argv[1:] if argv is None else argv))
        code = _run(arguments)
    return 1 if out.lost and arguments.command in _ALL_IS_OUTPUT else code


def _run(arguments: argparse.Namespace) -> int:
    verbose = getattr(arguments, "verbose", False)
    _Terminated.received = False
    signal.signal(signal.SIGTERM, _terminate)
    try:
        return int(_dispatch(arguments))
    except (KeyboardInterrupt, SystemExit):  # the latter is SIGTERM's
        by = "stopped by SIGTERM" if _Terminated.received else "interrupted"
        print(f"{by}; run the same command again to go on", file=sys.stderr)
        return 128 + (signal.SIGTERM if _Terminated.received else signal.SIGINT)
    except UsageError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    except BdbQuit:
        print("the debugger was left; run the same command again to go on", file=sys.stderr)
        return 128 + signal.SIGINT
    except Exception as e:
        if verbose:
            raise
        print(_message(e), file=sys.stderr)
        return 1


def _parse(parser: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace:
    """Parse; name=value may stand on either side of an option, which argparse's subcommands do not allow."""
    words: list[str] = []
    options: list[str] = []
    rest = iter(argv)
    for word in rest:
        if word in _WITH_VALUE and (value := next(rest, None)) is not None:
            options.append(f"{word}={value}")  # in one word, so that a value may begin with a dash
        else:
            (options if word.startswith("-") else words).append(word)
    return parser.parse_args([*words, *options])


class _Commands:
    """Subcommands; `listed` has them in their groups, as the help shows them."""

    def __init__(self, parser: argparse.ArgumentParser):
        self._parsers = parser.add_subparsers(
            dest="command", required=True, metavar="COMMAND", help=argparse.SUPPRESS, prog=parser.prog
        )
        self.listed: dict[str, dict[str, str]] = {}

    def add(self, group: str, name: str, text: str, **how: Any) -> argparse.ArgumentParser:
        """One of them, without arguments yet."""
        self.listed.setdefault(group, {})[name] = text
        return self._parsers.add_parser(
            name, description=text, formatter_class=argparse.RawDescriptionHelpFormatter, **how
        )

    def help(self) -> str:
        """The groups, one line a command."""
        groups = ("\n".join(f"  {n:<11} {t}" for n, t in found.items()) for found in self.listed.values())
        return "\n\n".join(f"{title}:\n{lines}" for title, lines in zip(self.listed, groups, strict=True))

    def options(self) -> dict[str, list[str]]:
        """Those of each command."""
        usages = {name: parser.format_usage() for name, parser in self._parsers.choices.items()}
        return {name: ["--help", *re.findall(r"--[a-z-]+", usage)] for name, usage in usages.items()}


def _parser() -> tuple[argparse.ArgumentParser, _Commands]:
    parser = argparse.ArgumentParser(
        prog="ldsaug", usage="ldsaug COMMAND …, or ldsaug --help", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"ldsaug_ray {__version__}")
    commands = _Commands(parser)
    begin, runs, look, stages = "begin", "run", "look", "stages of a run, one at a time"
    demo = commands.add(begin, "demo", "whether A helps on scikit-learn's digits, into runs/demo: minutes, no download")
    _takes_settings(demo, "audio, molecules or vectors in place of digits; then settings, such as run_dir=/tmp/demo")
    init = commands.add(begin, "init", "write a config in which every setting stands, commented out")
    init.add_argument("file", nargs="?", default="ldsaug.yaml", help="file to write [ldsaug.yaml]")
    settings = commands.add(begin, "settings", "list every setting, its default and meaning")
    settings.add_argument("filter", nargs="?", default="", help="only settings whose name contains this")
    settings.add_argument("--domain", default="images", metavar="D", help="of this kind of data [images]")
    doctor = commands.add(begin, "doctor", "check Ray, FAISS, MLflow, devices and feature weights")
    doctor.add_argument("--verbose", action="store_true", help="show tracebacks")
    commands.add(begin, "completion", 'print a completion script for bash and zsh: eval "$(ldsaug completion)"')
    _add_run(commands, runs, "run", "all stages in order")
    sample = _add_run(commands, runs, "sample", "draw from the trained VAE; not part of run")
    sample.add_argument("--n", metavar="N", help="images to draw (setting sample.n)")
    sample.add_argument("--out", metavar="DIR", help="folder or URI to write to (setting sample.out)")
    _add_run(commands, runs, "frontier", "rules and samplers against noise about latents, at equal authenticity")
    _add_run(
        commands, runs, "experiment", "arms from one baseline, over seeds and training-set sizes, compared in tables"
    )
    tune = _add_run(commands, runs, "tune", "search over settings, such as sigma and tau; a trial is a run")
    tune.add_argument("--resume", action="store_true", help="go on with a search, which must be there (else: or begin)")
    status = commands.add(look, "status", "what of a run is done, running or quarantined, and what comes next")
    status.add_argument("run_dir", help="run directory: a path or URI")
    status.add_argument("--verbose", action="store_true", help="show tracebacks")
    compare = commands.add(look, "compare", "settings that differ between runs, and their metrics, from MLflow")
    compare.add_argument("runs", nargs="+", metavar="RUN", help="MLflow run id, run name, or run directory")
    compare.add_argument("--csv", action="store_true", help="as CSV")
    compare.add_argument("--verbose", action="store_true", help="show tracebacks")
    measure = commands.add(look, "measure", "two sets of images or other items, or of features, compared; needs no run")
    measure.add_argument("real", metavar="REAL", help="real items (folder, Parquet, tar, URI), or features (.npy)")
    measure.add_argument("fake", metavar="FAKE", help="generated ones, likewise")
    measure.add_argument("overrides", **_OVERRIDES, help="such as evaluate.k=3 domain=molecules")
    measure.add_argument("--train", metavar="TRAIN", help="training items, likewise: are fake ones copies?")
    measure.add_argument("--extractor", metavar="E", help="what makes features: pixels, FILE.pt, … [inception]")
    measure.add_argument("--json", metavar="FILE", help="write the numbers there; -: print them instead of the table")
    measure.add_argument("--html", metavar="FILE", help="write a page there, with the nearest pairs")
    measure.add_argument("--verbose", action="store_true", help="show tracebacks")
    export = commands.add(look, "export", "the augmented set and the model as folders for the Hugging Face Hub")
    export.add_argument("run_dir", help="run directory: a path or URI")
    export.add_argument("--out", metavar="DIR", required=True, help="folder or URI to write dataset/ and model/ to")
    export.add_argument("--overwrite", action="store_true", help="replace what export wrote there")
    export.add_argument("--verbose", action="store_true", help="show tracebacks")
    for stage in STAGES.values():
        first = " (reads the images first, if that is still to be done)" if stage.name == "train" else ""
        command = _add_run(commands, stages, stage.name, f"{stage.does}{first}")
        if stage.name == "evaluate":
            command.add_argument(
                "--images", metavar="SOURCE", help="measure these images instead (any source that data.source takes)"
            )
    parser.description = (
        "Augment the training set of a generative model by latent density (LDS), on Ray.\n\n" + commands.help()
    )
    parser.epilog = f"`ldsaug COMMAND --help` has what a command takes. {_EPILOG}"
    return parser, commands


def _add_run(commands: _Commands, group: str, name: str, text: str) -> argparse.ArgumentParser:
    parser = commands.add(group, name, text, epilog=_EPILOG)
    parser.add_argument("config", help="YAML file with the settings; `ldsaug init` writes one")
    _takes_settings(parser, "settings that replace the file's")
    return parser


def _demo(given: list[str]) -> tuple[str, list[str]]:
    """Preset and settings of `ldsaug demo [KIND] [name=value …]`."""
    found = (Path(__file__).parent / "presets").glob("demo*.yaml")
    presets = {f.stem.removeprefix("demo-"): str(f) for f in found}
    name = given[0] if given and "=" not in given[0] else "demo"
    if name not in presets:
        raise UsageError(f"there is no demo {name}; possible: {', '.join(sorted(presets))}")
    return presets[name], ["engine=inline", *given[name != "demo" :]]  # less to compute than Ray takes to start


def _takes_settings(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("overrides", **_OVERRIDES, help=text)
    parser.add_argument("--dry-run", action="store_true", help="print what would be done, and do nothing")
    sample = parser.prog.endswith(" sample")
    other = "discard what another request drew there" if sample else "discard a run directory of other data"
    parser.add_argument("--overwrite", action="store_true", help=other)
    parser.add_argument("--verbose", action="store_true", help="show Ray's own messages and tracebacks")


def _dispatch(arguments: argparse.Namespace) -> int:
    if arguments.command == "settings":
        return _settings(arguments.filter, arguments.domain)
    if arguments.command == "init":
        from ldsaug_ray.commands.init import init_command

        return init_command(arguments.file)
    if arguments.command == "completion":
        from ldsaug_ray.commands.completion import completion_script

        print(completion_script(_parser()[1].options()), end="")
        return 0
    if arguments.command == "doctor":
        from ldsaug_ray.commands.doctor import examine

        return examine(verbose=arguments.verbose)
    if arguments.command == "status":
        from ldsaug_ray.commands.status import status_command

        return status_command(arguments.run_dir)
    if arguments.command == "export":
        from ldsaug_ray.commands.export import export_command

        return export_command(arguments.run_dir, arguments.out, overwrite=arguments.overwrite)
    if arguments.command == "compare":
        from ldsaug_ray.commands.compare import compare_command

        return compare_command(arguments.runs, as_csv=arguments.csv)
    if arguments.command == "measure":
        from ldsaug_ray.commands.measure import measure_command

        return measure_command(
            arguments.real,
            arguments.fake,
            arguments.overrides,
            train=arguments.train,
            extractor=arguments.extractor,
            json_file=arguments.json,
            html_file=arguments.html,
        )
    from ldsaug_ray.commands.run import run_command
    from ldsaug_ray.config import load_config

    how = {name: getattr(arguments, name) for name in ("dry_run", "overwrite", "verbose")}
    if arguments.command in ("experiment", "demo"):
        from ldsaug_ray.commands.experiment import experiment_command

        if arguments.command == "demo":
            return experiment_command(*_demo(arguments.overrides), **how)
        return experiment_command(arguments.config, arguments.overrides, **how)
    if arguments.command == "tune":
        from ldsaug_ray.commands.tune import tune_command

        return tune_command(arguments.config, arguments.overrides, resume=arguments.resume, **how)
    if arguments.command == "sample":
        from ldsaug_ray.commands.sample import sample_command

        given = [f"sample.n={arguments.n}"] if arguments.n is not None else []
        given += [f"sample.out={json.dumps(arguments.out)}"] if arguments.out is not None else []
        return sample_command(load_config(arguments.config, [*arguments.overrides, *given]), **how)
    config = load_config(arguments.config, arguments.overrides)
    if arguments.command == "frontier":
        from ldsaug_ray.commands.frontier import frontier_command

        return frontier_command(config, **how)
    if getattr(arguments, "images", None) is not None:
        from ldsaug_ray.commands.images import images_command

        return images_command(config, arguments.images, verbose=arguments.verbose)
    return run_command(config, arguments.command, **how)


def _settings(pattern: str, domain: str) -> int:
    from ldsaug_ray.config.load import settings_of

    found = [row for row in settings_of(domain) if pattern in row[0]]
    if not found:
        print(f"no setting's name contains {pattern!r}", file=sys.stderr)
        return 1
    width = max(len(name) for name, _, _ in found)
    for name, default, text in found:
        print(f"{name:<{width}}  {text} [{default}]")
    return 0


class _Terminated(SystemExit):
    """SIGTERM, as an exception, so that the manifest and the MLflow run end in an honest state.

    Of the kind that Ray lets through while it waits: it would lose any other.
    """

    received = False


def _terminate(signum: int, frame: Any) -> None:
    _Terminated.received = True
    raise _Terminated


def _message(error: Exception) -> str:
    if isinstance(error, LdsaugError):
        return f"error: {without_password(str(error))}"
    text = without_password(str(error)).strip().splitlines()
    return f"error: {type(error).__name__}: {text[-1] if text else ''} (unexpected; --verbose shows where)"
