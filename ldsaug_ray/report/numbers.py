"""Numbers as people read them. LDS comes as its logarithm, since it can be far below the smallest float."""

from __future__ import annotations

import math

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
MINUS = "−"


def count(n: int | None) -> str:
    """1234567 -> 1,234,567; None -> a dash."""
    return "–" if n is None else f"{n:,}"


def percent(x: float | None) -> str:
    """0.1234 -> 12.3%; small shares are never rounded to nothing, nor large ones to all."""
    if x is None:
        return "–"
    if 0 < x < 0.001:
        return "<0.1%"
    if 0.999 < x < 1:
        return ">99.9%"
    text = f"{100 * x:.1f}"
    return f"{text.removesuffix('.0')}%"


def share(x: float) -> str:
    """0.38 -> 38.0%, for columns of a table."""
    return f"{100 * x:.1f}%"


def points(x: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return signed(100 * x, 1)


def signed(x: float, digits: int = 2) -> str:
    """With + or a proper minus."""
    return f"{x:+.{digits}f}".replace("-", MINUS)


def log_text(x: float, digits: int = 2) -> str:
    """A logarithm: fixed digits, proper minus."""
    return f"{x:.{digits}f}".replace("-", MINUS)


def power(log_value: float, digits: int = 3) -> str:
    """exp(log_value) in words of the page: 0.0123, or 3.2 × 10⁻⁵ where it is small or large; never 0 by underflow."""
    if math.isinf(log_value):
        return "0" if log_value < 0 else "∞"
    exponent = math.floor(log_value / math.log(10))
    mantissa = math.exp(log_value - exponent * math.log(10))
    if float(f"{mantissa:.{digits - 1}f}") >= 10:
        mantissa, exponent = mantissa / 10, exponent + 1
    if -3 <= exponent < 4:
        return f"{math.exp(log_value):,.{max(0, digits - 1 - exponent)}f}"
    return f"{mantissa:.{digits - 1}f} × 10{str(exponent).translate(_SUPERSCRIPT)}"


def value(x: float | None, error: float | None = None) -> str:
    """A measure to three digits, with its standard error to as many places, of which it gets one digit at least."""
    if x is None:
        return "–"
    size = max(abs(x), error or 0.0)
    places = 0 if size >= 100 else max(0, 2 - math.floor(math.log10(size))) if size else 0
    if error and size / error < 1e6:
        places = max(places, -math.floor(math.log10(error)))
    text = f"{x:,.{places}f}"
    text = text.removeprefix("-") if float(text.replace(",", "")) == 0 else text
    return (text if error is None else f"{text} ± {error:.{places}f}").replace("-", MINUS)


def duration(seconds: float | None) -> str:
    """12.3 s, 4 min 05 s, 2 h 03 min."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def rate(per_second: float | None, unit: str) -> str:
    """1,234 images/s."""
    if per_second is None:
        return "–"
    return f"{per_second:,.0f} {unit}/s" if per_second >= 10 else f"{per_second:.2g} {unit}/s"
