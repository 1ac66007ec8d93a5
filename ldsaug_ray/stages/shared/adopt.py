"""Taking over what another run directory has already: images, model, latents, scores, A. By hard link where it can."""

from __future__ import annotations

from collections.abc import Sequence

from ldsaug_ray.run.directory import RunDir
from ldsaug_ray.stages.shared.job import Job
from ldsaug_ray.stages.shared.runner import plan_steps

_KEPT_BESIDE = {  # what follows from a stage, and is kept in folders of its own
    "prepare": (("features/train", "features"), ("features/test", "features")),
    "decode": (("features/augmented", "features"),),
    "evaluate": (("drawn/finetune", "sample"),),
}


def adopt(job: Job, names: Sequence[str], donors: Sequence[RunDir]) -> list[str]:
    """Take over every stage, in order, that a donor has with the same settings and input; gives their names."""
    adopted = []
    for name in names:
        (step,) = plan_steps(job.config, job.run, [name])
        if step.state == "complete":
            continue
        wanted = [known for known in (step.fingerprint, step.before) if known and step.state == "run"]
        donor = next((d for d in donors if any(d.is_complete(name, known) for known in wanted)), None)
        if donor is None:
            break
        job.run.adopt(name, donor)
        adopted.append(name)
        for place, kind in _KEPT_BESIDE.get(name, ()):
            theirs = RunDir(donor.folder(place))
            if theirs.entry(kind) is not None:
                ours = RunDir(job.run.folder(place))
                ours.create()
                ours.adopt(kind, theirs)
    return adopted
