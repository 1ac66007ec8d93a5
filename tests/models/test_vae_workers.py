"""Several training workers: real processes that talk through gloo."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from test_vae_uses import Certain
from torch import Tensor
from vae_helpers import EVERYTHING, TINY, blobs, part_of_a

from ldsaug_ray.config import Optimisation, Uses
from ldsaug_ray.models import Augmented, DivergedError, Trainer, build_vae
from ldsaug_ray.models.training import state
from ldsaug_ray.models.training.workers import mean_over_workers

USES = Uses(pixels=0.5, adversarial=0.7, cycle=0.3)
SAME = Optimisation.model_validate(  # nothing random in a step: what two workers do must equal what one does
    {
        **EVERYTHING.model_dump(),
        "batch_size": 8,
        "horizontal_flip": False,
        "gradient_clip": None,
        "objective": {
            "adversarial": {
                "weight": 0.3,
                "samples": 0,
                "augment": [],
                "r1_gamma": 1.0,
                "r1_every": 1,
                "stddev_group": 1,
            }
        },
    }
)


def _trainer(rank: int, world: int, settings: Optimisation, certain: bool) -> Trainer:
    model = build_vae(TINY, 16, seed=1)
    if certain:
        model, weights = Certain(TINY, 16), model.state_dict()
        model.load_state_dict(weights)
    return Trainer(model, settings, 0, "cpu", rank=rank, world=world, uses=USES)


def _rows(a: Augmented, rows: slice) -> Augmented:
    assert a.images is not None
    assert a.z is not None
    return Augmented(a.images[rows], a.z[rows], a.weight[rows])


def _work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    (mean,) = mean_over_workers([torch.full((2, 3), float(rank))], 2)
    assert torch.equal(mean, torch.full((2, 3), 0.5))
    certain = _trainer(rank, 2, SAME, certain=True)
    half = slice(4 * rank, 4 * rank + 4)
    certain.train_step(blobs(8)[half], _rows(part_of_a(0, 8), half))
    state.save(certain, f"{folder}/certain{rank}")
    real = _trainer(rank, 2, EVERYTHING, certain=False)
    for step in range(4):
        real.train_step(blobs(4, seed=10 * step + rank), part_of_a(10 * step + rank))
    state.save(real, f"{folder}/real{rank}")
    if rank == 1:  # one worker's encoder goes wrong; both must stop, and neither may wait for the other
        with torch.no_grad():
            real.model.encoder.mu.bias.fill_(torch.nan)
    with pytest.raises(DivergedError, match="reconstruction = nan"):
        real.train_step(blobs(4), part_of_a(0))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workers")
    for rank in range(2):
        for kind in ("certain", "real"):
            (folder / f"{kind}{rank}").mkdir()
    torch.multiprocessing.spawn(_work, (str(folder),), nprocs=2)
    return folder


def _state(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "trainer.safetensors")


def test_workers_stay_equal(two_workers: Path) -> None:
    for kind in ("certain", "real"):
        a, b = (_state(two_workers / f"{kind}{rank}") for rank in range(2))
        assert a.keys() == b.keys()
        assert [name for name in a if not torch.equal(a[name], b[name])] == []


def test_two_workers_take_the_gradients_of_one_on_the_whole_batch(two_workers: Path, tmp_path: Path) -> None:
    alone = _trainer(0, 1, SAME, certain=True)
    a = part_of_a(0, 8)
    alone.train_step(blobs(8), a)
    state.save(alone, tmp_path)
    expected, found = _state(tmp_path), _state(two_workers / "certain0")
    assert expected.keys() == found.keys()
    compared = 0
    for name, value in expected.items():
        if ".exp_avg." in name and "noise_strength" not in name:  # the strengths see random noise
            assert (found[name] - value).norm() <= 1e-3 * value.norm() + 1e-7, name
            compared += value.norm() > 0
    assert compared > 40
