"""`ldsaug init`: a configuration file in which every setting stands, commented out, with its default and meaning."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ldsaug_ray.config.load import settings_of
from ldsaug_ray.errors import InputError

_GIVEN = {"run_dir": "runs/mine", "data.source": "images"}  # the two that have no default
_OPENING = """\
# Settings of `ldsaug run`. A line that is commented out shows the default; to change it, take the `# ` away, there and
# from the names of the sections above it. The documentation of each is behind its value.
"""


def commented_config() -> str:
    """YAML that loads as it is, and as well with any `# ` before a setting, and before its sections, taken away."""
    return _OPENING + "".join(f"{line}\n" for line in _lines())


def _lines() -> Iterator[str]:
    sections_given = {name.rpartition(".")[0] for name in _GIVEN}
    written: set[str] = set()
    for name, default, text in settings_of("images"):
        parts = name.split(".")
        for depth in range(1, len(parts)):
            section = ".".join(parts[:depth])
            if section not in written:
                written.add(section)
                comment = "" if section in sections_given else "# "
                yield f"{comment}{'  ' * (depth - 1)}{parts[depth - 1]}:"
        comment = "" if name in _GIVEN else "# "
        yield f"{comment}{'  ' * (len(parts) - 1)}{parts[-1]}: {_GIVEN.get(name, default)}  # {text}"


def init_command(file: str) -> int:
    """Write the file; says what comes next.

    Raises:
        InputError: it is there already, or cannot be written.
    """
    try:
        with Path(file).open("x", encoding="utf-8") as out:
            out.write(commented_config())
    except FileExistsError:
        raise InputError(f"{file}: is there already; name another file, or remove it") from None
    except OSError as e:
        raise InputError(f"{file}: cannot be written ({e.strerror})") from None
    print(f"{file} is written: set data.source in it to your images, then: ldsaug run {file} --dry-run")
    return 0
