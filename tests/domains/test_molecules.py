"""Molecules as a domain: text files and Parquet with all that goes wrong in them, batches there and back, drawings."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ldsaug_ray.commands.export import columns_of
from ldsaug_ray.domains import DOMAINS
from ldsaug_ray.domains.molecules import Molecules
from ldsaug_ray.domains.molecules.settings import MoleculeData
from ldsaug_ray.domains.prepare import plan, prepare_unit
from ldsaug_ray.errors import InputError, ResourceError

pytest.importorskip("rdkit", reason="pip install ldsaug_ray[molecules]")

SMI = b"OCC ethanol\r\nc1ccccc1\n\nC1CC ring\n[Na+].[Cl-] salt\nCCCCCCCCCCCCCCCCCCCCCCCCC long\nCN\n\xff\xfe\nCCN"
WANTED = ["CCO", "c1ccccc1", "CN", "CCN"]
REASONS = {
    "SMILES Parse Error: unclosed ring": 1,
    "a salt or mixture of 2 parts": 1,
    "canonical SMILES longer than data.max_length = 20": 1,
    "SMILES Parse Error: syntax error": 1,
}


def settings(source: Path, **given) -> MoleculeData:
    return MoleculeData(source=str(source), max_length=20, train=1.0, test=0.0, **given)


def prepared(data: MoleculeData) -> tuple[list[str], Counter[str], int]:
    """Training SMILES, reasons of the quarantine, and how many were listed."""
    domain = DOMAINS.get("molecules")
    source = domain.open(data)
    work = plan(domain, source, data, 0)
    units = [prepare_unit(domain, source, unit, data) for unit in work.units]
    kept = [x.decode() for u in units for x in domain.unpack(u.train).tolist()]
    reasons = [r for t in (work.quarantine, *(u.quarantine for u in units)) for r in t["reason"].to_pylist()]
    assert len(kept) + len(reasons) + work.n_dropped_unused == work.n_listed
    return kept, Counter(reasons), work.n_listed


def test_lines_of_smi(tmp_path):
    (tmp_path / "a.smi").write_bytes(SMI)
    assert prepared(settings(tmp_path / "a.smi")) == (WANTED, REASONS, 8)
    source = Molecules().open(settings(tmp_path))
    assert source.list()["key"].to_pylist()[:3] == ["a.smi#1", "a.smi#2", "a.smi#4"]
    assert source.passed_over == {"empty lines": 1}


@pytest.mark.parametrize(("ending", "sign"), [("csv", ","), ("tsv", "\t")])
def test_columns_of_tables(tmp_path, ending, sign):
    rows = [["id", '"name, long"', "smiles"], ["7", '"a, b"', "OCC"], ["8", "c", '"C1CC"'], ["9", "d", ""], ["10"]]
    text = "\r\n".join(map(sign.join, [*rows, ["7", "e", "CC"], ["11", "f", "CN"]]))
    (tmp_path / f"t.{ending}").write_bytes(b"\xef\xbb\xbf" + text.encode())
    kept, reasons, n = prepared(settings(tmp_path, key_column="id"))
    assert (kept, n) == (["CCO", "CN"], 6)
    assert reasons == {
        "SMILES Parse Error: unclosed ring": 1,
        "empty": 1,
        "the row has no column smiles": 1,
        f"duplicate key (first seen in t.{ending})": 1,
    }


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.dictionary(pa.int32(), pa.string())]
)
def test_rows_of_parquet(tmp_path, kind):
    texts = [line.split(b" ")[0] for line in SMI.replace(b"\xff\xfe", b"??").split(b"\n")]
    column = pa.array([None, *texts], pa.binary()).cast(kind)
    pq.write_table(pa.table({"molecule": column}), tmp_path / "a.parquet")
    kept, reasons, n = prepared(settings(tmp_path, smiles_column="molecule"))
    assert (kept, n) == (WANTED, 10)
    assert reasons == {**REASONS, "empty": 1, "the molecule is null": 1}


@pytest.mark.parametrize(
    ("files", "given", "message"),
    [
        ({"a.csv": b"smile,id\nC,1"}, {}, r"data.smiles_column = .smiles. is not a column; did you mean .smile."),
        ({"a.csv": b"smiles,smiles\nC,C"}, {}, "stands in it 2 times"),
        ({"a.csv": b"smiles;id\nC;1"}, {}, "its one column is 'smiles;id': cells of .csv stand between commas"),
        ({"a.csv": b""}, {}, "there are none"),
        ({"a.csv": b"smiles\nC"}, {"key_column": "name"}, "data.key_column = 'name' is not a column"),
        ({"a.csv": b"smiles\nC"}, {"attributes": "columns"}, "columns of text files are not read as attributes"),
        ({"a.txt": b"C"}, {}, r"a.txt|\.txt"),
        ({"a.smi": b"C", "b.parquet": b""}, {}, "holds text and Parquet files: set data.format"),
        ({"a.smi": b""}, {}, "0 molecules? found"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, files, given, message):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        prepared(settings(tmp_path, **given))


def test_selfies_quarantine_what_has_none(tmp_path):
    pytest.importorskip("selfies", reason="pip install ldsaug_ray[molecules]")
    (tmp_path / "a.smi").write_text("CC\nCO\nFI(F)(F)(F)F\n")
    assert prepared(settings(tmp_path, notation="selfies")) == (["CC", "CO"], {"it has no SELFIES": 1}, 3)


def test_a_batch_there_and_back(tmp_path):
    domain, batch = Molecules(), np.array(["CCO", "c1ccccc1", "C1CC"], "S12")
    stored = pa.table({"smiles": domain.pack(batch)})
    pq.write_table(stored, tmp_path / "a.parquet")
    for table in (stored, pq.read_table(tmp_path / "a.parquet")):
        assert domain.unpack(table).tolist() == batch.tolist()
        assert domain.unpack(table).dtype == batch.dtype
        assert domain.unpack(table.slice(1, 1)).tolist() == [b"c1ccccc1"]
        assert len(domain.unpack(table.slice(0, 0))) == 0
    exported = domain.export(batch, ["", "", ""], {})
    assert exported.to_pylist() == ["CCO", "c1ccccc1", "C1CC"]
    assert domain.unpack(pa.table({"smiles": exported})).tolist() == batch.tolist()
    assert domain.quality(batch)["valid"].tolist() == [1, 1, 0]


def test_what_users_get_is_described():
    assert columns_of(Molecules())["smiles"] == "SMILES, as the model wrote them"
    assert columns_of(Molecules())["valid"] == "valid of the molecule"


def test_the_vocabulary_is_learned_from_all_batches(tmp_path):
    batches = iter([np.array(["CCO"], "S12"), np.array(["c1ccccc1Br", "C[nH]"], "S12")])
    data = settings(tmp_path)
    assert Molecules().learn(batches, None, data) == {"tokens": ["1", "Br", "C", "O", "[nH]", "c"], "notes": []}


def test_repeated_molecules_are_told(tmp_path):
    batches = iter([np.array(["CCO", "C", "CCO"], "S12"), np.array(["CCO", "CC"], "S12")])
    (note,) = Molecules().learn(batches, None, settings(tmp_path))["notes"]
    assert note == "2 of 5 training molecules repeat another under another key; they are kept"


def test_drawings_are_whole_and_escaped():
    ethanol, none = Molecules().show(np.array(["CCO", "<b>&"], "S12"), {})
    svg = ElementTree.fromstring(ethanol)
    assert svg.attrib == {"title": "CCO"}
    assert sorted("".join(svg.itertext())) == ["H", "O"]
    lines = {p.attrib["style"]: p.attrib["d"] for p in svg.iter("path")}
    # C-C in black, and C-O half in black and half in red
    assert [sum(d.count("L") for s, d in lines.items() if c in s) for c in ("#000000", "#FF0000")] == [4, 1]
    assert len(ethanol) < 800
    assert "<b>" not in none
    assert "&lt;b&gt;&amp;" in none


def test_without_rdkit_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "rdkit", None)
    with pytest.raises(ResourceError, match=r"pip install ldsaug_ray\[molecules\]"):
        Molecules().open(settings(tmp_path))
