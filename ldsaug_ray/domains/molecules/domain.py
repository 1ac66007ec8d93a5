"""Molecules: SMILES that RDKit reads, in its canonical form. A batch is S{data.max_length}[N], padded with zeros.

What a model decodes need not be a molecule: its quality `valid` is 0 then.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ldsaug_ray.common.molecule_tokens import Smiles, Vocabulary, tokens_of
from ldsaug_ray.domains.base import DOMAINS, Domain, Unusable
from ldsaug_ray.domains.molecules.chemistry import UnusableMolecule, canonical, molecule, rdkit
from ldsaug_ray.domains.molecules.settings import MoleculeData
from ldsaug_ray.domains.molecules.source import DELIMITERS, TextSource
from ldsaug_ray.domains.sources.base import Source
from ldsaug_ray.domains.sources.opening import find_files, open_source
from ldsaug_ray.domains.sources.walk import Files, ending
from ldsaug_ray.errors import InputError

TEXTS = ("smi", "smiles", *DELIMITERS)
SIDE = 180  # px of a drawing
# of RDKit's drawing: what is drawn, and styles that are SVG's own defaults
_DRAWN = re.compile(r"<(path|text)([^>]*)style='([^']*)' ?(?:/>|>([^<]*)</text>)")
_OF_NO_USE = re.compile(
    r" class='[^']*'|(?:fill-rule:evenodd|stroke-(?:linecap:butt|linejoin:miter|miterlimit:10|opacity:1)|"
    r"fill-opacity:1|font-(?:style|weight):normal|text-anchor:start|font-family:[\w-]+)(?:;|(?='))|\.0(?!\d)"
)


class Molecules(Domain):
    """See the module."""

    name, unit, item, column = "molecules", "molecules", "molecule", "smiles"
    prepares = "read, check and canonicalise SMILES, split into train and test"
    files = Files("molecule", "molecules", TEXTS, "smiles_column", text=True)
    data = MoleculeData
    codec = "sequence"
    extractor = "fingerprints"
    exported = "SMILES, as the model wrote them"
    qualities = ("valid",)
    defaults = {"report": {"samples": 8}}  # noqa: RUF012

    def open(self, data: Any) -> Source:
        """Lines of text files, or Parquet rows; errors as of `open_source`."""
        rdkit()
        data = _found(data)
        root, found, left_out = find_files(data.source, self.files)
        texts = [f.name for f in found if ending(f.name or root.name) in TEXTS]
        if data.format == "parquet" or (data.format == "auto" and not texts):
            return open_source(data, self.files)
        others = len(found) - len(texts)
        if data.format == "auto" and any(ending(f.name or root.name) in ("parquet", "parq", "pq") for f in found):
            raise InputError(f"data.source = {data.source} holds text and Parquet files: set data.format")
        if [f.name for f in found] == [""]:
            texts = [""]  # one file is taken at its word
        if not texts:
            raise InputError(f"data.source = {data.source}: {len(found)} files, none of .{', .'.join(TEXTS)}")
        return TextSource(root, texts, data, {**({"other files": others} if others else {}), **left_out})

    def stamp(self, data: Any) -> str:
        """As of `Domain`."""
        return super().stamp(_found(data))

    def read(self, payload: Any, data: Any) -> Any:
        """A SMILES, bytes or text, in canonical form. Raises Unusable with RDKit's reason."""
        try:
            smiles = canonical(_text(payload), data.max_length)
            if data.notation != "smiles":
                tokens_of(data.notation, smiles)
        except UnusableMolecule as e:
            raise Unusable(str(e)) from None
        except InputError:
            raise Unusable(f"it has no {data.notation.upper()}") from None
        return np.array(smiles.encode(), f"S{data.max_length}")

    def made(self, payload: Any, data: Any) -> Any:
        """In canonical form where RDKit reads it; else its text, so that it counts as invalid."""
        text = (_text(payload).split() or [""])[0]
        found = molecule(text)
        return np.array((text if found is None else rdkit().Chem.MolToSmiles(found)).encode())

    def empty(self, data: Any) -> Smiles:
        """As of `Domain`."""
        return np.empty(0, f"S{data.max_length}")

    def pack(self, batch: Smiles) -> pa.Array:
        """Fixed-size binary, padded with zeros."""
        width = batch.dtype.itemsize
        return pa.Array.from_buffers(pa.binary(width), len(batch), [None, pa.py_buffer(np.ascontiguousarray(batch))])

    def unpack(self, table: pa.Table, column: str | None = None) -> Smiles:
        """Of fixed-size binary without a copy, of strings with one."""
        found = table[column or self.column].combine_chunks()
        found = pa.concat_arrays(found.chunks) if isinstance(found, pa.ChunkedArray) else found
        if not pa.types.is_fixed_size_binary(found.type):
            return np.array([x.encode() if isinstance(x, str) else x for x in found.to_pylist()], np.bytes_)
        width = found.type.byte_width
        whole = np.frombuffer(found.buffers()[1] or b"", f"S{width}", len(found) + found.offset)
        return whole[found.offset :]

    def export(self, batch: Smiles, names: Sequence[str], facts: Mapping[str, Any]) -> pa.Array:
        """Strings, as they are."""
        return pa.array([x.decode() for x in batch.tolist()], pa.string())

    def learn(self, batches: Iterator[Smiles], source: Source, data: Any) -> dict[str, Any]:
        """The training set's tokens; how many molecules are there again, under another key."""
        tokens, hashes = set[str](), [np.empty(0, np.int64)]
        for batch in batches:
            tokens.update(Vocabulary.of(data.notation, batch.tolist()).tokens)
            hashes.append(np.fromiter(map(hash, batch.tolist()), np.int64, len(batch)))
        n = sum(map(len, hashes))
        notes = []
        if again := n - len(np.unique(np.concatenate(hashes))):
            notes = [f"{again:,} of {n:,} training molecules repeat another under another key; they are kept"]
        return {"tokens": sorted(tokens), "notes": notes}

    def unseen(self, facts: Mapping[str, Any], data: Any) -> Callable[[Smiles], list[str]]:
        """Molecules with a token that no training molecule has."""

        def reasons(batch: Smiles) -> list[str]:
            new = (
                sorted(set(tokens_of(data.notation, x.decode())).difference(facts["tokens"])) for x in batch.tolist()
            )
            return [f"no training molecule has the token {tokens[0]}" if tokens else "" for tokens in new]

        return reasons

    def quality(self, batch: Smiles) -> dict[str, NDArray[np.float64]]:
        """`valid`: 1 of a molecule, 0 of what is none."""
        return {"valid": np.array([molecule(x.decode()) is not None for x in batch.tolist()], np.float64)}

    def usable(self, quality: Mapping[str, NDArray[np.float64]]) -> NDArray[np.bool_]:
        """What is a molecule."""
        return quality["valid"] > 0

    def show(self, batch: Smiles, facts: Mapping[str, Any]) -> list[str]:
        """Drawings, SVG; of what is no molecule its text."""
        return [_drawn(x.decode()) for x in batch.tolist()]


def _text(payload: Any) -> str:
    return payload.decode("utf-8", "backslashreplace") if isinstance(payload, bytes) else str(payload)


def _found(data: Any) -> Any:
    """Settings whose source is a file: `moses:demo` are 800 molecules of MOSES that lie in the package."""
    if data.source != "moses:demo":
        return data
    return data.model_copy(update={"source": str(Path(__file__).with_name("moses.smi"))})


def _drawn(smiles: str) -> str:
    found = molecule(smiles)
    name = escape(smiles, quote=True)
    if found is None:
        style = "font-size:11px;word-break:break-all"
        return f'<span title="{name}" style="{style}">no molecule: <code>{name}</code></span>'
    from rdkit.Chem.Draw.rdMolDraw2D import MolDraw2DSVG, PrepareAndDrawMolecule

    drawing = MolDraw2DSVG(SIDE, SIDE, -1, -1, True)  # letters as text, not as outlines
    drawing.drawOptions().clearBackground = False  # type: ignore[assignment]
    PrepareAndDrawMolecule(drawing, found)
    drawing.FinishDrawing()
    paths, texts = dict[str, str](), ""  # one path a style
    for kind, where, style, letter in _DRAWN.findall(_OF_NO_USE.sub("", drawing.GetDrawingText())):
        if kind == "path":
            paths[style] = paths.get(style, "") + where.split("'")[1].replace(" ", "")
        else:
            texts += f"<text{where}style='{style}'>{letter}</text>"
    lines = "".join(f"<path d='{d}' style='{style}'/>" for style, d in paths.items())
    return f'<span title="{name}"><svg viewBox="0 0 {SIDE} {SIDE}" font-family="sans-serif">{lines}{texts}</svg></span>'


DOMAINS.add("molecules", Molecules())
