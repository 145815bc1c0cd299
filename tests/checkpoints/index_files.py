"""Index files of V2 checkpoints with right checksums, of any content: what an attacker could write."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

import google_crc32c
from tensorflow.core.protobuf.tensor_bundle_pb2 import BundleEntryProto, BundleHeaderProto

_MAGIC = 0xDB4775248B80FB57
_FOOTER_SIZE, _TRAILER_SIZE = 48, 5


def of_entries(entries: Mapping[str, bytes]) -> bytes:
    """An index file of serialised BundleEntryProtos by name, for one data file."""
    header = BundleHeaderProto(num_shards=1)
    header.version.producer = 1
    return of_block(_block([(b"", header.SerializeToString()), *((k.encode(), v) for k, v in sorted(entries.items()))]))


def entry(shape: Iterable[int], size: int, dtype: int = 1, **fields: int) -> bytes:
    """A serialised BundleEntryProto; `dtype` 1 is float32."""
    proto = BundleEntryProto(dtype=dtype, size=size, **fields)
    for length in shape:
        proto.shape.dim.add(size=length)
    return proto.SerializeToString()


def block_in(content: bytes) -> bytes:
    """The first block of entries in an index file; small ones have no other."""
    footer, value, shift = content[-_FOOTER_SIZE:], 0, 0
    for byte in footer:  # the block of metadata comes next: where it begins is the footer's first number
        value, shift = value | (byte & 127) << shift, shift + 7
        if byte < 128:
            break
    return content[: value - _TRAILER_SIZE]


def of_block(block: bytes) -> bytes:
    """An index file with this block of entries."""
    content = b""

    def add(added: bytes) -> bytes:
        nonlocal content
        place = _varint(len(content)) + _varint(len(added))
        crc = google_crc32c.value(added + b"\0")
        masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
        content += added + b"\0" + struct.pack("<I", masked)
        return place

    entries, metadata = add(block), add(_block([]))
    footer = metadata + add(_block([(b"\xff" * 8, entries)]))
    return content + footer.ljust(_FOOTER_SIZE - 8, b"\0") + struct.pack("<Q", _MAGIC)


def _block(entries: Iterable[tuple[bytes, bytes]]) -> bytes:
    content, restarts = b"", []
    for key, value in entries:
        restarts.append(len(content))
        content += _varint(0) + _varint(len(key)) + _varint(len(value)) + key + value
    restarts = restarts or [0]
    return content + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def _varint(value: int) -> bytes:
    groups = b""
    while value >= 128:
        groups, value = groups + bytes([value & 127 | 128]), value >> 7
    return groups + bytes([value])
