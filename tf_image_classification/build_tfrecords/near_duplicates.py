"""The pictures of a build that are the same or nearly so, kept on disk: memory does not grow with their number."""

from __future__ import annotations

import collections
import functools
import itertools
import json
import os
import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

from tf_image_classification.build_tfrecords import neighbours
from tf_image_classification.build_tfrecords.signature import Look
from tf_image_classification.data.manifest import Duplicates

ACROSS_SPLITS, OTHER_LABELS, WITHIN_SPLIT = "across splits", "other labels", "within a split"

_COMPARED_COPIES = 8  # of one content, that each group of it is linked with

_SCHEMA = """
CREATE TABLE pictures (
    id INTEGER PRIMARY KEY, split TEXT, path BLOB, filename BLOB, labels TEXT, content BLOB, small INTEGER
);
CREATE TABLE groups (
    id INTEGER PRIMARY KEY, last INTEGER, number INTEGER, split TEXT, labels TEXT, content BLOB
);
CREATE TABLE shared (content BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE links (a INTEGER, b INTEGER, distance REAL, identical INTEGER, PRIMARY KEY (a, b)) WITHOUT ROWID;
"""
# Pictures of one content, split and label are one group: a thousand copies are compared once. Most contents are of one
# picture alone, and are not sorted by split and label.
_GROUP = (
    "INSERT INTO shared SELECT content FROM pictures GROUP BY content HAVING count(*) > 1",
    "INSERT INTO groups SELECT id, id, 1, split, labels, content FROM pictures WHERE content NOT IN shared",
    "INSERT INTO groups SELECT min(id), max(id), count(*), split, labels, content FROM pictures "
    "WHERE content IN shared GROUP BY content, split, labels",
)
_SAME_CONTENT = "SELECT id, content FROM groups WHERE content IN shared ORDER BY content, id"
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
        self._signatures = neighbours.Signatures()

    def close(self) -> None:
        """Frees the disk space."""
        self._db.close()
        self._signatures.close()

    def add(self, pictures: Iterable[tuple[Picture, Look]]) -> None:
        """Adds pictures, with what they look like."""
        given = list(pictures)
        self._signatures.add(look.signature for _, look in given)
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
        for statement in _GROUP:
            self._db.execute(statement)
        contents = self._db.execute(_SAME_CONTENT)
        for _, same in itertools.groupby(contents, key=lambda row: row[1]):
            before: collections.deque[int] = collections.deque(maxlen=_COMPARED_COPIES)
            for group, _ in same:
                if before:
                    self._link([*before], [group] * len(before), [0.0] * len(before), identical=True)
                before.append(group)
        for near in neighbours.near_duplicates(self._signatures, self._members):
            self._link(*near, identical=False)
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

    def _members(self, first: int, last: int) -> list[tuple[int, int]]:
        """The groups of which one picture has such an id, and whether it is small."""
        query = "SELECT id, small FROM groups JOIN pictures USING (id) WHERE id BETWEEN ? AND ? ORDER BY id"
        return self._db.execute(query, (first, last)).fetchall()

    def _link(self, some: Iterable[int], others: Iterable[int], apart: Iterable[float], identical: bool) -> None:
        """Links pairs of groups, unless they are linked; identical ones come first."""
        rows = [(a, b, distance, identical) for a, b, distance in zip(some, others, apart, strict=True)]
        rows += [(b, a, distance, identical) for a, b, distance, _ in rows]
        self._db.executemany("INSERT OR IGNORE INTO links VALUES (?, ?, ?, ?)", rows)

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
