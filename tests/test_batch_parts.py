"""Each worker of a cluster reads its part of every global batch; together they read what one process would."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from tests.test_dataset import CLASS_DICT, SIZE, example, write
from tests.test_own_estimator import changed
from tests.training.support import train
from tf_image_classification import augmentation, built_in_estimator, dataset
from tf_image_classification.data import manifest
from tf_image_classification.data.batch_part import BatchPart
from tf_image_classification.data.manifest import Manifest, Shard, Split, Task
from tf_image_classification.errors import FlagError

BATCH = 12
STEPS = 10  # of an epoch of 50 examples, which ends in the fifth batch
MIXINGS = {"plain": (0.0, 0.0), "mixup": (0.3, 0.0), "mixup or cutmix": (0.3, 1.0)}


@pytest.fixture(scope="module")
def data_sets(tmp_path_factory) -> dict[int, Manifest]:
    """50 examples in one shard and in five."""
    made = {}
    for shards in (1, 5):
        folder = tmp_path_factory.mktemp("shards")
        split = write(folder, "train", range(50), shards)
        made[shards] = Manifest((Task("label", ("a", "b", "c")),), {"train": split}, folder=str(folder))
    return made


def decode(encoded, width, height, seed):
    return tf.io.decode_png(encoded, channels=3)


def augmented(image, width, height, seed):
    """Keeps the example's number in the first channel, without mixing, and has noise of its seed in the others."""
    noise = tf.random.stateless_uniform([SIZE, SIZE, 2], seed)
    return tf.concat([tf.cast(image[:, :, :1], tf.float32), noise], axis=-1)


def batches_of(data, part=None, *, first_step=0, steps=STEPS, mixing="plain", **options):
    """(images, labels) of each batch, as arrays."""
    mixup, cutmix = MIXINGS[mixing]
    options = {"decode_fn": decode, "preproc_fn": augmented, "shuffle": True} | options
    batches = dataset.training_batches(
        data,
        CLASS_DICT,
        image_size=SIZE,
        batch_size=BATCH,
        seed=3,
        first_step=first_step,
        steps=steps,
        mix_fn=augmentation.mixer(SimpleNamespace(mixup=mixup, cutmix=cutmix)),
        part=part,
        **options,
    )
    assert batches.element_spec[0].shape[0] == (part.examples_each(BATCH) if part else BATCH)
    return [(images.numpy(), labels["label"].numpy()) for images, labels in batches]


def put_together(of_workers):
    """The global batches of workers' parts, each a list of the batches of its steps."""
    steps = zip(*of_workers, strict=True)
    return [tuple(np.concatenate(tensors) for tensors in zip(*parts, strict=True)) for parts in steps]


def assert_same(batches, expected):
    for (images, labels), (expected_images, expected_labels) in zip(batches, expected, strict=True):
        np.testing.assert_array_equal(images, expected_images)
        np.testing.assert_array_equal(labels, expected_labels)


@pytest.mark.parametrize(
    ("shards", "mixing", "workers"),
    [
        (5, "plain", 4),
        (1, "plain", 2),
        (5, "mixup or cutmix", 3),
        *(
            pytest.param(shards, mixing, workers, marks=pytest.mark.slow)
            for shards in (1, 5)
            for mixing in MIXINGS
            for workers in (1, 2, 3, 4, 12)
        ),
    ],
)
def test_the_parts_of_all_workers_are_the_batches_of_one_process_bit_for_bit(data_sets, shards, mixing, workers):
    parts = [batches_of(data_sets[shards], BatchPart(worker, 1, workers), mixing=mixing) for worker in range(workers)]
    assert_same(put_together(parts), batches_of(data_sets[shards], mixing=mixing))


@pytest.mark.slow
@pytest.mark.parametrize("streams", [2, 3, 4])
@pytest.mark.parametrize("mixing", MIXINGS)
@pytest.mark.parametrize("workers", [1, 2, 3, 4, 12])
def test_the_parts_of_streams_are_the_batches_of_one_process_that_reads_all_streams(
    data_sets, streams, mixing, workers
):
    options = {"streams": streams, "mixing": mixing}
    parts = [batches_of(data_sets[5], BatchPart(worker, 1, workers), **options) for worker in range(workers)]
    assert_same(put_together(parts), batches_of(data_sets[5], **options))


@pytest.mark.parametrize(
    ("mixing", "part"),
    [
        ("plain", BatchPart(1, 2, 3)),
        ("mixup", BatchPart(0, 2, 4)),
        pytest.param("mixup", BatchPart(0, 4, 4), marks=pytest.mark.slow),
    ],
)
def test_a_worker_with_several_devices_has_a_batch_for_each_of_them_in_every_step(data_sets, mixing, part):
    found = iter(batches_of(data_sets[5], part, mixing=mixing))
    each = BATCH // part.total
    for images, labels in batches_of(data_sets[5], mixing=mixing):
        for number in range(part.first, part.first + part.count):
            assert_same([next(found)], [(images[number * each :][:each], labels[number * each :][:each])])
    assert next(found, None) is None


@pytest.mark.parametrize(
    ("streams", "before", "after"),
    [(1, 4, 2), (4, 2, 1), *(pytest.param(4, *workers, marks=pytest.mark.slow) for workers in [(4, 2), (3, 4)])],
)
def test_workers_stop_and_others_go_on_with_the_same_examples_each_once_per_epoch(data_sets, streams, before, after):
    log = []
    for workers, first_step, steps in [(before, 0, 7), (after, 7, 18)]:
        parts = [BatchPart(worker, 1, workers) for worker in range(workers)]
        options = {"streams": streams, "first_step": first_step, "steps": steps}
        log += put_together([batches_of(data_sets[5], part, **options) for part in parts])
    assert_same(log, batches_of(data_sets[5], steps=25, streams=streams))
    stream = [int(number) for images, _ in log for number in images[:, 0, 0, 0]]
    epochs = [stream[epoch * 50 : (epoch + 1) * 50] for epoch in range(6)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 6


def test_streams_are_not_more_than_shards(data_sets):
    with pytest.raises(FlagError, match=r"--shard_streams 6, 5 shards of training images. Expected: --shard_streams 5"):
        batches_of(data_sets[5], streams=6)


def test_the_flag_is_what_training_batches_are_read_by(built_data, training_flags):
    spec = built_in_estimator.BuiltInEstimator()
    spec.flags = training_flags(shard_streams=2)
    spec.set_default_class_dict(built_data.tasks)
    batches = spec.input_fn(built_data, is_training=True, batch_size=8, image_size=16, steps=1)
    with pytest.raises(FlagError, match=r"A stream has to have a shard of its own.*2, 1 shards"):
        batches()


@pytest.mark.parametrize(
    ("streams", "spec", "message"),
    [
        (3, None, "Received: --batch_size 8 --shard_streams 3. Expected: a --batch_size that"),
        (2, changed(input_fn=None), "--shard_streams has no effect: Changed reads batches of its own"),
    ],
)
def test_streams_without_effect_are_refused_before_training(built_data, training_flags, streams, spec, message):
    with pytest.raises(FlagError, match=message):
        train(built_data, training_flags(shard_streams=streams), spec)


@pytest.mark.parametrize("mixing", ["plain", "mixup"])
def test_what_is_of_another_part_is_neither_parsed_nor_decoded(tmp_path, mixing):
    """But with mixing, the image that the first one of a part is mixed with."""
    readable = range(6, 9) if mixing == "plain" else range(5, 9)
    path = tmp_path / "train.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number in range(2 * BATCH):
            writer.write(example(number) if number % BATCH in readable else b"no example")
    split = Split((Shard(str(path), 2 * BATCH, path.stat().st_size, ""),))
    data = Manifest((Task("label", ("a", "b", "c")),), {"train": split})
    batches = batches_of(data, BatchPart(2, 1, 4), steps=2, mixing=mixing, shuffle=False)
    assert [len(images) for images, _ in batches] == [3, 3]
    with pytest.raises(tf.errors.InvalidArgumentError, match="parse"):
        batches_of(data, BatchPart(1, 1, 4), steps=2, mixing=mixing, shuffle=False)


def test_the_originals_gzip_records_are_read_in_parts(mini_mnist):
    path = mini_mnist / "dataset" / "tf_records" / "train-00000-of-00001.tfrecord.gz"
    split = Split((Shard(str(path), 418, path.stat().st_size, ""),), schema=manifest.ORIGINAL, compression="GZIP")
    data = Manifest((Task("label", ("0", "1", "2"), feature="class_id"),), {"train": split}, folder="/")
    options = {"first_step": 30, "preproc_fn": lambda image, width, height: tf.image.resize(image, (height, width))}
    parts = [batches_of(data, BatchPart(worker, 1, 3), **options) for worker in range(3)]
    assert_same(put_together(parts), batches_of(data, **options))


def own_input(data, *, is_training, batch_size, image_size, steps, **options):
    """Batches of images that are filled with their number."""
    numbers = tf.data.Dataset.range(batch_size * steps).map(lambda number: tf.cast(number, tf.float32))
    examples = numbers.map(lambda number: (tf.fill([image_size, image_size, 3], number), {"label": number}))
    return lambda: examples.batch(batch_size)


def numbers_of_part(spec, part, batch_size=BATCH):
    options = {"image_size": SIZE, "steps": 2, "first_step": 0, "seed": 1, "shuffle": True}
    batches = spec.step_input(None, part, batch_size=batch_size, **options)()
    found = [(images.numpy()[:, 0, 0, 0].tolist(), labels["label"].numpy().tolist()) for images, labels in batches]
    assert all(images == labels for images, labels in found)
    return [images for images, _ in found]


def test_batches_of_an_own_input_fn_are_cut_into_parts_and_that_is_said(caplog):
    spec = changed(input_fn=lambda self, data, **options: own_input(data, **options))
    with caplog.at_level(logging.INFO):
        assert numbers_of_part(spec, BatchPart(1, 1, 3)) == [[4, 5, 6, 7], [16, 17, 18, 19]]
    assert caplog.text.count("Changed.input_fn has no parameter `part`: each worker decodes whole batches") == 1
    assert numbers_of_part(spec, BatchPart(1, 2, 4)) == [[3, 4, 5], [6, 7, 8], [15, 16, 17], [18, 19, 20]]
    assert numbers_of_part(spec, BatchPart(0, 2, 2)) == [
        [*range(6)],
        [*range(6, 12)],
        [*range(12, 18)],
        [*range(18, 24)],
    ]


def test_an_own_input_fn_that_knows_parts_reads_its_own():
    def input_fn(self, data, *, part=None, batch_size, **options):
        assert part == BatchPart(1, 1, 3)
        return own_input(data, batch_size=part.examples_each(batch_size), **options)

    assert numbers_of_part(changed(input_fn=input_fn), BatchPart(1, 1, 3)) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_batches_of_an_own_input_fn_that_are_no_global_batches_are_an_error():
    def input_fn(self, data, *, batch_size, **options):
        return own_input(data, batch_size=batch_size - 1, **options)

    with pytest.raises(tf.errors.InvalidArgumentError, match="has to return batches of --batch_size examples"):
        numbers_of_part(changed(input_fn=input_fn), BatchPart(1, 1, 3))


@pytest.mark.parametrize("part", [(0, 0, 2), (-1, 1, 2), (1, 2, 2)])
def test_parts_that_do_not_exist_are_an_error(part):
    with pytest.raises(ValueError, match="names no parts"):
        BatchPart(*part)


def test_a_batch_is_cut_into_equal_parts_only():
    with pytest.raises(ValueError, match="12 examples cannot be cut into 5 equal parts"):
        batches_of(None, BatchPart(0, 1, 5))
