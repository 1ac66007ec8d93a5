"""Molecules are read by RDKit, silently, and what it refuses has its words."""

from __future__ import annotations

import sys

import pytest

from ldsaug_ray.domains.molecules.chemistry import UnusableMolecule, canonical
from ldsaug_ray.errors import ResourceError

pytest.importorskip("rdkit", reason="pip install ldsaug_ray[molecules]")


@pytest.mark.parametrize(
    ("given", "wanted"), [("OCC", "CCO"), ("C1=CC=CC=C1", "c1ccccc1"), (" OCC\tethanol\n", "CCO"), ("[CH4]", "C")]
)
def test_canonical(given, wanted):
    assert canonical(given, 20) == wanted


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("", "empty"),
        ("  \n", "empty"),
        ("C1CC", "SMILES Parse Error: unclosed ring"),
        ("hello world", "SMILES Parse Error: syntax error"),
        ("CQ", "SMILES Parse Error: syntax error"),
        ("C(C)(C)(C)(C)C", "Explicit valence for atom # 0 C, 5, is greater than permitted"),
        ("c1cccc1n", "Can't kekulize mol.  Unkekulized atoms: 0 1 2 3 4"),
        ("[Na+].[Cl-]", "a salt or mixture of 2 parts"),
        ("CCO.O.O", "a salt or mixture of 3 parts"),
        ("C" * 21, "canonical SMILES longer than data.max_length = 20"),
    ],
)
def test_refused_with_a_reason(given, reason, capfd):
    with pytest.raises(UnusableMolecule) as e:
        canonical(given, 20)
    assert str(e.value) == reason
    assert capfd.readouterr() == ("", "")


def test_rdkit_speaks_as_before_to_others(capfd):
    from rdkit import Chem

    with pytest.raises(UnusableMolecule):
        canonical("C1CC", 20)
    Chem.MolFromSmiles("C1CC")
    assert "unclosed ring" in capfd.readouterr().err


def test_without_rdkit_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "rdkit", None)
    with pytest.raises(ResourceError, match=r"pip install ldsaug_ray\[molecules\]"):
        canonical("CCO", 20)
