"""Stage `train` where there is nothing to train: the user's autoencoder into the run directory, as it is."""

from __future__ import annotations

from ldsaug_ray.run.directory import Counts
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
    from ldsaug_ray.models import open_pretrained, pretrained_stamp, save_vae, weights_digest

    config, folder = job.config, job.run.folder("train")
    rows = sum(rows for _, rows in image_parts(job, "train"))
    model = open_pretrained(config.vae, config.data.resolution)
    save_vae(folder / "vae.safetensors", model, {"step": 0})
    (folder / "curve.json").write_json([])
    shape = " x ".join(map(str, model.latent_shape))
    job.console.print(f"train     nothing to train: {config.vae.kind} autoencoder, latents {shape}", highlight=False)
    facts = {
        "latent_dim": model.latent_dim,
        "latent_shape": list(model.latent_shape),
        "steps": 0,
        "images_seen": 0,
        "stamp": pretrained_stamp(config.vae),
    }
    return Outcome(Counts(rows, rows), weights_digest(model), facts, 0)
