"""Features of A's images, for a search by measures that look at them: of as many members as `frontier.n` says.

They are kept by candidate id below `search/features/`, so that trials of all σ, thresholds and rules share them, and so
do workers and later attempts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ldsaug_ray.common.columns import matrix, vectors
from ldsaug_ray.common.digest import fingerprint
from ldsaug_ray.common.storage import Location
from ldsaug_ray.config import Config, counted
from ldsaug_ray.domains import domain_of
from ldsaug_ray.metrics import Members, Sample
from ldsaug_ray.run.latents import read_latents
from ldsaug_ray.stages.evaluate import real_images
from ldsaug_ray.stages.frontier import checked, reconstructed
from ldsaug_ray.stages.shared.features import features_of, opened
from ldsaug_ray.stages.shared.job import Job

if TYPE_CHECKING:
    from ldsaug_ray.metrics import Extractor
    from ldsaug_ray.models import Codec


@dataclass(frozen=True, eq=False)
class Judge:
    """What A's images are measured with.

    test, reconstructions: float32[N, C], of test images, and of training images encoded and decoded; weights: the
    baseline's; kept: folder of features; of: identity of weights and extractor.
    """

    config: Config
    test: np.ndarray
    reconstructions: np.ndarray
    weights: Location
    kept: Location
    of: str

    @classmethod
    def open(cls, job: Job) -> Judge:
        """Features of the real images, made where they are not there yet.

        Raises:
            InputError: the extractor's weights are missing or damaged, or it cannot take these images.
            ImpossibleError: too few test images.
        """
        config, extractor = job.config, opened(job.config)
        sets = [checked(real_images(job, "test"), config), reconstructed(job, read_latents(job.run, "train"))]
        found = features_of(job, sets, extractor.fingerprint)
        test, blurred = (found[images.name].usable(job.domain) for images in sets)
        of = fingerprint([extractor.fingerprint, job.run.require("encode", "digest"), config.seed])
        weights = job.run.folder("train/vae.safetensors")
        return cls(config, test, blurred, weights, job.run.folder("search/features"), of)

    def sample(self, config: Config, a: Members) -> Sample:
        """The first members of A of a trial, which must have ids, as images to be measured: those that can be."""
        assert a.id is not None
        wanted = a.id[: config.frontier.n]
        score = {name: value for name, value in counted(config.score).items() if name != "sigma"}
        folder = self.kept / fingerprint([self.of, score])[:12]  # what a candidate is does not depend on σ
        order = np.argsort(wanted)
        features, left = np.empty((len(order), self.test.shape[1]), np.float32), np.ones(len(order), bool)
        for file in folder.files(".parquet"):
            table = file.read_table()
            ids = table["candidate"].to_numpy()
            rows = np.flatnonzero(np.isin(ids, wanted))
            mine = order[np.searchsorted(wanted, ids[rows], sorter=order)]
            features[mine], left[mine] = matrix(table["features"].take(pa.array(rows))), False
        new = np.flatnonzero(left)
        if len(new):
            features[new] = self._features(a.some(new).z)
            table = pa.table({"candidate": wanted[new], "features": vectors(features[new])})
            (folder / f"{fingerprint(wanted[new].tolist())[:12]}.parquet").write_table(table)
        return Sample(
            features[~np.isnan(features[:, 0])],
            self.test,
            self.reconstructions,
            k=self.config.evaluate.k,
            seed=self.config.seed,
        )

    def _features(self, z: np.ndarray) -> np.ndarray:
        """NaN of what cannot be measured."""
        from ldsaug_ray.models import decode_batch

        size, domain = self.config.decode.batch_size, domain_of(self.config)
        parts = []
        for start in range(0, len(z), size):
            batch = decode_batch(self._vae, z[start : start + size], size)
            parts.append(np.full_like(found := self._extractor(batch), np.nan))
            usable = domain.usable(domain.quality(batch))
            parts[-1][usable] = found[usable]
        return np.concatenate(parts)

    @cached_property
    def _extractor(self) -> Extractor:
        """Opened once in each process that measures."""
        return opened(self.config)

    @cached_property
    def _vae(self) -> Codec:
        from ldsaug_ray.models import load_vae

        return load_vae(self.weights)
