"""TFRecord files and tf.train.Example messages, without TensorFlow.

Sources of the formats: https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details for the framing
and its masked CRC-32C; tensorflow/core/example/{example,feature}.proto for the messages.
"""

from __future__ import annotations

import functools
import gzip
import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

import google_crc32c

from tf_image_classification.errors import DataError

GZIP = "GZIP"
_GZIP_MAGIC = b"\x1f\x8b"
_HEADER, _CRC = struct.Struct("<QI"), struct.Struct("<I")
_MASK_DELTA = 0xA282EAD8  # kMaskDelta in tensorflow/core/lib/hash/crc32c.h
_MAX_RECORD_BYTES = 2**31  # the limit of a protobuf message
# Of a record in a gzip file: images hardly compress. One of up to 16 MiB may, such as one with thousands of floats.
_MAX_RATIO, _MAY_COMPRESS = 16, 2**24
# Of all records in gzip files: training holds as many of them as have 64 MiB when compressed, to shuffle among.
_MAX_TOTAL_RATIO, _MAY_UNPACK = 32, 2**28
_BLOCK = 2**20

FeatureValue = bytes | int | float
Features = dict[str, Sequence[FeatureValue]]


def frame(record: bytes) -> bytes:
    """A record as a TFRecord file holds it: length, masked CRC of the length, record, masked CRC of the record."""
    length = struct.pack("<Q", len(record))
    return b"".join((length, _CRC.pack(_masked_crc(length)), record, _CRC.pack(_masked_crc(record))))


def compression(path: str) -> str:
    """How a local TFRecord file is compressed, as tf.data.TFRecordDataset takes it: '' or 'GZIP'. Its first bytes
    decide, not its name."""
    with open(path, "rb") as file:
        return GZIP if file.read(2) == _GZIP_MAGIC else ""


def read(path: str, max_bytes: int = _MAX_RECORD_BYTES) -> Iterator[bytes]:
    """The records of a local TFRecord file, plain or gzip, one at a time; every CRC is checked.

    Args:
        path: of the file.
        max_bytes: of a record. Of a gzip file, none is above 16 MiB and 16 times the size of the file either, and all
            together are as `check_unpacked` has it.

    Raises:
        DataError: the file is truncated or damaged, or a record is too large; names the record, counted from 0.
    """
    zipped = compression(path) == GZIP
    size = os.path.getsize(path)
    if zipped:
        max_bytes = min(max_bytes, max(_MAX_RATIO * size, _MAY_COMPRESS))
    with gzip.open(path, "rb") if zipped else open(path, "rb") as file:
        index = total = 0
        while True:
            try:
                record = _read_record(file, max_bytes, None if zipped else size)
            except (EOFError, gzip.BadGzipFile, zlib.error, ValueError) as error:
                raise DataError(
                    f"{path} is not a whole TFRecord file: {error}",
                    received=f"record {index}, counted from 0",
                    expected="TFRecords, uncompressed or gzip",
                ) from error
            if record is None:
                return
            total += len(record)
            check_unpacked(total, size, path)
            yield record
            index += 1


def check_unpacked(record_bytes: int, file_bytes: int, path: str) -> None:
    """Refuses gzip files of far more records than data have.

    Args:
        record_bytes: of the records so far.
        file_bytes: of the files.
        path: of the files, for the message.

    Raises:
        DataError: the records are above 256 MiB and 32 times the size of the files.
    """
    if record_bytes > max(_MAX_TOTAL_RATIO * file_bytes, _MAY_UNPACK):
        raise DataError(
            f"Gzip TFRecords unpack to more than {_MAX_TOTAL_RATIO} times their size",
            received=f"{path}: {record_bytes:,} bytes or more out of {file_bytes:,}",
            expected="images, which hardly compress",
            hint="Write the TFRecords without compression if their content is what it should be.",
        )


def _read_record(file: IO[bytes] | gzip.GzipFile, max_bytes: int, file_bytes: int | None) -> bytes | None:
    header = file.read(_HEADER.size)
    if not header:
        return None
    if len(header) < _HEADER.size:
        raise ValueError("it ends within the length of a record")
    length, crc = _HEADER.unpack(header)
    if _masked_crc(header[:8]) != crc:
        raise ValueError("the CRC of a record's length is wrong")
    if file_bytes is not None and length > file_bytes:
        raise ValueError("it ends within a record")
    if length > max_bytes:
        raise ValueError(
            f"a record is too large: it has {length:,} bytes, and at most {max_bytes:,} are read (--max_image_mib; of "
            f"a gzip file at most {_MAX_RATIO} times its size)"
        )
    record, expected = _read_whole(file, length), _read_whole(file, _CRC.size)
    if _masked_crc(record) != _CRC.unpack(expected)[0]:
        raise ValueError("the CRC of a record is wrong")
    return record


def _read_whole(file: IO[bytes] | gzip.GzipFile, length: int) -> bytes:
    """So many bytes, in blocks: a length that is not there takes no memory."""
    blocks = []
    while length:
        if not (block := file.read(min(length, _BLOCK))):
            raise ValueError("it ends within a record")
        blocks.append(block)
        length -= len(block)
    return blocks[0] if len(blocks) == 1 else b"".join(blocks)


def file_crc32c(path: str) -> str:
    """CRC-32C of a whole local file, as 8 hexadecimal digits."""
    crc = 0
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            crc = google_crc32c.extend(crc, block)
    return f"{crc:08x}"


def encode_example(features: Mapping[str, FeatureValue]) -> bytes:
    """A serialised tf.train.Example of one value per feature: bytes, int (int64) or float (float32). Equal features
    give equal bytes."""
    example = _example_class()()
    target = example.features.feature
    for name, value in features.items():
        if isinstance(value, bytes):
            target[name].bytes_list.value.append(value)
        elif isinstance(value, int):
            target[name].int64_list.value.append(value)
        else:
            target[name].float_list.value.append(value)
    serialised: bytes = example.SerializeToString(deterministic=True)
    return serialised


def parse_example(record: bytes) -> Features:
    """The features of a serialised tf.train.Example, by name.

    Raises:
        ValueError: the record is not a tf.train.Example, or in an encoding that TensorFlow's own parser need not read:
            it does not merge a field that comes twice, and stops at unknown ones.
    """
    from google.protobuf.message import DecodeError

    try:
        example = _example_class().FromString(record)
    except DecodeError as error:
        raise ValueError(f"a record is not a tf.train.Example: {error}") from error
    example.DiscardUnknownFields()
    if example.ByteSize() != len(record):
        raise ValueError(
            "a record is not a tf.train.Example in the standard encoding: it has doubled or unknown fields"
        )
    parsed: Features = {}
    for name, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        parsed[name] = getattr(feature, kind).value if kind else []  # as a list it would take several times the memory
    return parsed


@functools.cache
def _example_class() -> Any:
    """The message class of tf.train.Example, in a descriptor pool of its own: the default one may hold
    TensorFlow's."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kind = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="tensorflow", syntax="proto3")

    for name, value_type in (
        ("BytesList", kind.TYPE_BYTES),
        ("FloatList", kind.TYPE_FLOAT),
        ("Int64List", kind.TYPE_INT64),
    ):
        value = file.message_type.add(name=name).field.add(
            name="value", number=1, label=kind.LABEL_REPEATED, type=value_type
        )
        if value_type != kind.TYPE_BYTES:
            value.options.packed = True

    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, name in enumerate(("BytesList", "FloatList", "Int64List"), start=1):
        feature.field.add(
            name=name.replace("List", "_list").lower(),
            number=number,
            label=kind.LABEL_OPTIONAL,
            type=kind.TYPE_MESSAGE,
            type_name=f".tensorflow.{name}",
            oneof_index=0,
        )

    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=kind.LABEL_OPTIONAL, type=kind.TYPE_STRING)
    entry.field.add(
        name="value", number=2, label=kind.LABEL_OPTIONAL, type=kind.TYPE_MESSAGE, type_name=".tensorflow.Feature"
    )
    features.field.add(
        name="feature",
        number=1,
        label=kind.LABEL_REPEATED,
        type=kind.TYPE_MESSAGE,
        type_name=".tensorflow.Features.FeatureEntry",
    )

    example = file.message_type.add(name="Example")
    example.field.add(
        name="features", number=1, label=kind.LABEL_OPTIONAL, type=kind.TYPE_MESSAGE, type_name=".tensorflow.Features"
    )

    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))


def _masked_crc(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF
