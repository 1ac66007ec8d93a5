"""Standard output and error that make no failure of what was done: whatever the terminal, and if it goes away."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

_PLAIN = str.maketrans(
    {
        "≥": ">=", "≤": "<=", "≈": "~", "→": "->", "×": "x", "·": "-", "…": "...", "—": "-", "–": "-", "−": "-",
        "’": "'", "‘": "'", "“": '"', "”": '"', "α": "alpha", "β": "beta", "μ": "mu", "σ": "sigma", "τ": "tau",
        "²": "^2", "√": "sqrt", "✓": "yes",
    }
)  # fmt: skip


class Forgiving:
    """A stream in place of another: it writes what its encoding has no sign for in other words, and drops what nobody
    takes any more. `lost` says whether something was dropped."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self.lost = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """As of any text stream."""
        try:
            self._stream.write(text)
        except UnicodeEncodeError:  # before anything of the text was written
            encoding = self._stream.encoding
            self.write("".join(_shown(sign, encoding) for sign in text))
        except (OSError, ValueError) as e:  # ValueError: it is closed
            self._lose(e)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """As of any text stream."""
        self.write("".join(lines))

    def flush(self) -> None:
        """As of any text stream."""
        try:
            self._stream.flush()
        except (OSError, ValueError) as e:
            self._lose(e)

    def _lose(self, error: Exception) -> None:
        first, self.lost = not self.lost, True
        with suppress(OSError, ValueError, AttributeError):  # what is left in buffers, and all that comes, goes nowhere
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        if first and sys.stderr is not self and not (isinstance(error, OSError) and error.errno == errno.EPIPE):
            reason = error.strerror if isinstance(error, OSError) else error
            print(f"standard output cannot be written ({reason}): the rest of it is left out", file=sys.stderr)


@contextmanager
def forgiving_output() -> Iterator[Forgiving]:
    """Standard output and error as `Forgiving` streams while the block runs; gives the first."""
    before = sys.stdout, sys.stderr
    # None where the descriptor was closed before Python began
    out, err = (Forgiving(stream or open(os.devnull, "w")) for stream in before)  # noqa: SIM115
    sys.stdout, sys.stderr = out, err
    try:
        yield out
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = before


def _shown(sign: str, encoding: str) -> str:
    try:
        sign.encode(encoding)
    except UnicodeEncodeError:
        plain = sign.translate(_PLAIN)
        return plain if plain.isascii() else plain.encode("ascii", "backslashreplace").decode()
    return sign
