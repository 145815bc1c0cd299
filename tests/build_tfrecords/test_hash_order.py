"""Sorting pictures by their hashes on disk gives the order of sorting them in memory."""

from __future__ import annotations

import functools
import tempfile

import numpy as np
import pytest

from tf_image_classification.build_tfrecords import hash_order, near_duplicates, signature
from tf_image_classification.build_tfrecords.near_duplicates import DuplicateIndex, Picture
from tf_image_classification.build_tfrecords.signature import Look


@pytest.mark.parametrize("in_memory", [1, 100, 5000])
@pytest.mark.parametrize("kind", ["of all values", "of few values", "that all begin alike"])
def test_the_order_is_that_of_a_stable_sort_however_many_are_sorted_at_once(in_memory, kind):
    random = np.random.default_rng(3)
    pictures = np.zeros(4000, hash_order.RECORD)
    pictures["id"] = np.arange(4000) * 3 + 1
    pictures["hash"] = random.integers(0, 2**64, (4000, hash_order.WORDS), np.uint64)
    if kind == "of few values":
        pictures["hash"] = pictures["hash"][random.integers(0, 7, 4000)]
    elif kind == "that all begin alike":
        pictures["hash"] >>= np.uint64(20)
    with tempfile.TemporaryFile() as file:
        file.write(pictures.tobytes())
        for column in range(hash_order.WORDS):
            parts = list(hash_order.in_order(file, len(pictures), column, in_memory))
            expected = pictures[np.argsort(pictures["hash"][:, column], kind="stable")]
            assert np.concatenate(parts).tobytes() == expected.tobytes()
            if kind == "of all values":
                assert max(map(len, parts)) <= max(64, 2 * in_memory)  # so that memory is limited


def duplicates_of(looks: list[Look]) -> tuple[object, ...]:
    index = DuplicateIndex()
    try:
        names = [Picture(f"/{number}", f"{number}", "train", ("cat",)) for number in range(len(looks))]
        index.add(zip(names, looks, strict=True))
        return *index.find(), index.pairs(near_duplicates.WITHIN_SPLIT, 1000)
    finally:
        index.close()


def test_the_near_duplicates_are_the_same_if_their_hashes_are_sorted_on_disk(monkeypatch):
    random = np.random.default_rng(5)
    signatures = random.integers(0, 256, (600, signature.BYTES)).astype(np.uint8)
    signatures[300:360, 1:] = signatures[:60, 1:]  # but for a pixel the same
    looks = [Look(number.to_bytes(12), False, row.tobytes()) for number, row in enumerate(signatures)]
    in_memory = duplicates_of(looks)
    assert in_memory[0].train == 120
    monkeypatch.setattr(hash_order, "in_order", functools.partial(hash_order.in_order, in_memory=1))
    assert duplicates_of(looks) == in_memory
