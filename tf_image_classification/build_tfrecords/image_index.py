"""The images that a build works on, kept in a temporary database on disk: memory does not grow with their number."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from tf_image_classification.data.manifest import EVAL, TRAIN, Task
from tf_image_classification.data.sources import Entry, Rejected, split_of

DUPLICATE = "duplicate of an earlier entry"

_SHUFFLE_SEED = b"tf-image-classification"
_SCHEMA = """
CREATE TABLE images (
    metadata TEXT, split TEXT, path BLOB, filename BLOB, labels TEXT, position INTEGER, UNIQUE (metadata, path)
);
CREATE TABLE rejected (split TEXT, path BLOB, reason TEXT);
"""
# Names are stored as bytes: a file name need not be valid Unicode.


class ImageIndex:
    """Images by split, in their shuffled order, and every image that was rejected, with its reason. Only the
    thread that created it may use it."""

    def __init__(self) -> None:
        # '' is a temporary database on disk, which is deleted with the process.
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.executescript(_SCHEMA)
        self._db.execute("BEGIN")

    def close(self) -> None:
        """Frees the disk space."""
        self._db.close()

    def add(self, metadata: str, entries: Iterable[Entry | Rejected], eval_fraction: float) -> None:
        """Adds what the sources name. An image that is named twice is rejected the second time.

        Args:
            metadata: `train` or `eval`: which flag names them.
            entries: from sources.read_entries.
            eval_fraction: share of them that goes to the evaluation split.
        """
        for entry in entries:
            if isinstance(entry, Rejected):
                self.reject(metadata, entry.path, entry.reason)
                continue
            path, labels = os.fsencode(entry.path), json.dumps(entry.labels)
            split = split_of(entry.filename, eval_fraction)
            row = (metadata, split, path, os.fsencode(entry.filename), labels, _position(entry.filename))
            if not self._db.execute("INSERT OR IGNORE INTO images VALUES (?, ?, ?, ?, ?, ?)", row).rowcount:
                query = "SELECT labels FROM images WHERE metadata = ? AND path = ?"
                (earlier,) = self._db.execute(query, (metadata, path)).fetchone()
                before = ", ".join(json.loads(earlier))
                self.reject(split, entry.path, DUPLICATE if earlier == labels else f"labelled {before} before")

    def reject(self, split: str, path: str, reason: str) -> None:
        """Adds an image that does not get into the shards."""
        self._db.execute("INSERT INTO rejected VALUES (?, ?, ?)", (split, os.fsencode(path), reason))

    def class_counts(self, split: str, column: int) -> dict[str, int]:
        """Class name of one label column -> number of a split's images."""
        query = "SELECT json_extract(labels, ?) AS label, count(*) FROM images WHERE split = ? GROUP BY label"
        return dict(self._db.execute(query, (f"$[{column}]", split)))

    def reject_unknown(self, tasks: Sequence[Task]) -> None:
        """Rejects the images of classes that `tasks` do not have."""
        for index, task in enumerate(tasks):
            for name in {*self.class_counts(TRAIN, index), *self.class_counts(EVAL, index)}.difference(task.labels):
                insert = "INSERT INTO rejected SELECT split, path, ? FROM images WHERE json_extract(labels, ?) = ?"
                self._db.execute(insert, (f"label {name} is not in labels", f"$[{index}]", name))
                self._db.execute("DELETE FROM images WHERE json_extract(labels, ?) = ?", (f"$[{index}]", name))

    def count(self, split: str) -> int:
        """The number of a split's images that are not rejected."""
        return self._number("SELECT count(*) FROM images WHERE split = ?", split)

    def count_rejected(self, split: str) -> int:
        """The number of a split's images that are rejected."""
        return self._number("SELECT count(*) FROM rejected WHERE split = ?", split)

    def count_in_both(self) -> int:
        """The number of images that both metadata flags name."""
        return self._number(
            "SELECT count(*) FROM images a JOIN images b USING (path) WHERE a.metadata = 'train' AND "
            "b.metadata = 'eval'"
        )

    def shuffled(self, split: str) -> Iterator[Entry]:
        """A split's images, in the order of the shards."""
        query = "SELECT path, filename, labels FROM images WHERE split = ? ORDER BY position, rowid"
        for path, filename, labels in self._db.execute(query, (split,)):
            yield Entry(os.fsdecode(path), os.fsdecode(filename), tuple(json.loads(labels)))

    def rejected(self) -> Iterator[tuple[str, str, str]]:
        """Split, path and reason of every rejected image: training first, by path."""
        query = "SELECT split, path, reason FROM rejected ORDER BY split = ? DESC, path, rowid"
        for split, path, reason in self._db.execute(query, (TRAIN,)):
            yield split, os.fsdecode(path), reason

    def reasons(self, *splits: str) -> dict[str, int]:
        """Reason -> number of rejected images of these splits, the most frequent first."""
        counts: Counter[str] = Counter()
        for split in splits:
            query = "SELECT reason, count(*) FROM rejected WHERE split = ? GROUP BY reason"
            counts.update(dict(self._db.execute(query, (split,))))
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    def _number(self, query: str, *values: str) -> int:
        number: int = self._db.execute(query, values).fetchone()[0]
        return number


def _position(filename: str) -> int:
    """A position in the shuffled order that depends on the name only."""
    return int.from_bytes(hashlib.sha256(_SHUFFLE_SEED + os.fsencode(filename)).digest()[:8]) >> 1
