"""Sorting pictures by their hashes on disk gives the order of sorting them in memory."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from tf_image_classification.build_tfrecords import hash_order, near_duplicates, signature
from tf_image_classification.build_tfrecords.near_duplicates import DuplicateIndex, Picture
from tf_image_classification.build_tfrecords.signature import Look


@pytest.mark.parametrize("in_memory", [1, 100, 5000])
@pytest.mark.parametrize("kind", ["of all values", "of few values", "that all begin alike"])
def test_the_order_is_that_of_a_stable_sort_however_many_are_sorted_at_once(in_memory, kind):
    random = np.random.default_rng(3)
    words = random.integers(0, 2**64, 4000, np.uint64)
    if kind == "of few values":
        words = words[random.integers(0, 7, len(words))]
    elif kind == "that all begin alike":
        words >>= np.uint64(20)
    pictures = np.flatnonzero(random.random(len(words)) < 0.8) + 1  # those of other hashes are left out
    parts = list(hash_order.in_order(pictures, words, in_memory))
    assert np.concatenate(parts).tolist() == pictures[np.argsort(words[pictures - 1], kind="stable")].tolist()
    if kind == "of all values":
        assert max(map(len, parts)) <= max(64, 2 * in_memory)  # so that memory is limited


def test_no_pictures_have_an_order_too():
    none = np.zeros(0, np.int64)
    assert [part.tolist() for part in hash_order.in_order(none, np.zeros(0, np.uint64))] == [[]]


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
