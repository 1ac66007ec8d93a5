"""What the numbers of an experiment say, in sentences that claim no more than the seeds allow."""

from __future__ import annotations

from ldsaug_ray.experiment.plan import BASELINE
from ldsaug_ray.experiment.results import REAL
from ldsaug_ray.experiment.summary import Comparison, Group
from ldsaug_ray.experiment.tables import signed, student_text
from ldsaug_ray.report.numbers import value

_VERDICTS = {
    -1: "Fréchet distance below the control’s, Student’s interval without zero",
    1: "Fréchet distance above the control’s, Student’s interval without zero",
    0: "Not told apart from the control by Fréchet distance",
}


def findings(group: Group) -> list[str]:
    """One sentence on the lowest Fréchet distance, and on which arms differ from their control."""
    sentences = []
    # an arm that lacks a seed is not set beside those that have it
    whole = [row for row in group.rows if row.arm not in (BASELINE, REAL) and row.seeds == len(group.seeds)]
    measured = {row.arm: m for row in whole if (m := row.means.get("frechet")) is not None}
    if measured:
        best = min(measured, key=lambda arm: measured[arm].mean)
        mean = measured[best]
        text = f"Lowest Fréchet distance of {len(measured)} arms: {best}, {value(mean.mean, mean.standard_error)}."
        # of another number of images it is another distance
        alike = (row.means.get("frechet") for row in group.rows if row.arm == REAL and row.n == whole[0].n)
        if (real := next(alike, None)) is not None:
            text += f" As many real training images have {value(real.mean, real.standard_error)}."
        sentences.append(text)
    if group.comparisons and len(group.seeds) == 1:
        apart = [(c, d.mean) for c in group.comparisons if (d := c.differences.get("frechet")) is not None]
        gaps = "; ".join(
            f"{c.arm} is {abs(x):.3g} {'below' if x < 0 else 'above'} its control {c.control}" for c, x in apart
        )
        sentences.append(
            f"One seed: no difference can be told from chance{f'. In Fréchet distance {gaps}' if gaps else ''}."
        )
        return sentences
    for sign, words in _VERDICTS.items():
        arms = [c for c in group.comparisons if _verdict(c) == sign]
        if arms:
            named = ", ".join(f"{c.arm} ({_mean_and_student(c)})" for c in arms)
            sentences.append(f"{words}: {named}.")
    if len(group.comparisons) > 1:
        sentences.append(
            f"{len(group.comparisons)} comparisons at 95 % each, not corrected for their number: about one in twenty "
            "would be told apart by chance alone."
        )
    return sentences


def _mean_and_student(found: Comparison) -> str:
    """−1.2 [−2.0, −0.4]: the interval that the verdict goes by."""
    difference = found.differences["frechet"]
    return "" if difference is None else f"{signed(difference.mean)} {student_text(difference)}"


def _verdict(found: Comparison) -> int | None:
    """-1 or 1 where Student's interval of the Fréchet distance leaves out zero, 0 where it does not."""
    difference = found.differences["frechet"]
    if difference is None:
        return None
    if difference.t_low is None or difference.t_high is None:
        return 0
    return -1 if difference.t_high < 0 else 1 if difference.t_low > 0 else 0
