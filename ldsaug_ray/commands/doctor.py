"""`ldsaug doctor`: what is installed, which devices there are, what answers, and what to do about what does not."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal
from urllib.parse import unquote

from rich.table import Table
from rich.text import Text

from ldsaug_ray import __version__
from ldsaug_ray.common.secrets import without_password
from ldsaug_ray.run.progress import result_console

Mark = Literal["ok", "note", "fails"]
_PACKAGES = ("ray", "torch", "numpy", "pyarrow", "mlflow", "pydantic", "safetensors", "pillow")


@dataclass(frozen=True)
class Finding:
    """One line of the examination."""

    subject: str
    mark: Mark
    found: str
    advice: str = ""


def examine(*, verbose: bool = False) -> int:
    """Print the examination; returns 0, or 1 where something needed fails."""
    findings = []
    for check in (_versions, _devices, _faiss, _ray, _mlflow, _weights, _diffusers):
        try:
            findings.append(check())
        except Exception as e:
            if verbose:
                raise
            first = (str(e).strip().splitlines() or [type(e).__name__])[0]
            findings.append(Finding(_SUBJECTS[check], "fails", first, "ldsaug doctor --verbose shows where"))
    table = Table(show_header=False, box=None, pad_edge=False)
    colours = {"ok": "green", "note": "yellow", "fails": "red"}
    for f in findings:
        table.add_row(f.subject, Text(f.mark, colours[f.mark]), f.found + (f"\n→ {f.advice}" if f.advice else ""))
    result_console(120).print(table)
    return 1 if any(f.mark == "fails" for f in findings) else 0


def _versions() -> Finding:
    found, missing = [f"ldsaug_ray {__version__}", f"Python {platform.python_version()}"], []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing or sys.version_info < (3, 11):
        return Finding(
            "packages", "fails", ", ".join(found), f"missing: {', '.join(missing) or 'Python 3.11'}; make setup"
        )
    return Finding("packages", "ok", ", ".join(found))


def _devices() -> Finding:
    import torch

    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if names:
        return Finding("devices", "ok", f"{cpus} CPUs; {', '.join(names)}")
    return Finding("devices", "note", f"{cpus} CPUs, no GPU", "64 px and more want a GPU; 16 and 32 px train on CPUs")


def _faiss() -> Finding:
    import numpy as np

    try:
        import faiss
    except ImportError:
        return Finding(
            "FAISS", "fails", "not installed", "pip install 'ldsaug_ray[cpu]', or 'ldsaug_ray[gpu]' for a GPU"
        )
    x = np.eye(8, dtype=np.float32)
    index = faiss.IndexFlatL2(8)
    index.add(x)
    _, nearest = index.search(x, 1)
    if (nearest[:, 0] != np.arange(8)).any():
        return Finding("FAISS", "fails", "a search of 8 points found wrong neighbours", "install it again")
    gpus = faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0
    return Finding("FAISS", "ok", f"faiss {faiss.__version__}, {gpus} GPUs, search answers")


def _ray() -> Finding:
    from ldsaug_ray.config import Config
    from ldsaug_ray.engines.ray import RayEngine

    config = Config.model_validate({"run_dir": "unused", "data": {"source": "sklearn:digits"}})
    address = os.environ.get("RAY_ADDRESS")
    with RayEngine(config) as engine:
        if list(engine.each(_product, 6, [7])) != [42]:
            return Finding("Ray", "fails", "a task gave a wrong answer")
        has = {name: sum(node.get(name, 0.0) for node in engine.nodes()) for name in ("CPU", "GPU", "memory")}
    where = f"cluster {address}" if address else "a local Ray (RAY_ADDRESS is not set)"
    memory = has["memory"] / 1e9
    return Finding("Ray", "ok", f"{where} answers: {has['CPU']:g} CPUs, {has['GPU']:g} GPUs, {memory:.1f} GB")


def _product(a: int, b: int) -> int:
    return a * b


def _mlflow() -> Finding:
    from ldsaug_ray.run.mlflow_place import client_at, quieten, tracking_uri, unusable

    quieten()
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    address = tracking_uri()
    uri = without_password(address)
    if uri.startswith("sqlite:///") and not os.path.exists(unquote(uri.removeprefix("sqlite:///"))):
        return Finding("MLflow", "ok", f"{uri} will be created by the first run")
    try:
        experiments = client_at(address).search_experiments(max_results=100)
    except Exception as e:
        found, _, advice = str(unusable(address, e)).rpartition("); ")
        return Finding("MLflow", "fails", f"{found})", advice)
    return Finding("MLflow", "ok", f"{uri} answers, {len(experiments)} experiments")


def _weights() -> Finding:
    from ldsaug_ray.metrics import INCEPTION

    problem = INCEPTION.problem()
    if problem is None:
        return Finding("weights", "ok", f"{INCEPTION.path}")
    advice = f"only FID needs {INCEPTION.name} (StyleGAN's TorchScript Inception); put it at {INCEPTION.path}"
    return Finding("weights", "note", problem, advice)


def _diffusers() -> Finding:
    try:
        return Finding("diffusers", "ok", f"diffusers {version('diffusers')}")
    except PackageNotFoundError:
        advice = "only vae.kind: diffusers needs it; pip install 'ldsaug_ray[diffusers]'"
        return Finding("diffusers", "note", "not installed", advice)


_SUBJECTS: dict[Callable[[], Finding], str] = {
    _versions: "packages",
    _devices: "devices",
    _faiss: "FAISS",
    _ray: "Ray",
    _mlflow: "MLflow",
    _weights: "weights",
    _diffusers: "diffusers",
}
