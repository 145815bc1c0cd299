"""TensorFlow's checkpoint files, V1 and V2, checked before TensorFlow reads them.

TensorFlow ends the process (a failed CHECK) at an invalid entry, and reserves the memory that an entry states. Both
formats are tables of sorted keys (tensorflow/core/lib/io/format.cc, table_builder.cc, block_builder.cc): blocks of
entries, a block of the blocks' keys and places, and a footer. TensorFlow verifies their checksums, which keep chance
damage away; what is checked here is what somebody may have written on purpose.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from typing import IO, Any

from tf_image_classification.checkpoints import refusal

_FOOTER_SIZE, _MAGIC = 48, 0xDB4775248B80FB57
_TRAILER_SIZE = 5  # of a block: its compression, and a checksum
_MAX_RANK = 254  # of TensorShape
_EXPECTED = "tensors of numbers, each as large as the values that the file has for it"


def check_v2(prefix: str, path: str) -> None:
    """Checks the index of a V2 checkpoint: BundleEntryProto by name (tensorflow/core/protobuf/tensor_bundle.proto).

    Args:
        prefix: of its local files.
        path: what errors call it.

    Raises:
        CheckpointError: an entry is not valid, or larger than the data files.
        ValueError, LookupError, OSError, struct.error, DecodeError: the index is damaged.
    """
    from tensorflow.core.protobuf.tensor_bundle_pb2 import BundleEntryProto, BundleHeaderProto

    with open(prefix + ".index", "rb") as file:
        entries = _entries(file)
        shards = BundleHeaderProto.FromString(next(entries)[1]).num_shards
        sizes = [os.path.getsize(f"{prefix}.data-{shard:05d}-of-{shards:05d}") for shard in range(shards)]
        for key, value in entries:
            entry = BundleEntryProto.FromString(value)
            # Of a partitioned variable, this is the whole's shape; its parts have entries of their own.
            in_file = sum(sizes) if entry.slices else sizes[entry.shard_id]
            _check(key, entry.dtype, entry.shape, in_file, path)


def check_v1(local_path: str, path: str) -> None:
    """Checks what a V1 checkpoint says of its tensors: SavedTensorSlices (core/util/saved_tensor_slice.proto).

    Args:
        local_path: of the file.
        path: what errors call it.

    Raises: as `check_v2`.
    """
    from tensorflow.core.util.saved_tensor_slice_pb2 import SavedTensorSlices

    with open(local_path, "rb") as file:
        key, value = next(_entries(file))
    if key:
        raise ValueError("no list of tensors")
    for tensor in SavedTensorSlices.FromString(value).meta.tensor:
        # An integer of eight bytes is stored in as little as one.
        _check(tensor.name.encode(), tensor.type, tensor.shape, 8 * os.path.getsize(local_path), path)


def _check(key: bytes, dtype: int, shape: Any, in_file: int, path: str) -> None:
    """Checks that a tensor is valid and has no more bytes than `in_file`."""
    import tensorflow as tf

    name = key.decode(errors="replace")
    lengths = [dimension.size for dimension in shape.dim]
    if shape.unknown_rank or len(lengths) > _MAX_RANK or min(lengths, default=0) < 0:
        raise refusal.unsafe(path, f"a tensor of shape {lengths[:8]}, {name}", _EXPECTED)
    try:
        kind = tf.dtypes.as_dtype(dtype)
    except TypeError:
        raise refusal.unsafe(path, f"a tensor of the unknown type {dtype}, {name}", _EXPECTED) from None
    # A string takes a byte or more for its length; what is neither a number nor a string, no checkpoint can do without.
    size = math.prod(lengths) * (1 if kind in (tf.string, tf.variant) else kind.size)
    if kind in (tf.resource,) or size > in_file:
        raise refusal.unsafe(path, f"a tensor of {kind.name} {lengths}, {name}, in {in_file} bytes", _EXPECTED)


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
