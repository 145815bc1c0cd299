"""The pictures of a build that are the same or nearly so, found on disk: memory does not grow with their number.

Sorted by a hash, near duplicates come close to each other if the bits that differ are not among the first. So the
hashes are sorted several times, each time beginning with other bits, and each is compared with those that follow it.
Time is that of sorting (sorted neighbourhood method: Hernandez and Stolfo, 1995). What is close by hash is compared by
signature.
"""

from __future__ import annotations

import collections
import functools
import itertools
import json
import os
import sqlite3
import tempfile
from collections.abc import Iterable
from typing import IO, TYPE_CHECKING, NamedTuple

from tf_image_classification.build_tfrecords import comparison, hash_order
from tf_image_classification.build_tfrecords import signature as signatures
from tf_image_classification.build_tfrecords.signature import Look
from tf_image_classification.data.manifest import Duplicates

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

ACROSS_SPLITS, OTHER_LABELS, WITHIN_SPLIT = "across splits", "other labels", "within a split"

_MAX_DISTANCE = 0.035  # between photographs; the closest of a million pairs of different ones is 0.1
_MAX_DISTANCE_ALIKE = 0.004  # of small pictures, and of those on a plain background; JPEG's losses stay below
_TYPICAL_DISTANCE = 0.9  # between any two of the photographs that the limits were measured on
_TYPICAL_PAIRS = 100
_SHARE_OF_BITS = 5  # hashes of near duplicates differ by less than a fifth of the bits that are set
_WINDOW = 8  # following hashes that each is compared with
_BLOCK = 1024  # pictures that are hashed or compared at once: some megabytes

_SCHEMA = """
CREATE TABLE pictures (
    id INTEGER PRIMARY KEY, split TEXT, path BLOB, filename BLOB, labels TEXT, content BLOB, small INTEGER
);
CREATE TABLE groups (
    id INTEGER PRIMARY KEY, last INTEGER, number INTEGER, split TEXT, labels TEXT, content BLOB
);
CREATE TABLE links (a INTEGER, b INTEGER, distance REAL, identical INTEGER, PRIMARY KEY (a, b)) WITHOUT ROWID;
"""
# Pictures of one content, split and label are one group: a thousand copies are compared once.
_GROUP = """
INSERT INTO groups SELECT min(id), max(id), count(*), split, labels, content FROM pictures
GROUP BY content, split, labels
"""
_LINKED = (
    "EXISTS (SELECT 1 FROM links JOIN groups o ON o.id = links.b "
    "WHERE links.a = g.id AND identical >= :identical AND {})"
)
_OF_OWN_SPLIT, _OF_TRAINING, _OF_OTHER_LABELS = map(
    _LINKED.format, ("o.split = g.split", "o.split = 'train'", "o.labels != g.labels")
)
# Which groups `g` count: because of another one, `o`, or because they are several pictures.
_COUNTED = {
    "train": f"g.split = 'train' AND (g.number > 1 OR {_OF_OWN_SPLIT})",
    "eval": f"g.split = 'eval' AND (g.number > 1 OR {_OF_OWN_SPLIT})",
    "across_splits": f"g.split = 'eval' AND {_OF_TRAINING}",
    "other_labels": _OF_OTHER_LABELS,
}
_PAIRS = """
SELECT a.id, b.id, distance, identical FROM links JOIN groups a ON a.id = links.a JOIN groups b ON b.id = links.b
WHERE {} ORDER BY identical DESC, distance, a.id, b.id LIMIT ?
"""
# Which pairs of groups `a` and `b` are shown; each pair once.
_SHOWN = {
    ACROSS_SPLITS: "a.split = 'train' AND b.split = 'eval'",
    OTHER_LABELS: "a.id < b.id AND a.labels != b.labels",
    WITHIN_SPLIT: "a.id < b.id AND a.split = b.split AND a.labels = b.labels",
}


class Picture(NamedTuple):
    """A picture that the statistics page may show beside another one.

    Attributes:
        path: as storage opens it.
        filename: relative to its root.
        split: `train` or `eval`.
        labels: a class name per task.
    """

    path: str
    filename: str
    split: str
    labels: tuple[str, ...]


class Pair(NamedTuple):
    """Two pictures that are the same or nearly so.

    Attributes:
        first, second: the pictures; across splits the first is of training.
        distance: see comparison.luma_distances.
        identical: whether they are the same bytes.
    """

    first: Picture
    second: Picture
    distance: float
    identical: bool


class DuplicateIndex:
    """The pictures of a build, and those of them that are near duplicates. Only the thread that created it may use
    it."""

    def __init__(self) -> None:
        # '' is a temporary database on disk, which is deleted with the process.
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.executescript(_SCHEMA)
        self._db.execute("BEGIN")
        # By id, of one length each; SQLite would take several times as long to sort them.
        self._signatures = tempfile.TemporaryFile()  # noqa: SIM115 -- see close

    def close(self) -> None:
        """Frees the disk space."""
        self._db.close()
        self._signatures.close()

    def add(self, pictures: Iterable[tuple[Picture, Look]]) -> None:
        """Adds pictures, with what they look like."""
        given = list(pictures)
        self._signatures.write(b"".join([look.signature for _, look in given]))
        rows = [
            (
                picture.split,
                os.fsencode(picture.path),
                os.fsencode(picture.filename),
                _as_json(picture.labels),
                look.content,
                look.is_small,
            )
            for picture, look in given
        ]
        self._db.executemany("INSERT INTO pictures VALUES (NULL, ?, ?, ?, ?, ?, ?)", rows)

    def find(self) -> tuple[Duplicates, Duplicates]:
        """Finds the duplicates of all pictures, once they are all added.

        Returns:
            The numbers of images that are near duplicates or identical, and of those that are identical.
        """
        self._db.execute(_GROUP)
        contents = self._db.execute("SELECT id, content FROM groups ORDER BY content, id")
        for _, same in itertools.groupby(contents, key=lambda row: row[1]):
            before: collections.deque[int] = collections.deque(maxlen=_WINDOW)
            for group, _ in same:
                if before:
                    self._link([*before], [group] * len(before), [0.0] * len(before), identical=True)
                before.append(group)
        self._link_neighbours()
        return self._count(identical=False), self._count(identical=True)

    def pairs(self, kind: str, number: int) -> list[Pair]:
        """The closest pairs of a kind, after `find`.

        Args:
            kind: ACROSS_SPLITS, OTHER_LABELS or WITHIN_SPLIT.
            number: of pairs, at most.
        """
        query = _PAIRS.format(_SHOWN[kind])
        found = self._db.execute(query, (number,)).fetchall()
        if kind == WITHIN_SPLIT:
            copies = "SELECT id, last, 0.0, 1 FROM groups WHERE number > 1 ORDER BY id LIMIT ?"
            found = [*self._db.execute(copies, (number,)), *found][:number]
        return [Pair(self._picture(a), self._picture(b), apart, bool(same)) for a, b, apart, same in found]

    def _link_neighbours(self) -> None:
        """Compares the groups that have similar hashes, and links near duplicates."""
        import numpy as np  # which --help need not wait for

        with tempfile.TemporaryFile() as hashed:
            number = self._write_hashed(hashed)
            if not number:
                return
            # From all over the data set: neighbours may be copies of one picture.
            typical = [
                int.from_bytes(os.pread(hashed.fileno(), 8, index * hash_order.RECORD_BYTES), "little")
                for index in range(0, number, max(1, number // _TYPICAL_PAIRS))
            ]
            limit = _MAX_DISTANCE * self._scale(np.array(typical, np.int64))
            for column in range(hash_order.WORDS):
                before = None
                for in_order in hash_order.in_order(hashed, number, column):
                    before = self._link_close(before, in_order, limit)

    def _write_hashed(self, file: IO[bytes]) -> int:
        """Writes the groups with their hashes, but for uniform ones, as RECORDs by id; returns their number."""
        import numpy as np

        self._signatures.seek(0)
        groups = self._db.execute("SELECT id, small FROM groups JOIN pictures USING (id) ORDER BY id")
        following, first, number = next(groups, None), 1, 0
        while following is not None and (block := self._signatures.read(_BLOCK * signatures.BYTES)):
            words = np.ascontiguousarray(signatures.hashes_of(_levels(block))).view("<u8")
            of_block = []
            while following is not None and following[0] < first + len(words):
                of_block.append(following)
                following = next(groups, None)
            records = np.zeros(len(of_block), hash_order.RECORD)
            records["id"], records["small"] = np.array(of_block, np.int64).reshape(-1, 2).T
            records["hash"] = words[records["id"] - first]
            records = records[records["hash"].any(axis=1)]
            file.write(records.tobytes())
            first, number = first + len(words), number + len(records)
        file.flush()
        return number

    def _link_close(
        self, before: npt.NDArray[np.void] | None, in_order: npt.NDArray[np.void], limit: float
    ) -> npt.NDArray[np.void]:
        """Compares groups whose hashes are close to each other's when they are sorted.

        Args:
            before: the last ones before `in_order`, if any.
            in_order: RECORDs.

        Returns:
            The last ones.
        """
        import numpy as np

        for begin in range(0, len(in_order), _BLOCK):
            of_block = in_order[begin : begin + _BLOCK]
            of_block = of_block if before is None else np.concatenate((before, of_block))
            before = of_block[-_WINDOW:].copy()
            self._link_alike(of_block, _alike(of_block["hash"]), limit)
        assert before is not None  # no part is empty
        return before

    def _link_alike(self, records: npt.NDArray[np.void], pairs: npt.NDArray[np.int64], limit: float) -> None:
        """Compares pairs of groups, and links near duplicates.

        Args:
            records: groups, as RECORDs.
            pairs: (2, pairs), positions in `records`.
            limit: of the distance of near duplicates.
        """
        import numpy as np

        needed, pairs = np.unique(pairs, return_inverse=True)
        groups, small, pairs = records["id"][needed], records["small"][needed] != 0, pairs.reshape(2, -1)
        levels = self._levels_of(groups)
        luma = comparison.luma_of(levels)
        for begin in range(0, pairs.shape[1], _BLOCK):
            some, others = pairs[:, begin : begin + _BLOCK]
            apart = comparison.luma_distances(luma.of(some), luma.of(others))
            near = np.flatnonzero(apart <= limit)
            apart, some, others = apart[near], some[near], others[near]
            alike = (apart <= _MAX_DISTANCE_ALIKE) & comparison.same_brightness(luma.of(some), luma.of(others))
            linked = np.flatnonzero(_are_near(levels[some], levels[others], alike, small[some] | small[others]))
            pair = groups[some[linked]].tolist(), groups[others[linked]].tolist()
            self._link(*pair, apart[linked].tolist(), identical=False)

    def _link(self, some: Iterable[int], others: Iterable[int], apart: Iterable[float], identical: bool) -> None:
        """Links pairs of groups, unless they are linked; identical ones come first."""
        rows = [(a, b, distance, identical) for a, b, distance in zip(some, others, apart, strict=True)]
        rows += [(b, a, distance, identical) for a, b, distance, _ in rows]
        self._db.executemany("INSERT OR IGNORE INTO links VALUES (?, ?, ?, ?)", rows)

    def _scale(self, groups: npt.NDArray[np.int64]) -> float:
        """How far apart pictures of this data set are, compared with photographs of anything: faces or X-rays that are
        aligned have much in common."""
        import numpy as np

        luma, numbers = comparison.luma_of(self._levels_of(groups)), np.arange(len(groups))
        typical = sorted(comparison.luma_distances(luma.of(numbers[:-1]), luma.of(numbers[1:])).tolist())
        return min(1.0, typical[len(typical) // 2] / _TYPICAL_DISTANCE) if typical else 1.0

    def _levels_of(self, pictures: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """The signatures of pictures: (pictures, BYTES)."""
        size, file = signatures.BYTES, self._signatures.fileno()
        return _levels(b"".join([os.pread(file, size, (picture - 1) * size) for picture in pictures.tolist()]))

    def _picture(self, picture: int) -> Picture:
        query = "SELECT path, filename, split, labels FROM pictures WHERE id = ?"
        path, filename, split, labels = self._db.execute(query, (picture,)).fetchone()
        return Picture(os.fsdecode(path), os.fsdecode(filename), split, tuple(json.loads(labels)))

    def _count(self, identical: bool) -> Duplicates:
        """The numbers of pictures that have a near duplicate, or an identical one."""
        counts = {}
        for name, counted in _COUNTED.items():
            query = f"SELECT coalesce(sum(number), 0) FROM groups g WHERE {counted}"  # noqa: S608
            counts[name] = self._db.execute(query, {"identical": identical}).fetchone()[0]
        return Duplicates(**counts)


@functools.lru_cache(1024)
def _as_json(labels: tuple[str, ...]) -> str:
    return json.dumps(labels)


def _levels(made: bytes) -> npt.NDArray[np.uint8]:
    import numpy as np

    return np.frombuffer(made, np.uint8).reshape(-1, signatures.BYTES)


def _are_near(
    some: npt.NDArray[np.uint8],
    others: npt.NDArray[np.uint8],
    alike: npt.NDArray[np.bool_],
    is_small: npt.NDArray[np.bool_],
) -> npt.NDArray[np.bool_]:
    """Whether pairs of pictures that are close in luma are near duplicates.

    Args:
        some, others: their signatures, both (pairs, BYTES).
        alike: whether they are as close as pictures have to be that are easily alike.
        is_small: whether one of the two is below SMALL_SIDE.
    """
    import numpy as np

    are_near = comparison.same_colours(some, others) & (alike | ~is_small)
    asked = np.flatnonzero(are_near & ~alike)
    are_near[asked] = ~(comparison.are_simple(some[asked]) & comparison.are_simple(others[asked]))
    return are_near


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
    return np.concatenate(found, axis=1)
