"""What RDKit is asked for: a text is a molecule, in canonical form, or there is a reason, in RDKit's words, why not.

RDKit writes its complaints to the process's error stream. Here it is silent, and heard where it refuses.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ldsaug_ray.errors import ResourceError

_LOCK = threading.Lock()  # RDKit's log is one a process


class UnusableMolecule(ValueError):
    """Why a text is no molecule that can be used."""


def rdkit() -> Any:
    """The package, with `Chem`. Raises ResourceError where it is not installed."""
    try:
        import rdkit
        from rdkit import Chem  # noqa: F401
    except ImportError:
        raise ResourceError("molecules need the package rdkit; pip install ldsaug_ray[molecules]") from None
    return rdkit


def molecule(smiles: str) -> Any | None:
    """RDKit's `Mol` of a SMILES that is a molecule with atoms, else None."""
    chem = rdkit().Chem
    with rdkit().rdBase.BlockLogs():
        found = chem.MolFromSmiles(smiles)
    return found if found is not None and found.GetNumAtoms() else None


def canonical(text: str, max_length: int) -> str:
    """RDKit's canonical SMILES of one molecule, of at most `max_length` characters.

    Raises:
        UnusableMolecule: RDKit refuses it, it is empty, a salt or mixture, or too long.
    """
    if not text.strip():
        raise UnusableMolecule("empty")
    smiles = text.split()[0]
    found = molecule(smiles)
    if found is None:
        raise UnusableMolecule(_refusal(smiles))
    chem = rdkit().Chem
    if (parts := len(chem.GetMolFrags(found))) > 1:
        raise UnusableMolecule(f"a salt or mixture of {parts} parts")
    smiles = chem.MolToSmiles(found)
    if len(smiles) > max_length:
        raise UnusableMolecule(f"canonical SMILES longer than data.max_length = {max_length}")
    return str(smiles)


def _refusal(smiles: str) -> str:
    """What RDKit says of a SMILES, without the SMILES, so that equal reasons are counted together."""
    with _heard() as lines:
        found = rdkit().Chem.MolFromSmiles(smiles)
    said = next((re.sub(r"^\[[\d:]+\] ", "", line) for line in lines), "")
    if not said:
        return "no atoms" if found is not None else "RDKit cannot read it"
    return re.sub(r"( while parsing| for input)?: *\S*$", "", said) if said.startswith("SMILES Parse") else said.strip()


@contextmanager
def _heard() -> Iterator[list[str]]:
    """What RDKit logs meanwhile on this thread."""
    log, lines, here = logging.getLogger("rdkit"), list[str](), threading.get_ident()

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == here:
                lines.append(record.getMessage())

    with _LOCK:
        handlers, log.handlers = log.handlers, [Ear()]
        rdkit().rdBase.LogToPythonLogger()
        try:
            yield lines
        finally:
            rdkit().rdBase.LogToCppStreams()
            log.handlers = handlers
