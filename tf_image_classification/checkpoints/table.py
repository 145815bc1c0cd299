"""TensorFlow's checkpoint files, V1 and V2, checked before TensorFlow reads their tensors.

TensorFlow reserves the memory that an entry states, and ends the process (a failed CHECK) at an invalid entry of a V2
index. Its checksums keep chance damage away; what is checked here is what somebody may have written on purpose.

An index is a table of sorted keys (tensorflow/core/lib/io/format.cc, table_builder.cc, block_builder.cc): blocks of
entries, a block of the blocks' last keys and places, and a footer.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any

from tf_image_classification.checkpoints import refusal

if TYPE_CHECKING:
    import tensorflow as tf

_FOOTER_SIZE, _MAGIC = 48, 0xDB4775248B80FB57
_TRAILER_SIZE = 5  # of a block: its compression, and a checksum
_MAX_RANK, _MAX_VALUES = 254, (1 << 63) - 1  # of TensorShape, without dimensions of 0
_FIRST_REFERENCE = 101  # DT_FLOAT_REF of types.proto


def open_checked(prefix: str, path: str) -> Any:
    """TensorFlow's reader of a checkpoint, V1 or V2, whose list of tensors was checked.

    Args:
        prefix: of its local files.
        path: what errors call it.

    Raises:
        CheckpointError: a tensor is larger than its data file.
        Exception: it is damaged: one of `refusal.read_errors`.
    """
    import tensorflow as tf

    is_v2 = os.path.exists(prefix + ".index")
    if is_v2:
        _check_v2(prefix, path)
    reader = tf.train.load_checkpoint(prefix)
    if not is_v2:
        _check_v1(reader, prefix, path)
    return reader


def _check_v2(prefix: str, path: str) -> None:
    """Checks the index of a V2 checkpoint: BundleEntryProto by name (tensorflow/core/protobuf/tensor_bundle.proto).

    For arguments and errors see `open_checked`.
    """
    import tensorflow as tf
    from tensorflow.core.protobuf.tensor_bundle_pb2 import BundleEntryProto, BundleHeaderProto

    with open(prefix + ".index", "rb") as file:
        entries = _entries(file)
        shards = BundleHeaderProto.FromString(next(entries)[1]).num_shards
        sizes = [os.path.getsize(f"{prefix}.data-{shard:05d}-of-{shards:05d}") for shard in range(shards)]
        for key, value in entries:
            entry = BundleEntryProto.FromString(value)
            # Of a partitioned variable, this is the whole's shape; its parts have entries of their own.
            in_file = sum(sizes) if entry.slices else sizes[entry.shard_id]
            shape = [dimension.size for dimension in entry.shape.dim]
            is_shape = not entry.shape.unknown_rank and len(shape) <= _MAX_RANK and min(shape, default=0) >= 0
            if not is_shape or math.prod(max(1, length) for length in shape) > _MAX_VALUES:
                raise ValueError(f"an entry of shape {shape[:8]}")
            if entry.dtype >= _FIRST_REFERENCE:
                raise ValueError(f"an entry of type {entry.dtype}")
            _check_size(key.decode(errors="replace"), tf.dtypes.as_dtype(entry.dtype), shape, in_file, path)


def _check_v1(reader: Any, local_path: str, path: str) -> None:
    """Checks the sizes of the tensors of a V1 checkpoint, whose list TensorFlow has checked."""
    in_file = 8 * os.path.getsize(local_path)  # an integer of eight bytes is stored in as little as one
    dtypes = reader.get_variable_to_dtype_map()
    for name, shape in reader.get_variable_to_shape_map().items():
        _check_size(name, dtypes[name], shape, in_file, path)


def _check_size(name: str, dtype: tf.DType, shape: Sequence[int], in_file: int, path: str) -> None:
    """Checks that a tensor has no more bytes than `in_file`."""
    # A string takes a byte or more, for its length. A variant or a resource states no size.
    size = math.prod(shape) * (1 if dtype in ("string", "variant", "resource") else dtype.size)
    if size > in_file:
        raise refusal.unsafe(
            path, f"a tensor {name} of {dtype.name} {shape}, {size} bytes", f"at most the {in_file} bytes of the file"
        )


def _entries(file: IO[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """The table's keys and values. Keys ascend, so that TensorFlow finds these, whichever way it looks for one."""
    file_size = os.fstat(file.fileno()).st_size
    footer = _read(file, max(0, file_size - _FOOTER_SIZE), _FOOTER_SIZE)
    if struct.unpack("<Q", footer[-8:])[0] != _MAGIC:
        raise ValueError("not a table: it ends otherwise")
    _, end = _handle(footer, 0)  # of the block of metadata, which is empty
    last = None
    for _, place in _block(file, *_handle(footer, end)[0]):
        for key, entry in _block(file, *_handle(place, 0)[0]):
            if last is not None and key <= last:
                raise ValueError("keys in another order")
            last = key
            yield key, entry


def _read(file: IO[bytes], offset: int, size: int) -> bytes:
    if offset + size > os.fstat(file.fileno()).st_size:
        raise ValueError("a block outside the file")
    file.seek(offset)
    return file.read(size)


def _block(file: IO[bytes], offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """The entries of a block: each shares the beginning of its key with the one before, except at restarts."""
    block = _read(file, offset, size + _TRAILER_SIZE)
    if block[size] != 0:
        raise ValueError("a compressed block, which TensorFlow does not write")
    num_restarts = struct.unpack_from("<I", block, size - 4)[0]
    end = size - 4 * (1 + num_restarts)
    restarts = struct.unpack_from(f"<{num_restarts}I", block, end)
    starts, at, key = {0}, 0, b""
    while at < end:
        begin = at
        shared, at = _varint(block, at)
        own, at = _varint(block, at)
        length, at = _varint(block, at)
        if shared > len(key) or at + own + length > end:
            raise ValueError("an entry outside its block")
        if shared == 0:
            starts.add(begin)
        key = key[:shared] + block[at : at + own]
        at += own + length
        yield key, block[at - length : at]
    if not starts.issuperset(restarts):
        raise ValueError("a restart that is no entry")


def _handle(content: bytes, at: int) -> tuple[tuple[int, int], int]:
    """A place in the file, (offset, size), and where what follows it begins."""
    offset, at = _varint(content, at)
    size, at = _varint(content, at)
    return (offset, size), at


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """A number of up to 64 bits in groups of 7, the lowest first, and where what follows it begins."""
    value = shift = 0
    while True:
        byte = content[at]
        value, at, shift = value | (byte & 127) << shift, at + 1, shift + 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
