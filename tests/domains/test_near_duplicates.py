"""Near-duplicates: counts against brute force over all pairs, and hashes of real copies."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from ldsaug_ray.domains.images.hashing import hash_images
from ldsaug_ray.domains.near_duplicates import FARTHEST, find_near_duplicates


def brute_force(hashes: np.ndarray, test: np.ndarray, radius: int) -> tuple[int, int, int]:
    bits = np.unpackbits(np.ascontiguousarray(hashes).view(np.uint8), axis=1)
    near = (bits[:, None] != bits[None]).sum(-1) <= radius
    np.fill_diagonal(near, False)
    return (
        int(near[test][:, ~test].any(1).sum()),
        int(near[~test][:, ~test].any(1).sum()),
        int(near[test][:, test].any(1).sum()),
    )


@pytest.mark.parametrize("radius", range(FARTHEST + 1))
@pytest.mark.parametrize("seed", range(3))
def test_counts_are_those_of_all_pairs(radius, seed):
    """Clusters around a few centres, at distances on both sides of the radius, with equal hashes among them."""
    rng = np.random.default_rng(seed)
    bits = rng.random((400, 128)) < 0.3
    for i in range(150, 400):
        bits[i] = bits[rng.integers(0, 150)]
        bits[i, rng.choice(128, rng.integers(0, 10), replace=False)] ^= True
    hashes = np.packbits(bits, axis=1).view(np.uint64)
    test = rng.random(400) < 0.3
    found = find_near_duplicates(hashes, test, radius)
    assert (found.test_in_train, found.in_train, found.in_test) == brute_force(hashes, test, radius)
    assert bool(found.examples) == (found.test_in_train > 0)
    for a, b in found.examples:
        assert test[a]
        assert not test[b]
        assert np.bitwise_count(hashes[a] ^ hashes[b]).sum() <= radius


def test_one_split_and_none_alike():
    hashes = np.arange(20, dtype=np.uint64).reshape(10, 2) * np.uint64(0x9E3779B97F4A7C15)
    for test in (np.zeros(10, bool), np.ones(10, bool)):
        found = find_near_duplicates(hashes, test, 0)
        assert (found.test_in_train, found.in_train, found.in_test, found.examples) == (0, 0, 0, ())
    found = find_near_duplicates(np.zeros((5, 2), np.uint64), np.array([0, 0, 0, 1, 1], bool), 0)
    assert (found.test_in_train, found.in_train, found.in_test) == (2, 3, 2)
    assert found.examples == ((3, 0),)


def test_images_of_one_colour_are_alike_where_they_are_equal():
    images = np.stack([np.full((16, 16, 3), v, np.uint8) for v in (10, 200, 10, 11)])
    images[3, 0, 0] += 3
    hashes = hash_images(images)
    found = find_near_duplicates(hashes, np.zeros(4, bool), FARTHEST)
    assert found.in_train == 2
    assert (hashes[0] == hashes[2]).all()


def test_copies_of_faces_are_found_and_other_faces_are_not(real_data):
    files = sorted((real_data / "faces256").glob("*.jpg"))[:60]
    faces = [Image.open(f).convert("RGB").resize((64, 64), Image.Resampling.LANCZOS) for f in files]
    copies = []
    for i, face in enumerate(faces[:30]):
        with io.BytesIO() as buffer:
            face.save(buffer, "JPEG", quality=75)
            copy = Image.open(buffer) if i % 2 else face.resize((48, 48)).resize((64, 64))
            copies.append(np.asarray(copy))
    images = np.concatenate([np.stack([np.asarray(f) for f in faces]), np.stack(copies)])
    test = np.arange(90) >= 60
    found = find_near_duplicates(hash_images(images), test, FARTHEST)
    assert (found.test_in_train, found.in_train, found.in_test) == (30, 0, 0)
    assert all(a == b + 60 for a, b in found.examples)
