"""Attribute files: CelebA's layout and its variations, and errors that name their line."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from ldsaug_ray.common.storage import Location
from ldsaug_ray.domains.images import load_attributes, read_attribute_file
from ldsaug_ray.errors import InputError


@pytest.fixture
def read(tmp_path):
    def run(text: str, names=None):
        (tmp_path / "attributes.txt").write_bytes(text.encode())
        return read_attribute_file(Location.of(tmp_path / "attributes.txt"), names)

    return run


@pytest.mark.parametrize(
    "text",
    [
        "2\nMale Young\na.jpg -1 1\nb.jpg 1 -1\n",
        "2\r\nMale Young \r\na.jpg  0  1 \r\nb.jpg\t1 0\r\n\r\n",
        "\ufeff2\nMale  Young\n\na.jpg -1 1\nb.jpg 1 0",
    ],
)
def test_layouts(read, text):
    table = read(text)
    assert table.names == ("Male", "Young")
    assert table.values.dtype == np.int8
    np.testing.assert_array_equal(table.values, [[-1, 1], [1, -1]])
    assert table.lookup("a.jpg") == {"Male": -1, "Young": 1}


def test_names_choose_and_order(read):
    table = read("1\nMale Young Smiling\na.jpg -1 1 1\n", ["Smiling", "Male"])
    assert table.lookup("a.jpg") == {"Smiling": 1, "Male": -1}


def test_lookup_by_key_then_name_then_stem(read):
    table = read("4\nMale\na.jpg 1\nb.jpg -1\nb.png 1\nsub/c.jpg 1\n")
    assert table.lookup("faces/a.jpg") == {"Male": 1}
    assert table.lookup("a.png") == table.lookup("a") == {"Male": 1}
    assert table.lookup("b.jpg") == {"Male": -1}
    assert table.lookup("b.webp") is None  # two rows could be meant
    assert table.lookup("c") == {"Male": 1}
    assert table.lookup("d") is None
    again = pickle.loads(pickle.dumps(table))
    assert again.lookup("x/a.png") == {"Male": 1}


def test_keys_of_tars_with_a_dot(read):
    table = read("3\nMale\n7.0.png 1\n7.1.png -1\n8.png 1\n")
    assert [table.lookup(key) for key in ("7.0", "d/7.1", "8.0", "7")] == [{"Male": 1}, {"Male": -1}, {"Male": 1}, None]


def test_accents_of_an_attribute(read, make_data):
    names = make_data("x", attribute_names=("fro\u0308h",)).attribute_names
    for header in ("fro\u0308h", "fr\u00f6h"):
        assert read(f"1\nMale {header}\na.jpg -1 1\n", names).lookup("a.jpg") == {"fr\u00f6h": 1}
        assert read(f"1\n{header}\na.jpg 1\n").names == ("fr\u00f6h",)


def test_accents_that_are_taken_apart(read):
    """As macOS writes names; the row of the same name as it is written comes first."""
    table = read("5\nMale\nJos\u00e9.jpg 1\nA\u030a.jpg -1\nsub/e\u0301.png 1\ne\u0301x.jpg 1\n\u00e9x.jpg -1\n")
    assert table.lookup("Jose\u0301.jpg") == table.lookup("x/Jose\u0301.png") == {"Male": 1}
    assert table.lookup("\u00c5.jpg") == table.lookup("A\u030a.webp") == {"Male": -1}
    assert table.lookup("sub/\u00e9.png") == table.lookup("\u00e9") == {"Male": 1}
    assert table.lookup("e\u0301x.jpg") == {"Male": 1}
    assert table.lookup("\u00e9x.jpg") == {"Male": -1}
    assert table.exact_row("Jose\u0301.jpg") is None
    assert table.lookup("Jose.jpg") is None
    assert pickle.loads(pickle.dumps(table)).lookup("Jose\u0301.jpg") == {"Male": 1}
    both = read("2\nMale\ne\u0301x.jpg 1\n\u00e9x.jpg -1\n")
    assert both.lookup("e\u0301x.png") == {"Male": 1}  # by its stem, as it is written
    two = read("2\nMale\na/e\u0301.jpg 1\nb/\u00e9.png -1\n")
    assert two.row("c/e\u0301.gif") == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x\nMale\na 1\n", r"attributes.txt, line 1: should be the number of rows, found 'x'"),
        ("image_id,Male\na.jpg,1\n", "CSV"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        ("1\n", "line 2"),
        ("", "line 1"),
        ("1\nMale Male\na 1 1\n", "line 2: named more than once: Male"),
        ("2\nMale Young\na 1 1\nb 1\n", "line 4: 1 values after 'b', but 2 names"),
        ("1\nMale\na 2\n", "line 3: '2' is no attribute value"),
        ("1\nMale\na 1\na 1\n", "line 4: 'a' stands already on line 3"),
        ("3\nMale\na 1\nb 1\n", "line 1 says 3 rows, there are 2"),
    ],
)
def test_errors_name_the_line(read, text, message):
    with pytest.raises(InputError, match=message):
        read(text)


def test_unknown_name_and_missing_file(read, tmp_path):
    with pytest.raises(InputError, match="'male'; did you mean 'Male'"):
        read("1\nMale Young\na 1 1\n", ["male"])
    with pytest.raises(InputError, match="no such file"):
        read_attribute_file(Location.of(tmp_path / "nothing.txt"))


def test_load_attributes(make_data, tmp_path):
    (tmp_path / "a.txt").write_text("1\nMale Young\na 1 1\n")
    assert load_attributes(make_data(tmp_path)) is None
    assert load_attributes(make_data(tmp_path, attributes="columns")) is None
    table = load_attributes(make_data(tmp_path, attributes=str(tmp_path / "a.txt"), attribute_names=("Young",)))
    assert table is not None
    assert table.names == ("Young",)


def test_real_file(real_data):
    table = read_attribute_file(Location.of(real_data / "labels" / "CelebAMask-HQ-attribute-anno.txt"))
    assert table.values.shape == (30_000, 40)
    assert set(np.unique(table.values)) == {-1, 1}
    line = (real_data / "labels" / "CelebAMask-HQ-attribute-anno.txt").read_text().splitlines()[2 + 1234].split()
    assert list(table.lookup("1234.png").values()) == [int(v) for v in line[1:]]
