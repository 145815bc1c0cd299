"""Whatever features a record has: the build refuses it in words, or training and evaluation parse what it accepted."""

from __future__ import annotations

import itertools
import logging
import random
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
import tensorflow as tf

from tests.build_tfrecords.records import picture, write
from tf_image_classification import build_tfrecords, dataset, preprocessing
from tf_image_classification.build_tfrecords import ReadOptions
from tf_image_classification.data import manifest
from tf_image_classification.errors import UserError

FILES = 300
SEED = 11

JPEG, PNG = picture("JPEG"), picture()
# Schema -> the names of its image, label, text and file name.
SCHEMAS = {
    "slim": ("image/encoded", "image/class/label", "image/class/text", "image/filename"),
    "original": ("image_bytes", "age", "text", "image_uri"),
    "tfds": ("image", "label", "text", "image/filename"),
}
IMAGES = [b"", b"\x89PNG", JPEG[:40], PNG[:-12], picture("GIF"), bytes(192), b"\xff\xd8\xff", PNG + b"more", JPEG + PNG]
TEXTS = [b"", b"cat", b"caf\xe9", "チ\u2028ャ".encode(), b"\0", b" ", b"a\nb", b"\xff\xfe", b"x" * 5000]
INTEGERS = [0, 1, 2, -1, 7, 99_999, 100_000, 2**31, 2**53 + 1, 2**63 - 1, -(2**63)]
FLOATS = [0.0, 1.0, 0.5, -1.0, 3e38, float("nan"), float("inf"), -0.0, 1e-45]

Values = list[bytes] | list[int] | list[float]


def feature(values: Values, kind: str) -> tf.train.Feature:
    if kind == "bytes":
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
    if kind == "int64":
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def good(schema: str, label: int) -> dict[str, tf.train.Feature]:
    image, label_name, *_ = SCHEMAS[schema]
    value = ([float(label)], "float") if schema == "original" else ([label], "int64")
    return {image: feature([PNG], "bytes"), label_name: feature(*value)}


def odd(rng: random.Random, schema: str) -> dict[str, tf.train.Feature]:
    """A record of which one or two features are anything."""
    features = good(schema, rng.randrange(2))
    for name in rng.sample([*SCHEMAS[schema], "image/height", "image/class/extra/label"], rng.randint(1, 2)):
        usual = "float" if name == "age" else "int64" if name.endswith("label") else "bytes"
        kind = rng.choice([*[usual] * 6, "bytes", "int64", "float", "missing", "unset"])
        pool = {"bytes": [*IMAGES, *TEXTS, *[PNG, JPEG] * 5], "int64": INTEGERS, "float": FLOATS}.get(kind, [])
        if kind == "missing":
            features.pop(name, None)
        elif kind == "unset":
            features[name] = tf.train.Feature()
        else:
            features[name] = feature([rng.choice(pool) for _ in range(rng.choice([0, *[1] * 8, 2, 3]))], kind)
    return features


def damaged(rng: random.Random, record: bytes) -> bytes:
    """A serialised record with bytes changed, cut out, doubled, or with another record behind it."""
    place, length = rng.randrange(len(record)), rng.randint(1, 12)
    match rng.randrange(5):
        case 0:
            return record[:place]
        case 1:
            return record[:place] + rng.randbytes(length) + record[place + length :]
        case 2:
            return record[:place] + record[place + length :]
        case 3:
            return record[:place] + record[place : place + length] + record[place:]
        case _:
            return record + record[: rng.choice([place, len(record)])]


def examples(rng: random.Random, schema: str) -> list[bytes]:
    records = []
    for features in (good(schema, 0), good(schema, 1), odd(rng, schema)):
        records.append(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    if rng.random() < 0.2:
        records[2] = damaged(rng, records[rng.randint(1, 2)])
    return records


def parse(data: manifest.Manifest) -> int:
    """Runs every example through the input pipelines of training, of its evaluations, and of the evaluate step."""
    entries = [{"name": task.name, "depth": len(task.labels) or 1, "one-hot": bool(task.labels)} for task in data.tasks]
    common = {"image_size": 8, "batch_size": 4, "shuffle": False}
    decode = {"decode_fn": lambda encoded, width, height, seed: preprocessing.decode(encoded)}

    def preproc(image, width, height):
        return tf.image.resize(tf.cast(image, tf.float32), (height, width))

    steps = -(-data.splits["train"].examples // 4)
    training = dataset.training_batches(
        data, entries, preproc_fn=preproc, seed=1, first_step=0, steps=steps, **decode, **common
    )
    evaluation = dataset.evaluation_batches(data, entries, preproc_fn=preproc, batches=steps, **common)
    batches = itertools.chain(training, evaluation)
    assert all(images.shape[1:] == (8, 8, 3) for images, _ in batches)
    return sum(len(batch["image_bytes"]) for batch in dataset.evaluation_examples(data, "eval", 4))


@pytest.fixture
def accepted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> list[manifest.Manifest]:
    """The data sets that were built; each other file was refused with a UserError."""
    rng, built, refused = random.Random(SEED), [], 0
    caplog.set_level(logging.CRITICAL)
    for number in range(FILES):
        schema = rng.choice(list(SCHEMAS))
        options = ReadOptions(image_feature="image", label_feature="label") if schema == "tfds" else ReadOptions()
        path = write(tmp_path / f"{number}.tfrecord", examples(rng, schema))
        try:
            data = build_tfrecords.build(
                path, str(tmp_path / "data"), eval_metadata=path, options=options, allow_missing_classes=True,
                fingerprint="f", workers=1,
            )  # fmt: skip
            built.append(data)
        except UserError as error:
            assert "record" in str(error) or "TFRecords" in str(error), str(error)
            refused += 1
    print(f"{FILES} files: {len(built)} accepted, {refused} refused")
    assert min(len(built), refused) > FILES / 5
    return built


@pytest.mark.slow
def test_what_the_build_accepts_is_parsed_by_every_input_pipeline(accepted):
    alike = defaultdict(list)
    for data in accepted:
        tasks = tuple((task.name, task.feature, bool(task.labels)) for task in data.tasks)
        alike[data.splits["train"].schema, data.splits["train"].image_feature, tasks].append(data)
    for together in alike.values():
        first = together[0]
        splits = {}
        for name, split in first.splits.items():
            shards = tuple(shard for data in together for shard in data.splits[name].shards)
            splits[name] = replace(split, shards=shards)
        assert parse(replace(first, splits=splits)) == 3 * len(together)
