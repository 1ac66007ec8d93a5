"""The figures, as SVG that follows the reader's light or dark theme. Object-oriented matplotlib: no pyplot, no GUI.

One drawing function a figure; each takes a few arrays or `ReportData` values and returns the SVG file's bytes. The same
input gives the same bytes. Long, since each figure is drawn by a function of its own.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, Concatenate, Literal, ParamSpec

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from ldsaug_ray.lds import HeldOut
from ldsaug_ray.report.data import AttributeShare, Curve, Floats
from ldsaug_ray.selection import PAPER_TAU

P = ParamSpec("P")

INK, MUTED, GRID, ALL, KEPT, MARK = "#26303b", "#68727e", "#e4e7eb", "#bcc4ce", "#2f6db5", "#b4501c"
_DARK = {INK: "#dfe4ea", MUTED: "#9aa5b1", GRID: "#343b44", ALL: "#5d6874", KEPT: "#7db3f0", MARK: "#f09a63"}
_STYLE: Any = {  # matplotlib types the keys one by one
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.labelsize": 9.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.fonttype": "path",  # looks the same everywhere; the alt text carries the words
    "svg.hashsalt": "ldsaug",  # the same ids every time
    "axes.unicode_minus": True,
}
LN10 = math.log(10)
_SIZE = (4.5, 3.05)  # inches: small, so that the text stays legible on a phone
_PANEL = (3.2, 2.1)  # of small multiples


def _figure(
    *, grid: Literal["both", "x", "y"] | None, size: tuple[float, float] = _SIZE
) -> Callable[[Callable[Concatenate[Axes, P], None]], Callable[P, bytes]]:
    """What a function draws on the axes it gets, as the SVG file's bytes."""

    def as_svg(plot: Callable[Concatenate[Axes, P], None]) -> Callable[P, bytes]:
        @wraps(plot)
        def drawn(*args: P.args, **kwargs: P.kwargs) -> bytes:
            with mpl.rc_context(_STYLE):
                figure = Figure(figsize=size, layout="constrained")
                axes = figure.add_subplot()
                if grid is not None:
                    axes.grid(axis=grid)
                plot(axes, *args, **kwargs)
                out = io.StringIO()
                FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None, "Creator": None})
            return _themed(out.getvalue()).encode()

        return drawn

    return as_svg


@dataclass(frozen=True, eq=False)
class Histogram:
    """Counts of all candidates and of the selected in the same bins."""

    edges: Floats  # [B + 1]
    all: NDArray[np.int64]  # [B]
    kept: NDArray[np.int64]


def histogram(values: Floats, selected: NDArray[np.bool_], bins: int = 60, *, log: bool = False) -> Histogram:
    """Equal bins over the range of `values` [M] (of their logarithm with `log`); every value is in one of them."""
    shown = np.log10(values) if log else values
    low, high = float(shown.min()), float(shown.max())
    if high - low < 1e-9 * max(1.0, abs(low)):
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, bins + 1)
    everyone, kept = (np.histogram(part, edges)[0] for part in (shown, shown[selected]))
    return Histogram(np.power(10.0, edges) if log else edges, everyone, kept)


@_figure(grid="y")
def density(
    axes: Axes, counts: Histogram, threshold: float | None, score_name: str, held_out: HeldOut | None = None
) -> None:
    """Log LDS of all candidates, the selected on top, any threshold, the paper's τ, and where real latents lie."""
    _bars(axes, counts)
    low, high = counts.edges[0], counts.edges[-1]
    top = axes.get_ylim()[1] * 1.16
    axes.set_ylim(0, top)
    right = threshold is not None and threshold > (low + high) / 2
    if threshold is not None:
        axes.axvline(threshold, color=MARK, lw=1.5)
        axes.annotate(
            f"threshold {threshold:.2f}".replace("-", "−"),
            (threshold, top),
            xytext=(-5 if right else 5, -3),
            textcoords="offset points",
            ha="right" if right else "left",
            va="top",
            color=MARK,
            fontsize=8.5,
        )
    paper = math.log(PAPER_TAU)
    if low <= paper <= high + 0.25 * (high - low):
        axes.axvline(paper, color=INK, lw=1.2, ls=(0, (4, 3)), label=f"paper: τ = {PAPER_TAU}")
    if held_out is not None:
        # a strip below the bars' feet; one that lies far off would squash the candidates, and is left to the text
        left, far_right = (max(low - (high - low), held_out.low), min(high + (high - low), held_out.high))
        if left < far_right:
            axes.hlines(-0.03 * top, left, far_right, color=INK, lw=4, label="held-out real, 95%")
            axes.set_ylim(-0.06 * top, top)
    axes.set_xlabel(f"{score_name} (natural logarithm)")
    axes.set_ylabel("candidates")
    above = axes.secondary_xaxis("top", functions=(lambda x: np.asarray(x) / LN10, lambda x: np.asarray(x) * LN10))
    above.xaxis.set_major_locator(MaxNLocator(6, integer=high - low > 5))
    above.xaxis.set_major_formatter(
        FuncFormatter(lambda x, _: f"$10^{{{x:.0f}}}$" if abs(x - round(x)) < 1e-6 else f"{10**x:.2g}")
    )
    above.tick_params(length=0)
    above.spines["top"].set_visible(False)
    above.set_xlabel("LDS", labelpad=3)
    axes.legend(loc="upper left" if right else "upper right", bbox_to_anchor=(0, 0.9, 1, 0), ncols=1)


@_figure(grid="y")
def by_alpha(axes: Axes, alphas: Floats, scores: Floats, threshold: float | None, score_name: str) -> None:
    """Median, quartiles and the 5 to 95 % range of the score at each α, both [M]; any threshold across."""
    values = np.unique(alphas)
    levels = np.array([np.quantile(scores[alphas == a], [0.05, 0.25, 0.5, 0.75, 0.95]) for a in values])
    width = 0.6 * (float(np.diff(values).min()) if len(values) > 1 else 0.1)
    axes.vlines(values, levels[:, 0], levels[:, 4], color=ALL, lw=1.6, label="5 to 95%")
    axes.bar(values, levels[:, 3] - levels[:, 1], width, levels[:, 1], color=KEPT, label="25 to 75%")
    axes.hlines(levels[:, 2], values - width / 2, values + width / 2, color=INK, lw=1.8, label="median")
    if threshold is not None:
        axes.axhline(threshold, color=MARK, lw=1.5, label="threshold")
    axes.set_xlabel("α (0: parent i, 1: parent j)")
    axes.set_ylabel(score_name)
    _ticks(axes, values)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.24 * (high - low))  # room for the legend
    axes.legend(loc="upper center", ncols=4, columnspacing=0.8, handlelength=1.1, handletextpad=0.4)


@_figure(grid="y")
def alpha_share(axes: Axes, alphas: Sequence[float], everyone: Sequence[float], kept: Sequence[float] | None) -> None:
    """Share of each α among all candidates and among the selected."""
    values = np.asarray(alphas)
    width = 0.38 * (float(np.diff(values).min()) if len(values) > 1 else 0.1)
    axes.bar(values - width / 2, 100 * np.asarray(everyone), width, color=ALL, label="all candidates")
    if kept is not None:
        axes.bar(values + width / 2, 100 * np.asarray(kept), width, color=KEPT, label="selected")
    axes.set_xlabel("α (0: parent i, 1: parent j)")
    axes.set_ylabel("share of candidates, %")
    _ticks(axes, values)
    _legend_above(axes)


@_figure(grid="y")
def shares(axes: Axes, counts: Histogram, label: str, *, log: bool = False) -> None:
    """Distribution of a diagnostic: share of all candidates, and of the selected, in each bin (so both can be seen)."""
    everyone, kept = (100 * n / max(1, n.sum()) for n in (counts.all, counts.kept))
    axes.stairs(everyone, counts.edges, fill=True, color=ALL, label="all candidates")
    if counts.kept.any():
        axes.stairs(kept, counts.edges, color=KEPT, lw=1.7, label="selected")
    axes.set_xlabel(label)
    axes.set_ylabel("share of candidates, %")
    if log and counts.edges[-1] / counts.edges[0] > 3:
        axes.set_xscale("log")
        wide = counts.edges[-1] / counts.edges[0] > 100
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}" if x >= 1 else f"{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    _legend_above(axes)


@_figure(grid="both", size=_PANEL)
def curve(axes: Axes, curves: Sequence[Curve], term: str) -> None:
    """One term over the steps of training, then of fine-tuning, which goes on where training ended: a small panel.

    All panels of a run have the same steps across, so that they can be read one under the other.
    """
    drawn: Mapping[str, tuple[str, str]] = {"train": (INK, "training"), "finetune": (KEPT, "fine-tuning")}
    lengths = [max(p["step"] for p in c.points) if c.points else 0 for c in curves]
    offset, every = 0.0, []
    for c, length in zip(curves, lengths, strict=True):
        points = [(p["step"], p[term]) for p in c.points if term in p]
        if points:
            x, y = np.array(points, float).T
            color, name = drawn[c.stage]
            axes.plot(x + offset, y, color=color, lw=1.3, label=name, marker="." if len(x) < 3 else None)
            every.append(y)
        offset += float(length)
    axes.set_xlim(0, 1.02 * offset)
    values = np.concatenate(every)
    if values.min() > 0 and values.max() > 5 * values.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=6))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
    axes.set_xlabel("optimiser step")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)


@_figure(grid="x")
def attributes(axes: Axes, found: Sequence[AttributeShare]) -> None:
    """Share of each attribute among training images and among the parents of A, as a line from one to the other."""
    names = [a.name if len(a.name) <= 22 else f"{a.name[:21]}…" for a in found]
    rows = np.arange(len(found))
    before, after = 100 * np.array([a.train for a in found]), 100 * np.array([a.parents for a in found])
    axes.hlines(rows, before, after, color=ALL, lw=2.5)
    axes.plot(before, rows, "o", color=MUTED, ms=6, label="train")
    axes.plot(after, rows, "o", color=KEPT, ms=6, label="parents of A")
    axes.set_yticks(rows, names)
    for text in axes.get_yticklabels():
        text.set_parse_math(False)  # names are the user's: a $ is a $
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("share with the attribute, %")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    _resize(axes, _SIZE[0], 1.1 + 0.27 * max(3, len(rows)))


@dataclass(frozen=True)
class Interval:
    """A difference with its name: mean, and limits where there are any."""

    name: str
    mean: float
    low: float | None
    high: float | None


@_figure(grid="x")
def differences(axes: Axes, found: Sequence[Interval], label: str) -> None:
    """Each difference as a point with its interval, zero marked."""
    rows = np.arange(len(found))
    axes.axvline(0, color=MARK, lw=1.2)
    for row, x in zip(rows, found, strict=True):
        if x.low is not None and x.high is not None:
            axes.hlines(row, x.low, x.high, color=ALL, lw=2.5)
    axes.plot([x.mean for x in found], rows, "o", color=KEPT, ms=6)
    axes.set_yticks(rows, [x.name if len(x.name) <= 28 else f"{x.name[:27]}…" for x in found])
    for text in axes.get_yticklabels():
        text.set_parse_math(False)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(label)
    _resize(axes, _SIZE[0], 0.8 + 0.27 * max(3, len(rows)))


@_figure(grid=None)
def heat_map(
    axes: Axes,
    values: Floats,
    columns: Sequence[str],
    rows: Sequence[str],
    column_label: str,
    row_label: str,
    label: str,
    empty: Mapping[tuple[int, int], str] | None = None,
) -> None:
    """values float64[rows, columns], each written into its cell; NaN: an empty cell, with what `empty` has for its row
    and column. Dark is low."""
    shown = np.ma.masked_invalid(values)
    low, high = (float(shown.min()), float(shown.max())) if shown.count() else (0.0, 1.0)
    scale = mpl.colormaps["Blues_r"]
    axes.pcolormesh(shown, cmap=scale, vmin=low, vmax=high + 0.25 * (high - low or 1.0), edgecolors="none")
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            red, green, blue, _ = scale((value - low) / (1.25 * (high - low or 1.0)))
            ink = "#101418" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.55 else "#fdfdfd"
            short = f"{value / 1000:.3g}k" if abs(value) >= 1000 else f"{value:.3g}"
            axes.text(column + 0.5, row + 0.5, short, ha="center", va="center", color=ink, fontsize=8)
        elif empty and (row, column) in empty:
            axes.text(column + 0.5, row + 0.5, empty[row, column], ha="center", va="center", color=INK, fontsize=8)
    axes.set_xticks(np.arange(len(columns)) + 0.5, list(columns))
    axes.set_yticks(np.arange(len(rows)) + 0.5, list(rows))
    for text in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        text.set_parse_math(False)
    axes.tick_params(length=0)
    axes.set_xlabel(column_label)
    axes.set_ylabel(row_label)
    axes.set_title(label)
    _resize(axes, max(_SIZE[0], 1.2 + 0.55 * len(columns)), max(1.9, 1.1 + 0.32 * len(rows)))


@dataclass(frozen=True)
class Point:
    """A mark with its text; `best`: drawn to stand out, and joined to the others that are."""

    x: float
    y: float
    name: str
    best: bool = False


@_figure(grid="both")
def points(axes: Axes, found: Sequence[Point], x_label: str, y_label: str, *, joined: bool = False) -> None:
    """Points in a plane; the best with their names."""
    for best, colour, size in ((False, ALL, 5), (True, KEPT, 7)):
        these = [p for p in found if p.best == best]
        axes.plot([p.x for p in these], [p.y for p in these], "o", color=colour, ms=size)
    best_ones = sorted((p for p in found if p.best), key=lambda p: p.x)
    if joined:
        axes.step([p.x for p in best_ones], [p.y for p in best_ones], where="post", color=KEPT, lw=1.3)
    for p in best_ones:
        axes.annotate(p.name, (p.x, p.y), xytext=(5, 4), textcoords="offset points", fontsize=8.5)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5))
    axes.margins(0.08, 0.12)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)


@_figure(grid="both")
def frontier(axes: Axes, found: Mapping[str, Any]) -> None:
    """Fréchet distance over authenticity, of what `ldsaug frontier` told: the reference curve, rules and samplers, each
    with its number in the table; named below."""
    by, rows = found["authenticity_by"], list(enumerate(found["points"], start=1))
    curve = sorted((row[by], row["frechet"]) for _, row in rows if row["kind"] == "curve")
    axes.plot(*zip(*curve, strict=True), "o-", color=ALL, ms=4, lw=1.3, label="noise about latents")
    for kind, mark, colour in (("rule", "o", KEPT), ("sampler", "D", MARK)):
        these = [(row[by], row["frechet"]) for _, row in rows if row["kind"] == kind]
        axes.plot(*zip(*these, strict=True), mark, color=colour, ms=5, label=f"{kind}s")
    for number, row in rows:
        if row["kind"] != "curve":
            axes.annotate(f"{number}", (row[by], row["frechet"]), (4, 3), textcoords="offset points", fontsize=8)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.margins(0.06, 0.08)
    axes.set_xlabel(f"AuthPct, against {by}")
    axes.set_ylabel("Fréchet distance")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.05, 1), ncols=3, columnspacing=1)
    named = [f"{number}  {row['name']}" for number, row in rows if row["kind"] != "curve"]
    half = (len(named) + 1) // 2
    for column, text in enumerate((named[:half], named[half:])):
        axes.annotate(
            "\n".join(text), (column / 2, 0), (0, -38), "axes fraction", "offset points", va="top", fontsize=8
        )
    _resize(axes, _SIZE[0], _SIZE[1] + 0.16 * half)


def _resize(axes: Axes, width: float, height: float) -> None:
    """In inches, by what is drawn."""
    if figure := axes.get_figure(root=True):
        figure.set_size_inches(width, height)


def _bars(axes: Axes, counts: Histogram) -> None:
    axes.stairs(counts.all, counts.edges, fill=True, color=ALL, label="all candidates")
    if counts.kept.any():
        axes.stairs(counts.kept, counts.edges, fill=True, color=KEPT, label="selected")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))


def _legend_above(axes: Axes) -> None:
    """Room for the legend over bars in percent, without ticks beyond 100."""
    axes.set_ylim(0, 1.22 * axes.get_ylim()[1])
    axes.set_yticks([y for y in axes.get_yticks() if 0 <= y <= min(100, axes.get_ylim()[1])])
    axes.legend(loc="upper center", ncols=2)


def _ticks(axes: Axes, values: Floats) -> None:
    shown = values if len(values) <= 11 else values[np.linspace(0, len(values) - 1, 9).astype(int)]
    axes.set_xticks(shown, [f"{v:g}" for v in shown])


def _themed(svg: str) -> str:
    """Transparent, with the dark palette for readers who prefer it, and without what nobody sees: half as long."""
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    short = partial(re.sub, r"(\.\d\d)\d+|(?<=[A-Z]) | (?=[A-Z])", r"\1")  # hundredths do
    svg = re.sub(r' (?:[dxy]="[^"]*"|transform="translate\([^)]*)', lambda of: short(of[0]), " ".join(svg.split()))
    rules = "".join(
        f'[style*="fill: {light}"]{{fill:{dark}!important}}[style*="stroke: {light}"]{{stroke:{dark}!important}}'
        for light, dark in _DARK.items()
    )
    head, tag, rest = svg.partition("<defs>")
    return f"{head}<style>@media (prefers-color-scheme: dark){{{rules}}}</style>{tag}{rest}"
