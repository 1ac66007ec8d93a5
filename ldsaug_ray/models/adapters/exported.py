"""Programs of torch.export (`.pt2`) as modules that can be trained, read without unpickling what could run code.

`torch.export.load` falls back to Python's unpickler for the sample inputs, for weights and constants that say so, and
for files of older formats (torch 2.13 to 2.15, `torch/export/pt2_archive/_package.py`). So the archive is looked
through first, by torch's own reader: what would be unpickled must pass `weights_only=True`, or the file is refused.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ldsaug_ray.errors import InputError, is_out_of_memory

_PLAIN = ("models/", "data/weights/", "data/constants/", "data/sample_inputs/")
_MARKS = ("archive_format", "archive_version", "byteorder", ".data/")


def load_exported(content: bytes, name: str) -> nn.Module:
    """The one program of the archive, on the CPU, as a module with parameters.

    Raises:
        InputError: it is no such archive, or holds what would be unpickled or run as compiled code.
    """
    from torch.export.pt2_archive._package import load_pt2

    _refuse_code(content, name)
    try:
        with _quiet():
            # not torch.export.load: where this fails, it tries older formats, which unpickle
            programs = load_pt2(io.BytesIO(content)).exported_programs
        (program,) = programs.values()
        return _Exported(program.module())
    except Exception as e:  # a damaged archive raises anything from KeyError to RuntimeError
        if is_out_of_memory(e):
            raise
        lines = [line.strip() for line in str(e).splitlines() if line.strip()]
        reason = lines[0][:200] if lines else type(e).__name__
        raise InputError(f"{name}: torch.export cannot read it ({reason})") from None


class _Exported(nn.Module):
    """The module of an exported program. It has one mode: that in which it was exported."""

    def __init__(self, program: torch.fx.GraphModule) -> None:
        super().__init__()
        self.program = program

    def forward(self, x: Tensor) -> Any:
        """What the program gives."""
        return self.program(x)

    def train(self, mode: bool = True) -> _Exported:
        """Only this module's flag: the program refuses to change its own."""
        self.training = mode
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> _Exported:
        """Move weights as any module does, and with them the devices that are written into the program."""
        super()._apply(fn, recurse)
        device = fn(torch.empty(0)).device
        for module in self.program.modules():
            if isinstance(module, torch.fx.GraphModule):
                for node in module.graph.nodes:
                    if "device" in node.kwargs:
                        node.kwargs = {**node.kwargs, "device": device}
                    if node.target is torch.ops.aten.to.device:
                        node.args = (node.args[0], device, *node.args[2:])
                module.recompile()
        return self


def _refuse_code(content: bytes, name: str) -> None:
    try:
        reader = torch._C.PyTorchFileReader(io.BytesIO(content))
        records: list[str] = reader.get_all_records()
    except RuntimeError as e:
        reason = (str(e).splitlines() or [""])[0][:200]
        raise InputError(f"{name}: not a file of torch.export.save ({reason})") from None
    if not any(r.startswith("models/") for r in records):
        raise InputError(f"{name}: not a file of torch.export.save (it holds no program)")
    for record in records:
        if not record.startswith((*_PLAIN, *_MARKS)):
            raise InputError(f"{name}: holds {record}, which torch would run or unpickle; only plain programs are read")
        folder, _, last = record.rpartition("/")
        if folder == "data/sample_inputs" or last.endswith(".pt"):
            _check_tensors(reader.get_record(record), f"{name}, {record}")
        elif last.endswith("_config.json"):
            for key in _pickled(reader.get_record(record), f"{name}, {record}"):
                raise InputError(f"{name}: {key} is stored as a pickled object, which could run code")


def _pickled(config: bytes, name: str) -> list[str]:
    """Weights or constants that are not stored as plain numbers."""
    try:
        entries = json.loads(config)["config"].items()
        return [k for k, v in entries if v["use_pickle"] or not v["path_name"].startswith(("weight_", "tensor_"))]
    except (ValueError, KeyError, AttributeError, TypeError) as e:
        raise InputError(f"{name}: damaged ({type(e).__name__}: {e})") from None


def _check_tensors(pickled: bytes, name: str) -> None:
    if not pickled:
        return
    try:
        torch.load(io.BytesIO(pickled), map_location="cpu", weights_only=True)
    except Exception as e:
        reason = (str(e).strip().splitlines() or [type(e).__name__])[0][:200]
        raise InputError(f"{name}: holds more than tensors, and could run code when unpickled ({reason})") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's remark that a buffer has no file name."""
    logger = logging.getLogger("torch.export.pt2_archive._package")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
