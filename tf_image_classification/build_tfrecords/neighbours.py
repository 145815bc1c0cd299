"""Pictures that are nearly the same, among any number of them: memory does not grow with it.

Sorted by a hash, near duplicates come close to each other if the bits that differ are not among the first. So the
hashes are sorted several times, each time beginning with other bits, and each is compared with those that follow it.
Time is that of sorting (sorted neighbourhood method: Hernandez and Stolfo, 1995). What is close by hash is compared by
signature.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import IO, TYPE_CHECKING, NamedTuple

from tf_image_classification.build_tfrecords import comparison, hash_order, signature

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_MAX_DISTANCE = 0.035  # between photographs; the closest of a million pairs of different ones is 0.1
_MAX_DISTANCE_ALIKE = 0.004  # of small pictures, and of those on a plain background; JPEG's losses stay below
_TYPICAL_DISTANCE = 0.9  # between any two of the photographs that the limits were measured on
_TYPICAL_PAIRS = 100
_SHARE_OF_BITS = 5  # hashes of near duplicates differ by less than a fifth of the bits that are set
_WINDOW = 8  # following hashes that each is compared with
_BLOCK = 1024  # pictures that are hashed or compared at once: some megabytes
_KNOWN_PAIRS = 2**16  # that are not compared again where another order brings them together: 0.5 MB, twice sorted
_ID_BITS = 31  # of a picture in a number that stands for a pair

Members = Callable[[int, int], list[tuple[int, int]]]  # first and last id -> (id, is small) of those to compare


class Near(NamedTuple):
    """Pairs of near duplicates.

    Attributes:
        some, others: ids.
        distances: see comparison.luma_distances.
    """

    some: list[int]
    others: list[int]
    distances: list[float]


class Signatures:
    """The signatures of pictures, whose ids are 1, 2 and so on, on disk. Few of them are read into memory once."""

    def __init__(self) -> None:
        # Of one length each; SQLite would take several times as long to sort them.
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 -- see close
        self._number = 0
        self._levels: npt.NDArray[np.uint8] | None = None

    def close(self) -> None:
        """Frees the disk space."""
        self._file.close()

    def add(self, made: Iterable[bytes]) -> None:
        """Adds those of the next pictures."""
        block = b"".join(made)
        self._file.write(block)
        self._number += len(block) // signature.BYTES

    def blocks(self) -> Iterator[npt.NDArray[np.uint8]]:
        """All signatures, some at a time: (pictures, BYTES). None can be added any more."""
        self._file.seek(0)
        if self._number <= hash_order.IN_MEMORY:
            self._levels = _levels(self._file.read())
            yield from (self._levels[begin : begin + _BLOCK] for begin in range(0, self._number, _BLOCK))
            return
        while block := self._file.read(_BLOCK * signature.BYTES):
            yield _levels(block)

    def of(self, pictures: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Those of some pictures, after `blocks`: (pictures, BYTES)."""
        if self._levels is not None:
            return self._levels[pictures - 1]
        size, file = signature.BYTES, self._file.fileno()
        return _levels(b"".join([os.pread(file, size, (picture - 1) * size) for picture in pictures.tolist()]))


def near_duplicates(signatures: Signatures, members: Members) -> Iterator[Near]:
    """The pairs of pictures that are near duplicates; a pair may come several times.

    Args:
        signatures: of all pictures.
        members: those of them that are compared, in the order of their ids.
    """
    import numpy as np  # which --help need not wait for

    with tempfile.TemporaryFile() as hashed:
        number = _write_hashed(hashed, signatures, members)
        if not number:
            return
        # From all over the data set: neighbours may be copies of one picture.
        typical = [
            int.from_bytes(os.pread(hashed.fileno(), 8, index * hash_order.RECORD_BYTES), "little")
            for index in range(0, number, max(1, number // _TYPICAL_PAIRS))
        ]
        limit = _MAX_DISTANCE * _scale(signatures.of(np.array(typical, np.int64)))
        known = np.zeros(0, np.int64)  # sorted pairs that have been compared
        for column in range(hash_order.WORDS):
            compared = [known]
            for close in _close_pairs(hash_order.in_order(hashed, number, column)):
                new = close if column == 0 else close[~_are_among(known, close)]
                yield from _near(signatures, new, limit)
                if sum(map(len, compared)) + len(new) <= _KNOWN_PAIRS:
                    compared.append(new)
            known = np.sort(np.concatenate(compared))


def _write_hashed(file: IO[bytes], signatures: Signatures, members: Members) -> int:
    """Writes the members with their hashes, but for uniform ones, as RECORDs by id; returns their number."""
    import numpy as np

    first, number = 1, 0
    for block in signatures.blocks():
        ids, small = np.array(members(first, first + len(block) - 1), np.int64).reshape(-1, 2).T
        records = np.zeros(len(ids), hash_order.RECORD)
        records["id"], records["small"] = ids, small
        records["hash"] = np.ascontiguousarray(signature.hashes_of(block)).view("<u8")[ids - first]
        records = records[records["hash"].any(axis=1)]
        file.write(records.tobytes())
        first, number = first + len(block), number + len(records)
    file.flush()
    return number


def _close_pairs(parts: Iterable[npt.NDArray[np.void]]) -> Iterator[npt.NDArray[np.int64]]:
    """The pairs of pictures whose hashes are close to each other's when they are sorted, of some at a time.

    Args:
        parts: RECORDs in the order of a word of their hashes.

    Yields:
        Pairs as numbers: the lower id, the higher one, and a bit that says whether one of the two is small.
    """
    import numpy as np

    before = None
    for part in parts:
        for begin in range(0, len(part), _BLOCK):
            block = part[begin : begin + _BLOCK]
            block = block if before is None else np.concatenate((before, block))
            before = block[-_WINDOW:].copy()
            some, others = _alike(block["hash"])
            ids, small = block["id"], block["small"] != 0
            low, high = np.minimum(ids[some], ids[others]), np.maximum(ids[some], ids[others])
            yield low << _ID_BITS + 1 | high << 1 | (small[some] | small[others])


def _are_among(known: npt.NDArray[np.int64], pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which of the pairs are known; `known` is sorted."""
    import numpy as np

    if not len(known):
        return np.zeros(len(pairs), bool)
    found: npt.NDArray[np.bool_] = known[np.minimum(np.searchsorted(known, pairs), len(known) - 1)] == pairs
    return found


def _near(signatures: Signatures, pairs: npt.NDArray[np.int64], limit: float) -> Iterator[Near]:
    """The near duplicates among pairs from `_close_pairs`.

    Args:
        limit: of the distance of near duplicates.
    """
    import numpy as np

    for begin in range(0, len(pairs), _BLOCK):
        block = pairs[begin : begin + _BLOCK]
        ids = np.stack((block >> _ID_BITS + 1, block >> 1 & (1 << _ID_BITS) - 1))
        pictures, positions = np.unique(ids, return_inverse=True)
        levels = signatures.of(pictures)
        linked, apart = _linked(levels, positions.reshape(2, -1), (block & 1).astype(bool), limit)
        some, others = ids[:, linked].tolist()
        yield Near(some, others, apart.tolist())


def _linked(
    levels: npt.NDArray[np.uint8], pairs: npt.NDArray[np.int64], is_small: npt.NDArray[np.bool_], limit: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Which pairs of pictures are near duplicates.

    Args:
        levels: signatures (pictures, BYTES).
        pairs: (2, pairs), positions in `levels`.
        is_small: whether one of the two is below SMALL_SIDE; (pairs,).
        limit: of the distance of near duplicates.

    Returns:
        Positions in `pairs`, and the distances of these.
    """
    import numpy as np

    luma = comparison.luma_of(levels)
    apart = comparison.luma_distances(luma, *pairs)
    near = np.flatnonzero(apart <= np.where(is_small, min(limit, _MAX_DISTANCE_ALIKE), limit))
    # Whether they are as close as pictures have to be that are easily alike.
    alike = (apart[near] <= _MAX_DISTANCE_ALIKE) & comparison.same_brightness(luma, *pairs[:, near])
    kept = alike | ~is_small[near]
    near, alike = near[kept], alike[kept]
    kept = comparison.same_colours(levels, *pairs[:, near])
    near, alike = near[kept], alike[kept]
    asked = near[~alike]
    pictures, positions = np.unique(pairs[:, asked], return_inverse=True)
    simple = comparison.are_simple(levels[pictures])[positions.reshape(2, -1)]
    alike[~alike] = ~(simple[0] & simple[1])
    near = near[alike]
    return near, apart[near]


def _scale(levels: npt.NDArray[np.uint8]) -> float:
    """How far apart pictures of this data set are, compared with photographs of anything: faces or X-rays that are
    aligned have much in common.

    Args:
        levels: signatures of some of them, (pictures, BYTES).
    """
    import numpy as np

    numbers = np.arange(len(levels))
    typical = sorted(comparison.luma_distances(comparison.luma_of(levels), numbers[:-1], numbers[1:]).tolist())
    return min(1.0, typical[len(typical) // 2] / _TYPICAL_DISTANCE) if typical else 1.0


def _levels(made: bytes) -> npt.NDArray[np.uint8]:
    import numpy as np

    return np.frombuffer(made, np.uint8).reshape(-1, signature.BYTES)


def _alike(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """The pairs of positions (2, pairs) of hashes (pictures, words) of which the later one differs from one of the
    _WINDOW before it by few bits."""
    import numpy as np

    words = hashes.T.copy()
    most = np.bitwise_count(words).sum(0) // _SHARE_OF_BITS
    found = [np.zeros((2, 0), np.int64)]
    for shift in range(1, min(_WINDOW + 1, len(hashes))):
        differing = np.bitwise_count(words[:, shift:] ^ words[:, :-shift]).sum(0)
        earlier = np.flatnonzero(differing <= most[shift:])
        found.append(np.stack((earlier, earlier + shift)))
    pairs = np.concatenate(found, axis=1)
    return pairs[:, np.argsort(pairs[0], kind="stable")]  # pairs of one picture together: it is looked up once
