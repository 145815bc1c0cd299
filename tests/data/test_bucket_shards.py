"""Shards in a bucket that is not mounted are read through a local cache of limited size."""

from __future__ import annotations

import dataclasses
import gc
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from tests.standin import bucket as standin
from tests.test_dataset import CLASS_DICT, SIZE, batches_of, numbers_of, write
from tf_image_classification import dataset, storage
from tf_image_classification.data import bucket_shards, shard_cache, tfrecord
from tf_image_classification.data.batch_part import BatchPart
from tf_image_classification.data.manifest import Manifest, Split, Task
from tf_image_classification.errors import DataError

SHARDS = 12
TASKS = (Task("label", ("a", "b", "c")),)


@pytest.fixture
def service(monkeypatch) -> Iterator[standin.Buckets]:
    """An empty bucket `data`, and the environment that points to it."""
    with standin.Buckets("data") as service:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", service.url)
        yield service


@pytest.fixture
def local(tmp_path) -> Manifest:
    """50 training examples in shards of different lengths, and 10 for evaluation in gzipped ones."""
    folder = tmp_path / "shards"
    folder.mkdir()
    splits = {
        "train": write(folder, "train", range(50), SHARDS),
        "eval": write(folder, "eval", range(100, 110), 3, "GZIP"),
    }
    return Manifest(TASKS, {name: with_crcs(folder, split) for name, split in splits.items()}, folder=str(folder))


@pytest.fixture
def remote(service, local) -> Manifest:
    """The same in a bucket."""
    standin.fill(service.url, "data", "shards", Path(local.folder))
    return dataclasses.replace(local, folder="gs://data/shards")


@pytest.fixture
def cache(monkeypatch) -> Callable[[int], shard_cache.ShardCache]:
    """Gives the process a cache of this size."""

    def make(max_bytes: int) -> shard_cache.ShardCache:
        cache = shard_cache.ShardCache(tempfile.TemporaryDirectory(prefix="tfic-shards-"), max_bytes)
        monkeypatch.setattr(shard_cache, "shared", lambda: cache)
        return cache

    return make


def with_crcs(folder: Path, split: Split) -> Split:
    shards = [
        dataclasses.replace(shard, crc32c=tfrecord.file_crc32c(str(folder / shard.path))) for shard in split.shards
    ]
    return dataclasses.replace(split, shards=tuple(shards))


def downloads(service: standin.Buckets) -> Counter[str]:
    """How often each shard was downloaded."""
    names = (re.search(r"([^/]+\.tfrecord)\?.*alt=media", unquote(request)) for request in service.requests)
    return Counter(match[1] for match in names if match)


def bytes_in(cache: shard_cache.ShardCache) -> int:
    return sum(file.size for file in storage.walk(cache.folder))


@pytest.mark.parametrize(
    "options", [{}, {"first_step": 3, "seed": 5}, {"shuffle": False}], ids=["from the start", "resumed", "debug"]
)
@pytest.mark.parametrize("room", [0, 3, 100], ids=["no room", "room for some", "room for all"])
def test_the_order_of_examples_is_that_of_local_shards(local, remote, cache, options, room):
    cache(room * local.splits["train"].shards[0].bytes)
    assert numbers_of(remote, steps=20, **options) == numbers_of(local, steps=20, **options)


def test_workers_read_their_parts_of_the_batches_of_local_shards(local, remote, cache):
    cache(10**6)
    of_workers = [numbers_of(remote, steps=20, part=BatchPart(worker, 1, 2)) for worker in (0, 1)]
    assert [first + second for first, second in zip(*of_workers, strict=True)] == numbers_of(local, steps=20)


def test_workers_fetch_the_shards_of_their_streams_only(local, remote, cache, service):
    options = {"streams": 2, "batch_size": 10, "steps": 10, "shuffle": False}
    fetched, of_workers = [], []
    for worker in (0, 1):
        cache(10**6)
        service.requests.clear()
        of_workers.append(numbers_of(remote, part=BatchPart(worker, 1, 2), **options))
        fetched.append(downloads(service))
    assert [first + second for first, second in zip(*of_workers, strict=True)] == numbers_of(local, **options)
    assert {count for shards in fetched for count in shards.values()} == {1}
    first, second = (sorted(shards) for shards in fetched)
    assert len({*first, *second}) == SHARDS
    assert first[-1:] == second[:1]  # the one with the end of the first half


def test_the_order_holds_with_shards_of_very_different_lengths(service, cache, tmp_path):
    folder = tmp_path / "uneven"
    folder.mkdir()
    lengths = [1, 9, 2, 17, 1, 1, 30, 4, 5, 1, 12]
    parts = [
        write(folder, f"part{end}", range(end - length, end), 1)
        for length, end in zip(lengths, np.cumsum(lengths).tolist(), strict=True)
    ]
    split = with_crcs(folder, Split(tuple(shard for part in parts for shard in part.shards)))
    local = Manifest(TASKS, {"train": split}, folder=str(folder))
    standin.fill(service.url, "data", "uneven", folder)
    cache(2000)
    assert numbers_of(dataclasses.replace(local, folder="gs://data/uneven"), steps=30) == numbers_of(local, steps=30)


def test_the_evaluation_sees_the_examples_of_local_shards_in_their_order(local, remote, cache):
    cache(10**6)

    def names(data: Manifest) -> list[bytes]:
        return [
            name
            for batch in dataset.evaluation_examples(data, "eval", 4)
            for name in batch["filename"].numpy().tolist()
        ]

    def batches(data: Manifest) -> list[list[int]]:
        options = {
            "preproc_fn": lambda image, width, height: image,
            "image_size": SIZE,
            "batch_size": 4,
            "batches": 2,
            "shuffle": True,
        }
        return [
            images.numpy()[:, 0, 0, 0].astype(int).tolist()
            for images, _ in dataset.evaluation_batches(data, CLASS_DICT, **options)
        ]

    assert names(remote) == names(local)
    assert batches(remote) == batches(local)


def test_a_data_set_may_have_local_and_remote_shards(local, remote, cache):
    cache(10**6)
    split = local.splits["train"]
    folders = [remote.folder if index % 2 else local.folder for index in range(SHARDS)]
    shards = [
        dataclasses.replace(shard, path=storage.join(folder, shard.path))
        for folder, shard in zip(folders, split.shards, strict=True)
    ]
    mixed = dataclasses.replace(local, splits={"train": dataclasses.replace(split, shards=tuple(shards))})
    assert numbers_of(mixed, steps=10) == numbers_of(local, steps=10)


def test_local_shards_are_read_without_a_detour(local):
    graph = dataset.evaluation_examples(local, "eval", 4)._as_serialized_graph().numpy()
    assert b"TFRecordDataset" in graph
    assert b"PyFunc" not in graph


def test_epochs_that_fit_into_the_cache_download_each_shard_once(service, remote, cache):
    cache(10**6)
    numbers_of(remote, steps=30)  # nearly five epochs
    assert downloads(service) == {shard.path: 1 for shard in remote.splits["train"].shards}


@pytest.mark.slow
def test_the_cache_keeps_to_its_bound_but_for_the_shards_that_are_read(remote, cache):
    largest = max(shard.bytes for shard in remote.splits["train"].shards)
    tiny = cache(3 * largest)
    peak = 0
    iterator = iter(batches_of(remote, steps=30))
    for _ in iterator:
        peak = max(peak, bytes_in(tiny))
    del iterator
    gc.collect()
    # Eight are read in turn; one more is fetched before the one that it replaces is removed.
    assert 0 < peak <= 9 * largest
    assert bytes_in(tiny) <= 3 * largest


def test_a_shard_that_was_announced_is_fetched_once(service, remote, cache):
    shards_cache = cache(10**6)
    path, shard = remote.shard_paths("train")[0], remote.splits["train"].shards[0]
    shards_cache.prefetch(path, shard)
    with shards_cache.open(path, shard) as local:
        assert tfrecord.file_crc32c(local) == shard.crc32c
    assert downloads(service) == {shard.path: 1}


def test_the_least_recently_used_shard_goes_first_and_none_that_is_read_or_awaited(service, remote, cache):
    paths, shards = remote.shard_paths("train")[:3], remote.splits["train"].shards[:3]
    shards_cache = cache(shards[0].bytes + shards[1].bytes)
    with shards_cache.open(paths[0], shards[0]) as first:
        shards_cache.prefetch(paths[1], shards[1])
        shards_cache.prefetch(paths[2], shards[2])  # it does not fit: it is fetched when it is needed
        with shards_cache.open(paths[1], shards[1]) as second:
            assert os.path.exists(first)
    with shards_cache.open(paths[2], shards[2]):
        assert not os.path.exists(first)
        assert os.path.exists(second)
    assert downloads(service) == {shard.path: 1 for shard in shards}


def test_an_evaluation_that_stops_early_releases_its_shards(remote, cache):
    shards_cache = cache(0)
    for _ in range(3):
        iterator = iter(batches_of(remote, steps=1))
        next(iterator)
        del iterator
        gc.collect()
    assert bytes_in(shards_cache) == 0


@pytest.mark.parametrize("trouble", ["has changed", "is missing"])
def test_a_shard_that_differs_from_its_manifest_is_named(remote, cache, trouble):
    cache(10**6)
    path = remote.shard_paths("train")[5]
    if trouble == "has changed":
        storage.write_bytes(path, storage.read_bytes(path)[:-1])
    else:
        storage.delete(path)
    with pytest.raises(DataError, match=f"A shard {trouble}.*{path}"), bucket_shards.translate_fetch_errors():
        numbers_of(remote, steps=7)


def test_after_a_failure_the_shard_is_requested_again(service, remote, cache):
    shards_cache = cache(10**6)
    path, shard = remote.shard_paths("train")[0], remote.splits["train"].shards[0]
    content = storage.read_bytes(path)
    storage.delete(path)
    with pytest.raises(DataError, match="missing"), shards_cache.open(path, shard):
        pass
    storage.write_bytes(path, content)
    with shards_cache.open(path, shard) as local:
        assert Path(local).read_bytes() == content
