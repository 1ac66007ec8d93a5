"""Fragments of the report for rows of numbers: a line through a row, and A beside the training rows.

SVG by hand: a fragment must need nothing else, and there may be hundreds on a page.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]
MARGINALS, NEAREST, BINS = 24, 8, 24
_WIDTH, _HEIGHT = 220, 90


def line(row: Rows) -> str:
    """The values of a row from left to right, at most 128 of them, with the least and the most."""
    values = row[np.unique(np.linspace(0, len(row) - 1, min(len(row), 128)).round().astype(int))].astype(np.float64)
    low, high = float(values.min()), float(values.max())
    x = np.linspace(2, _WIDTH / 2 - 2, len(values))
    y = 38 - 36 * (values - low) / (high - low or 1.0)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    title = f"{len(row)} values from {low:.3g} to {high:.3g}"
    return (
        f'<svg viewBox="0 0 {_WIDTH // 2} 40" width="{_WIDTH // 2}" height="40" role="img" aria-label="{title}">'
        f'<title>{title}</title><polyline points="{points}" fill="none" stroke="currentColor"/></svg>'
    )


def beside(real: Rows, made: Rows, facts: Mapping[str, Any]) -> list[str]:
    """How the columns of A differ from the training rows': the marginals that differ most (by the largest distance
    between distribution functions, Kolmogorov and Smirnov's), correlations, and rows of A with the nearest real row."""
    from scipy.stats import ks_2samp

    names, spread = facts["columns"], np.asarray(facts["spread"])
    apart = np.array([ks_2samp(a, b).statistic for a, b in zip(real.T, made.T, strict=True)])
    most = np.argsort(-apart, kind="stable")[:MARGINALS]
    which = "The" if len(most) == len(names) else f"The {len(most)} of {len(names)} columns with the"
    ratio = made.std(0)[spread > 0] / real.std(0)[spread > 0]
    found = [
        f"<p>Of {len(made):,} rows of A and {len(real):,} training rows: a column’s spread in A is "
        f"{np.median(ratio):.2f} of that in the training rows, in the middle. "
        f"{_correlations(real, made, names, spread)}</p><h3>Marginals</h3><p>{which} largest distance D between the "
        "two distribution functions. Filled: training rows; line: A.</p>"
    ]
    charts = "".join(_marginal(str(names[k]), real[:, k], made[:, k], float(apart[k])) for k in most)
    found.append(f'<div class="figures panels">{charts}</div>')
    found.append(_nearest(real, made, names, spread))
    return found


def _correlations(real: Rows, made: Rows, names: list[str], spread: NDArray[np.float64]) -> str:
    varied = np.flatnonzero((spread > 0) & (real.std(0) > 0) & (made.std(0) > 0))[:512]
    if len(varied) < 2:
        return ""
    a, b = (np.asarray(np.corrcoef(x[:, varied].T.astype(np.float64))) for x in (real, made))
    gap = np.abs(a - b)
    i, j = np.unravel_index(int(gap.argmax()), gap.shape)
    off = gap[np.triu_indices(len(varied), 1)]
    pair = f"{escape(str(names[varied[i]]))} and {escape(str(names[varied[j]]))}"
    return (
        f"Pairwise correlations differ by {off.mean():.3f} on average, most that of {pair}: {a[i, j]:.2f} in the "
        f"training rows, {b[i, j]:.2f} in A."
    )


def _marginal(name: str, real: Rows, made: Rows, apart: float) -> str:
    both = np.concatenate([real, made]).astype(np.float64)
    edges = np.linspace(both.min(), both.max() if both.max() > both.min() else both.min() + 1, BINS + 1)
    shares = [np.histogram(x, edges)[0] / len(x) for x in (real, made)]
    top = max(float(s.max()) for s in shares)
    x = np.linspace(0, _WIDTH, BINS + 1)

    def path(share: NDArray[np.float64]) -> str:
        y = _HEIGHT - 2 - (_HEIGHT - 6) * share / top
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(np.repeat(x, 2)[1:-1], np.repeat(y, 2), strict=True))

    title = f"{escape(name)}: D = {apart:.2f}; from {edges[0]:.4g} to {edges[-1]:.4g}"
    base = _HEIGHT - 2
    return (
        f'<figure class="chart"><figcaption><strong>{escape(name)}</strong> D = {apart:.2f}</figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + 14}" width="100%" role="img" aria-label="{title}">'
        f'<polygon points="0,{base} {path(shares[0])} {_WIDTH},{base}" fill="var(--line)"/>'
        f'<polyline points="{path(shares[1])}" fill="none" stroke="var(--accent)" stroke-width="1.5"/>'
        f'<g font-size="10" fill="var(--soft)"><text x="0" y="{_HEIGHT + 11}">{edges[0]:.4g}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT + 11}" text-anchor="end">{edges[-1]:.4g}</text></g></svg></figure>'
    )


def _nearest(real: Rows, made: Rows, names: list[str], spread: NDArray[np.float64]) -> str:
    """Rows of A, evenly spread over them, and below each the nearest training row, columns by their spread."""
    unit = np.where(spread > 0, spread, 1.0)
    rows = np.unique(np.linspace(0, len(made) - 1, NEAREST).round().astype(int))
    body = []
    for row in rows:
        gap = np.sqrt((((real - made[row]) / unit) ** 2).sum(1))
        near = int(gap.argmin())
        for what, values in ((f"A, row {row}", made[row]), (f"training, {gap[near]:.3g} away", real[near])):
            cells = "".join(f'<td class="n">{v:.4g}</td>' for v in values[:12].tolist())
            body.append(f'<tr><th scope="row" class="one">{what}</th>{cells}</tr>')
    head = "".join(f'<th scope="col" class="n">{escape(str(n))}</th>' for n in names[:12])
    return (
        "<h3>Rows of A and the nearest training row</h3><p>Distances are in standard deviations of the columns"
        f"{', of which 12 are shown' if len(names) > 12 else ''}.</p>"
        '<div class="scroll" role="region" aria-label="Nearest rows" tabindex="0"><table>'
        f"<thead><tr><th></th>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )
