"""Stage `train` where there is nothing to train: the user's autoencoder into the run directory, as it is."""

from __future__ import annotations

from ldsaug_ray.run.directory import Counts, facts_of
from ldsaug_ray.stages.encode import image_parts
from ldsaug_ray.stages.shared.job import Job
from ldsaug_ray.stages.shared.outcome import Outcome


def take_pretrained(job: Job) -> Outcome:
    """Open what `vae` names, try it, and leave `train/vae.safetensors`, which needs the files no more, and an empty
    `train/curve.json`. The driver alone does it: other nodes need not see the user's files.

    Raises:
        InputError: the files do not make an autoencoder of this resolution.
        StorageError: they cannot be read, or the run directory not written.
        ResourceError: they need a package that is not installed.
    """
    from ldsaug_ray.models import CODECS, save_vae, weights_digest

    config, folder = job.config, job.run.folder("train")
    rows = sum(rows for _, rows in image_parts(job, "train"))
    kind = CODECS.get(config.vae.kind)
    model = kind.take(config.vae, kind.given(config.data, facts_of(job.run.root)))
    save_vae(folder / "vae.safetensors", model, {"step": 0})
    (folder / "curve.json").write_json([])
    latent_shape = list(getattr(model, "latent_shape", [model.latent_dim]))
    shape = " x ".join(map(str, latent_shape))
    job.console.print(f"train     nothing to train: {config.vae.kind} autoencoder, latents {shape}", highlight=False)
    facts = {
        "latent_dim": model.latent_dim,
        "latent_shape": latent_shape,
        "steps": 0,
        "images_seen": 0,
        "stamp": kind.stamp(config.vae),
    }
    return Outcome(Counts(rows, rows), weights_digest(model), facts, 0)
