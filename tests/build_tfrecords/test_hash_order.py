"""Sorting pictures by their hashes on disk gives the order of sorting them in memory."""

from __future__ import annotations

import numpy as np
import pytest

from tf_image_classification.build_tfrecords import hash_order


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
