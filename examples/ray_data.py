"""Images of one's own to new ones, by Ray Data: no run, no settings file.

    python examples/ray_data.py vae.safetensors photos 32 out

`vae.safetensors` is a VAE that `ldsaug train` left, `photos` a folder, 32 the side in px that the VAE was trained at.
PNG files go to `out`. On a cluster with GPUs, give both pools `num_gpus=1` and a larger size.
"""

import sys

import numpy as np
import ray.data

import ldsaug_ray as la

vae, photos, side, out = sys.argv[1:]
one = ray.data.ActorPoolStrategy(size=1)
images = ray.data.read_images(photos, size=(int(side), int(side)), mode="RGB", include_paths=True)
encoded = images.map_batches(la.Encode, fn_constructor_args=(vae,), batch_size=64, compute=one)
latents = encoded.rename_columns({"path": "key"}).select_columns(["key", "z"]).materialize()
z = np.stack([row["z"] for row in latents.iter_rows()])
for row in latents.map_batches(la.Score(z)).sort("log_lds").take(5):
    print(f"unlike the others: {row['key']}, log LDS {row['log_lds']:.2f}")
dense = la.augment(latents, n=9 * len(z), keep=0.2)  # lazy: scored, selected and decoded as the files are written
decoded = dense.map_batches(la.Decode, fn_constructor_args=(vae,), batch_size=64, compute=one, num_cpus=0.5)
decoded.write_images(out, "image", file_format="png")
