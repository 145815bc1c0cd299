from __future__ import annotations

import contextlib
import gzip
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tf_image_classification.data import tfrecord
from tf_image_classification.errors import DataError

RECORDS = [b"", b"one", bytes(range(256)) * 500]


def write(path: Path, records: list[bytes]) -> str:
    path.write_bytes(b"".join(tfrecord.frame(record) for record in records))
    return str(path)


@contextlib.contextmanager
def traced() -> Iterator[Callable[[], int]]:
    """Gives a function that returns the most bytes that Python has allocated in the block."""
    tracemalloc.start()
    peaks: list[int] = []
    try:
        yield lambda: peaks[0]
    finally:
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()


@pytest.mark.parametrize("compression", ["", "GZIP"])
def test_reads_what_tensorflow_wrote(tmp_path, compression):
    import tensorflow as tf

    path = str(tmp_path / "x.tfrecord")
    with tf.io.TFRecordWriter(path, tf.io.TFRecordOptions(compression)) as writer:
        for record in RECORDS:
            writer.write(record)
    assert tfrecord.compression(path) == compression
    assert list(tfrecord.read(path)) == RECORDS


def test_tensorflow_reads_what_is_framed_here(tmp_path):
    import tensorflow as tf

    assert [record.numpy() for record in tf.data.TFRecordDataset(write(tmp_path / "x", RECORDS))] == RECORDS


def test_an_empty_file_holds_no_records(tmp_path):
    assert list(tfrecord.read(write(tmp_path / "x", []))) == []


def test_every_damage_is_noticed_and_the_record_is_named(tmp_path):
    whole = Path(write(tmp_path / "x", [b"first", b"second record"])).read_bytes()
    for position in range(21, len(whole)):  # from the second record on
        path = tmp_path / "damaged"
        for damaged in (whole[:position], whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :]):
            path.write_bytes(damaged)
            if damaged == whole[:21]:
                continue  # ends between two records
            with pytest.raises(DataError, match="record 1, counted from 0"):
                list(tfrecord.read(str(path)))


def test_a_truncated_gzip_file_is_noticed(tmp_path):
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(b"".join(map(tfrecord.frame, RECORDS)))[:-20])
    with pytest.raises(DataError, match="not a whole TFRecord file"):
        list(tfrecord.read(str(path)))


def test_a_record_that_a_gzip_file_unpacks_to_many_times_its_size_is_refused_before_it_takes_memory(tmp_path):
    path = tmp_path / "zeros.gz"
    path.write_bytes(gzip.compress(tfrecord.frame(bytes(2**26))))
    assert path.stat().st_size < 2**17
    with (
        traced() as peak,
        pytest.raises(DataError, match="a record is too large: it has 67,108,864 bytes, and at most 16,777,216"),
    ):
        list(tfrecord.read(str(path)))
    assert peak() < 2**22


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_record_above_the_readers_limit_is_refused(tmp_path, pack):
    path = tmp_path / "x"
    path.write_bytes(pack(tfrecord.frame(bytes(1000))))
    assert list(tfrecord.read(str(path), 1000)) == [bytes(1000)]
    with pytest.raises(DataError, match="a record is too large: it has 1,000 bytes, and at most 999 are read"):
        list(tfrecord.read(str(path), 999))


def test_a_record_of_many_floats_may_compress_well(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(gzip.compress(tfrecord.frame(bytes(2**23))))
    assert [len(record) for record in tfrecord.read(str(path))] == [2**23]


def test_gzip_records_that_together_unpack_to_many_times_their_file_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tfrecord, "_MAY_UNPACK", 2**16)
    path = tmp_path / "x"
    path.write_bytes(gzip.compress(100 * tfrecord.frame(bytes(2**12))))
    records = tfrecord.read(str(path))
    assert sum(len(next(records)) for _ in range(16)) == 2**16
    with pytest.raises(DataError, match="unpack to more than 32 times their size"):
        next(records)


def test_a_length_that_is_not_there_takes_no_memory(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(gzip.compress(tfrecord.frame(bytes(2**24))[:100]))
    with traced() as peak, pytest.raises(DataError, match="it ends within a record"):
        list(tfrecord.read(str(path)))
    assert peak() < 2**22


def test_another_file_is_not_taken_for_tfrecords(tmp_path):
    path = tmp_path / "x.jpg"
    path.write_bytes(b"\xff\xd8\xff\xe0 certainly not a TFRecord file")
    with pytest.raises(DataError, match="Expected: TFRecords"):
        list(tfrecord.read(str(path)))


def test_tensorflow_parses_an_encoded_example():
    import tensorflow as tf

    record = tfrecord.encode_example({"image": b"\0\xff", "id": -(2**40), "age": 1.5})
    parsed = tf.io.parse_single_example(
        record,
        {
            "image": tf.io.FixedLenFeature([], tf.string),
            "id": tf.io.FixedLenFeature([], tf.int64),
            "age": tf.io.FixedLenFeature([], tf.float32),
        },
    )
    assert {name: value.numpy() for name, value in parsed.items()} == {"image": b"\0\xff", "id": -(2**40), "age": 1.5}


def test_an_example_that_tensorflow_serialised_is_parsed():
    import tensorflow as tf

    example = tf.train.Example()
    example.features.feature["ids"].int64_list.value.extend([3, -1])
    example.features.feature["text"].bytes_list.value.append(b"cat")
    example.features.feature["none"].SetInParent()
    assert tfrecord.parse_example(example.SerializeToString()) == {"ids": [3, -1], "text": [b"cat"], "none": []}


def test_equal_features_give_equal_bytes_in_any_order():
    features = {f"feature {number}": number for number in range(50)}
    assert tfrecord.encode_example(features) == tfrecord.encode_example(dict(reversed(features.items())))


def test_what_is_no_example_is_a_value_error():
    with pytest.raises(ValueError, match=r"not a tf\.train\.Example"):
        tfrecord.parse_example(b"\xff\xff\xff")


def test_the_reading_imports_no_tensorflow():
    code = (
        "import sys, tf_image_classification.data.tfrecord as t; t.encode_example({'a': 1}); "
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
