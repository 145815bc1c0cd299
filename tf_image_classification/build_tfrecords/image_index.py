"""The images that a build works on, kept in a temporary database on disk: memory does not grow with their number."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from tf_image_classification.data.manifest import EVAL, TRAIN, Task
from tf_image_classification.data.sources import Entry, Rejected, split_of

DUPLICATE = "duplicate of an earlier entry"
BY_HASH = "by hash"

_BATCH = 1000
_KNOWN_LABELS = 1024
_INSERT = "INSERT OR IGNORE INTO images VALUES (?, ?, ?, ?, ?, ?, ?, NULL)"
_SHUFFLE_SEED = b"tf-image-classification"
_SCHEMA = """
CREATE TABLE images (
    metadata TEXT, split TEXT, path BLOB, filename BLOB, labels TEXT, position INTEGER, split_by_hash TEXT,
    other_labels TEXT, UNIQUE (metadata, path)
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

        The splits that lists name are kept as they are until `settle`.

        Args:
            metadata: `train` or `eval`: which flag names them.
            entries: from sources.read_entries.
            eval_fraction: share of them that goes to the evaluation split.
        """
        remaining = iter(entries)
        while batch := list(itertools.islice(remaining, _BATCH)):
            images = [entry for entry in batch if isinstance(entry, Entry)]
            self._db.execute("SAVEPOINT batch")
            added = self._db.executemany(_INSERT, [_row(metadata, entry, eval_fraction) for entry in images]).rowcount
            if added < len(batch):  # some are rejected, which is recorded in the order of the entries
                self._db.execute("ROLLBACK TO batch")
                self._add_each(metadata, batch, eval_fraction)
            self._db.execute("RELEASE batch")

    def _add_each(self, metadata: str, entries: Iterable[Entry | Rejected], eval_fraction: float) -> None:
        """Does the same one by one, which takes longer."""
        for entry in entries:
            if isinstance(entry, Rejected):
                self.reject(metadata, entry.path, entry.reason)
                continue
            row = _row(metadata, entry, eval_fraction)
            if not self._db.execute(_INSERT, row).rowcount:
                self._reject_repeated(metadata, row[1], entry)

    def reject(self, split: str, path: str, reason: str) -> None:
        """Adds an image that does not get into the shards."""
        self._db.execute("INSERT INTO rejected VALUES (?, ?, ?)", (split, os.fsencode(path), reason))

    def reject_conflicts(self, metadata: str, shown: int) -> tuple[int, list[tuple[str, ...]]]:
        """Rejects the images that are listed under two labels: none of them is known to be right.

        Args:
            shown: how many are returned at most.

        Returns:
            Their number, and path and labels of the first ones.
        """
        query = "SELECT split, path, labels, other_labels FROM images WHERE metadata = ? AND other_labels IS NOT NULL"
        count = 0
        conflicts: list[tuple[str, ...]] = []
        for split, path, *labels in self._db.execute(query, (metadata,)):
            first, other = (", ".join(json.loads(of_image)) for of_image in labels)
            self.reject(_counted_in(split, metadata), os.fsdecode(path), f"labelled {other} later")
            count += 1
            if count <= shown:
                conflicts.append((os.fsdecode(path), first, other))
        self._db.execute("DELETE FROM images WHERE metadata = ? AND other_labels IS NOT NULL", (metadata,))
        return count, conflicts

    def named_splits(self, metadata: str) -> dict[str, int]:
        """The splits that lists of a metadata name and that are not settled, with their numbers of images."""
        query = "SELECT split, count(*) FROM images WHERE metadata = ? AND split NOT IN (?, ?) GROUP BY split"
        return dict(self._db.execute(query, (metadata, TRAIN, EVAL)))

    def settle(self, metadata: str, assigned: Mapping[str, str]) -> dict[str, int]:
        """Puts the images of named splits where they belong, and rejects those of the other ones.

        Args:
            metadata: `train` or `eval`.
            assigned: named split -> `train`, `eval`, or BY_HASH, which splits them like images without a named split.

        Returns:
            Named split -> number of images that are rejected because they are in it.
        """
        left_out = {split: count for split, count in self.named_splits(metadata).items() if split not in assigned}
        for split, target in assigned.items():
            update = "UPDATE images SET split = iif(? = ?, split_by_hash, ?) WHERE metadata = ? AND split = ?"
            self._db.execute(update, (target, BY_HASH, target, metadata, split))
        for split in left_out:
            insert = "INSERT INTO rejected SELECT metadata, path, ? FROM images WHERE metadata = ? AND split = ?"
            self._db.execute(insert, (f"in the {split} split", metadata, split))
            self._db.execute("DELETE FROM images WHERE metadata = ? AND split = ?", (metadata, split))
        return left_out

    def class_counts(self, split: str, column: int) -> dict[str, int]:
        """Class name of one label column -> number of a split's images."""
        query = "SELECT json_extract(labels, ?) AS label, count(*) FROM images WHERE split = ? GROUP BY label"
        return dict(self._db.execute(query, (f"$[{column}]", split)))

    def reject_unknown(self, tasks: Sequence[Task]) -> None:
        """Rejects the images of classes that `tasks` do not have."""
        for index, task in enumerate(tasks):
            self._db.execute("CREATE TEMP TABLE known (label TEXT PRIMARY KEY)")
            self._db.executemany("INSERT INTO known VALUES (?)", ((label,) for label in task.labels))
            column = (f"$[{index}]",)
            self._db.execute(
                "INSERT INTO rejected SELECT split, path, 'label ' || json_extract(labels, ?1) || ' is not in labels' "
                "FROM images WHERE json_extract(labels, ?1) NOT IN (SELECT label FROM known)",
                column,
            )
            self._db.execute(
                "DELETE FROM images WHERE json_extract(labels, ?1) NOT IN (SELECT label FROM known)", column
            )
            self._db.execute("DROP TABLE known")

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
            yield Entry(os.fsdecode(path), os.fsdecode(filename), _from_json(labels))

    def rejected(self) -> Iterator[tuple[str, str, str]]:
        """Split, path and reason of every rejected image: training first, by path."""
        query = "SELECT split, path, reason FROM rejected ORDER BY split = ? DESC, path, rowid"
        for split, path, reason in self._db.execute(query, (TRAIN,)):
            yield split, os.fsdecode(path), reason

    def examples_of(self, *splits: str) -> dict[str, str]:
        """Reason -> path of one rejected image of these splits."""
        query = "SELECT reason, min(path) FROM rejected WHERE split = ? GROUP BY reason"
        found: dict[str, str] = {}
        for split in splits:
            for reason, path in self._db.execute(query, (split,)):
                found.setdefault(reason, os.fsdecode(path))
        return found

    def reasons(self, *splits: str) -> dict[str, int]:
        """Reason -> number of rejected images of these splits, the most frequent first."""
        counts: Counter[str] = Counter()
        for split in splits:
            query = "SELECT reason, count(*) FROM rejected WHERE split = ? GROUP BY reason"
            counts.update(dict(self._db.execute(query, (split,))))
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    def _reject_repeated(self, metadata: str, split: str, entry: Entry) -> None:
        path, labels = os.fsencode(entry.path), json.dumps(entry.labels)
        query = "SELECT labels FROM images WHERE metadata = ? AND path = ?"
        (earlier,) = self._db.execute(query, (metadata, path)).fetchone()
        reason = DUPLICATE
        if earlier != labels:
            reason = f"labelled {', '.join(json.loads(earlier))} before"
            update = "UPDATE images SET other_labels = ? WHERE metadata = ? AND path = ? AND other_labels IS NULL"
            self._db.execute(update, (labels, metadata, path))
        self.reject(_counted_in(split, metadata), entry.path, reason)

    def _number(self, query: str, *values: str) -> int:
        number: int = self._db.execute(query, values).fetchone()[0]
        return number


def _row(metadata: str, entry: Entry, eval_fraction: float) -> tuple[str, str, bytes, bytes, str, int, str]:
    by_hash = split_of(entry.filename, eval_fraction)
    path, filename = os.fsencode(entry.path), os.fsencode(entry.filename)
    return metadata, entry.split or by_hash, path, filename, _to_json(entry.labels), _position(filename), by_hash


@functools.lru_cache(_KNOWN_LABELS)
def _to_json(labels: tuple[str, ...]) -> str:
    return json.dumps(labels)


@functools.lru_cache(_KNOWN_LABELS)
def _from_json(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))


def _counted_in(split: str, metadata: str) -> str:
    """The split that a rejected image counts in: its own, or its metadata's while that is not settled."""
    return split if split in (TRAIN, EVAL) else metadata


def _position(filename: bytes) -> int:
    """A position in the shuffled order that depends on the name only."""
    return int.from_bytes(hashlib.sha256(_SHUFFLE_SEED + filename).digest()[:8]) >> 1
