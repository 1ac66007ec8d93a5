"""Stage `report`: a finished run to `report/index.html`, one self-contained page, and `report/figures/`. No Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ldsaug_ray.run.directory import Counts, UnitResult
from ldsaug_ray.run.pipeline import Stage, declare
from ldsaug_ray.run.progress import bar
from ldsaug_ray.stages.frontier import frontier_of
from ldsaug_ray.stages.shared.job import Job
from ldsaug_ray.stages.shared.outcome import Outcome

STAGE = declare(
    Stage(
        name="report",
        does="the page that shows what was selected",
        unit="pages",
        needs=("prepare", "train", "encode", "score", "select", "decode"),
        uses=("finetune", "evaluate"),
        writes=("report",),
        sections=("report",),
        on_driver=lambda config: True,
    )
)


def run(job: Job, done: Mapping[int, UnitResult]) -> Outcome:
    """Gather, draw, write; the page comes last, so it is there only when all of its files are.

    Raises:
        InputError: a stage that the page is about is not complete.
    """
    from ldsaug_ray.report import findings, gather, page_digest, pictures_of, report_page

    with bar(job.console, "report", 1, "pages") as shown:
        data = replace(gather(job.run, job.config), frontier=frontier_of(job.run))
        pictures = pictures_of(data)
        folder = job.run.folder("report")
        for name, content in pictures.items():
            (folder / f"figures/{name}").write_bytes(content)
        page = report_page(data, pictures).encode()
        (folder / "index.html").write_bytes(page)
        shown.advance(1)
    facts = {"bytes": len(page), "figures": len(pictures), "findings": findings(data)}
    return Outcome(Counts(1, 1), page_digest(data, pictures), facts)
