from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

from tf_image_classification import dataset, preprocessing, record_order
from tf_image_classification.data import manifest
from tf_image_classification.data.manifest import Manifest, Shard, Split, Task
from tf_image_classification.errors import DataError

CLASS_DICT = [{"name": "label", "depth": 3, "one-hot": True}]
SIZE = 4


def example(number: int, **extra) -> bytes:
    """An example whose image has its number as the colour of all its pixels."""
    image = tf.io.encode_png(np.full((SIZE, SIZE, 3), number, "uint8")).numpy()
    feature = {
        "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
        "image/filename": tf.train.Feature(bytes_list=tf.train.BytesList(value=[f"{number}.png".encode()])),
        "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[number % 3])),
        **extra,
    }
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def write(folder, split: str, numbers, shards: int, compression: str = "") -> Split:
    written = []
    for index, part in enumerate(np.array_split(np.array(list(numbers)), shards)):
        path = folder / f"{split}-{index:05}-of-{shards:05}.tfrecord"
        with tf.io.TFRecordWriter(str(path), compression) as writer:
            for number in part:
                writer.write(example(int(number)))
        written.append(Shard(path.name, len(part), path.stat().st_size, "00000000"))
    return Split(tuple(written), compression=compression)


@pytest.fixture(scope="module", params=[1, 3], ids=["one shard", "three shards"])
def data(request, tmp_path_factory) -> Manifest:
    folder = tmp_path_factory.mktemp("shards")
    splits = {
        "train": write(folder, "train", range(50), request.param),
        "eval": write(folder, "eval", range(100, 110), request.param, "GZIP"),
    }
    return Manifest((Task("label", ("a", "b", "c")),), splits, folder=str(folder))


def as_it_is(image, width, height):
    return tf.cast(image, tf.float32)


def batches_of(
    data: Manifest, *, preproc_fn=as_it_is, batch_size=8, seed=1, first_step=0, steps=10, shuffle=True, **options
) -> tf.data.Dataset:
    return dataset.training_batches(
        data,
        CLASS_DICT,
        decode_fn=preprocessing.decode_whole,
        preproc_fn=preproc_fn,
        image_size=SIZE,
        batch_size=batch_size,
        seed=seed,
        first_step=first_step,
        steps=steps,
        shuffle=shuffle,
        **options,
    )


def numbers_of(data: Manifest, **options) -> list[list[int]]:
    return [[int(number) for number in images[:, 0, 0, 0]] for images, _ in batches_of(data, **options)]


def test_the_preprocessing_of_an_estimator_may_have_conditions_on_tensors(data):
    def preproc(image, width, height):
        if tf.reduce_max(image) < 25:  # becomes tf.cond by AutoGraph, which what is ours goes without
            return tf.zeros([height, width, 3])
        return tf.cast(image, tf.float32)

    ((images, _),) = batches_of(data, preproc_fn=preproc, batch_size=50, steps=1)
    colours = images.numpy()[:, 0, 0, 0]
    assert sorted(set(colours)) == [0.0, *range(25, 50)]


def test_a_training_sees_exactly_as_many_full_batches_as_it_has_steps(data):
    batches = numbers_of(data, steps=13)
    assert [len(batch) for batch in batches] == [8] * 13


def test_every_epoch_has_every_example_once_and_batches_straddle_epochs(data):
    stream = [number for batch in numbers_of(data, batch_size=20, steps=5) for number in batch]
    assert sorted(stream[:50]) == list(range(50))
    assert sorted(stream[50:]) == list(range(50))
    assert stream[:50] != stream[50:]


def test_the_order_is_the_seeds(data):
    assert numbers_of(data, seed=1) == numbers_of(data, seed=1)
    assert numbers_of(data, seed=1) != numbers_of(data, seed=2)


def test_a_machine_of_many_cores_reads_few_shards_in_the_same_order(data, monkeypatch):
    expected = numbers_of(data)
    monkeypatch.setattr(record_order, "PARALLEL_CALLS", 16)
    assert numbers_of(data) == expected


def test_0_is_a_seed_like_others(data):
    tf.random.set_seed(0)
    assert numbers_of(data, seed=0) == numbers_of(data, seed=0)
    assert numbers_of(data, seed=0) != numbers_of(data, seed=1)


@pytest.mark.parametrize("first_step", [1, 6, 7, 12, 20])
def test_an_interrupted_training_continues_with_the_example_it_would_have_seen(data, first_step):
    whole = numbers_of(data, steps=25)
    assert numbers_of(data, first_step=first_step, steps=25 - first_step) == whole[first_step:]


def test_debug_keeps_the_order_of_the_shards(data):
    assert numbers_of(data, batch_size=50, steps=1, shuffle=False, seed=1) == [list(range(50))]


def test_labels_are_one_hot_and_belong_to_their_images(data):
    batches = dataset.training_batches(
        data,
        CLASS_DICT,
        decode_fn=preprocessing.decode_whole,
        preproc_fn=lambda image, width, height: tf.cast(image, tf.float32),
        image_size=SIZE,
        batch_size=10,
        seed=0,
        first_step=0,
        steps=2,
        shuffle=True,
    )
    for images, labels in batches:
        assert labels["label"].dtype == tf.float32
        np.testing.assert_array_equal(tf.argmax(labels["label"], 1), images[:, 0, 0, 0].numpy().astype(int) % 3)


def test_a_preprocessing_that_takes_a_seed_gets_a_different_one_for_each_example_and_epoch(data):
    seeds = []
    batches = dataset.training_batches(
        data,
        CLASS_DICT,
        decode_fn=preprocessing.decode_whole,
        preproc_fn=lambda image, width, height, seed: tf.fill([SIZE, SIZE, 3], tf.random.stateless_uniform([], seed)),
        image_size=SIZE,
        batch_size=50,
        seed=3,
        first_step=0,
        steps=2,
        shuffle=True,
    )
    for images, _ in batches:
        seeds += list(images[:, 0, 0, 0].numpy())
    assert len(set(seeds)) == 100


def test_an_evaluation_sees_the_same_examples_each_time_and_ends_with_the_set(data):
    def examples(batches: int) -> list[int]:
        found = dataset.evaluation_batches(
            data,
            CLASS_DICT,
            preproc_fn=lambda image, width, height: tf.cast(image, tf.float32),
            image_size=SIZE,
            batch_size=4,
            batches=batches,
            shuffle=True,
        )
        return [int(number) for images, _ in found for number in images[:, 0, 0, 0]]

    assert sorted(examples(5)) == list(range(100, 110))
    assert len(examples(2)) == 8
    assert examples(2) == examples(2)


def test_evaluation_examples_are_undecoded_with_their_names_and_ids(data):
    rows = [
        row
        for batch in dataset.evaluation_examples(data, manifest.EVAL, 4)
        for row in zip(*flatten(batch), strict=True)
    ]
    assert [name.decode() for _, name, _ in rows] == [f"{number}.png" for number in range(100, 110)]
    assert [label for _, _, label in rows] == [number % 3 for number in range(100, 110)]
    assert all(image.startswith(b"\x89PNG") for image, _, _ in rows)


def flatten(batch) -> tuple[np.ndarray, ...]:
    return batch["image_bytes"].numpy(), batch["filename"].numpy(), batch["labels"]["label"].numpy()


def test_the_originals_gzip_records_are_read(mini_mnist):
    path = mini_mnist / "dataset" / "tf_records" / "train-00000-of-00001.tfrecord.gz"
    split = Split((Shard(str(path), 418, path.stat().st_size, ""),), schema=manifest.ORIGINAL, compression="GZIP")
    task = Task("class_id", tuple(str(digit) for digit in range(10)), feature="class_id")
    data = Manifest((task,), {"train": split}, folder="/")
    counts: Counter[int] = Counter()
    for batch in dataset.evaluation_examples(data, "train", 64):
        counts.update(batch["labels"]["class_id"].numpy().tolist())
    assert sum(counts.values()) == 418
    assert set(counts) == set(range(10))


def spec_task(name="label", depth=3, one_hot=True) -> dict:
    return {"name": name, "depth": depth, "one-hot": one_hot}


def test_the_only_task_of_a_spec_is_the_only_task_of_the_data_whatever_their_names(data):
    (task,) = dataset.with_tasks(data, [spec_task("class_id")]).tasks
    assert task == Task("class_id", ("a", "b", "c"), "image/class/label")


def test_several_tasks_are_matched_by_name_in_the_specs_order():
    data = Manifest((Task("age", ("young", "old")), Task("gender", ("f", "m")), Task("mood", ("sad", "glad"))), {})
    assert [task.name for task in dataset.with_tasks(data, [spec_task("gender", 2), spec_task("age", 2)]).tasks] == [
        "gender",
        "age",
    ]
    with pytest.raises(DataError, match=r"predicts name.*age, gender, mood"):
        dataset.with_tasks(data, [spec_task("name", 2)])


def test_a_depth_that_is_not_the_number_of_classes_is_an_error(data):
    with pytest.raises(DataError, match="3 classes in the data"):
        dataset.with_tasks(data, [spec_task(depth=7)])


def test_a_number_is_predicted_from_numbers_and_never_from_class_ids(data):
    for labels in ((), ("0", "1", "2")):
        numbers = Manifest((Task("label", labels),), {})
        assert dataset.with_tasks(numbers, [spec_task("age", 1, one_hot=False)]).tasks == (Task("age", ()),)
    with pytest.raises(DataError, match=r"predicts label as a number, but the data has classes.*a, b, c"):
        dataset.with_tasks(data, [spec_task(depth=1, one_hot=False)])
    with pytest.raises(DataError, match="numbers in the data, not class ids"):
        dataset.with_tasks(Manifest((Task("label", ()),), {}), [spec_task()])
