"""Random lists, always the same ones: no traceback, and every physical line is an image or has a reason."""

from __future__ import annotations

import csv
import random
import re

import pytest

from tests.build_tfrecords.support import pictures
from tf_image_classification import build_tfrecords
from tf_image_classification.data import sources
from tf_image_classification.data.sources import ReadOptions
from tf_image_classification.data.sources.csv_layout import PATH_COLUMNS
from tf_image_classification.errors import UserError

TEXTS = 2000
BUILDS = 60

_COMMON = ["a.jpg", "b/c.png", ",", ",", ",", "\n", "\n", "\n", "\r\n", "cat", "dog", " ", "1", "0", "test", "training"]
_ODD = ['"', '""', "'", "\r", ";", "\t", "|", "\\", "C:\\x.jpg", "..", "/", "//", "gs://b/x.jpg", "gs://", "http://x/y"]
_ODD += [
    "path",
    "path,label\n",
    "path,label,split\n",
    "label",
    "split",
    "sep=,\n",
    "sep=;\n",
    "1.0",
    "\ufeff",
    "\u2028",
]
_ODD += [
    "\x0b",
    "\x0c",
    "\x1c",
    "\x85",
    "\xa0",
    "é",
    "猫",
    "e\u0301",
    "=",
    "#",
    "?",
    "*",
    "[",
    "x" * 300,
]
_ODD += ['{"imageGcsUri": "a.jpg", "classificationAnnotation": {"displayName": "cat"}}', "{", "}", "[]", "null"]
_BYTES = [b"\0", b"\xff", b"\x93", b"\xed\xa0\x80", b"\x1f\x8b", b"\xff\xfe", b"x" * 140_000]


def random_list(generator: random.Random) -> bytes:
    """Text of common and odd pieces; one in ten also has bytes that are no text, or a huge field."""
    odd = generator.choice([0.0, 0.02, 0.1, 0.5])
    pieces = [
        generator.choice(_ODD if generator.random() < odd else _COMMON).encode()
        for _ in range(generator.randrange(1, 60))
    ]
    if generator.random() < 0.1:
        pieces.insert(generator.randrange(len(pieces) + 1), generator.choice(_BYTES))
    header = generator.choice([b"", b"path,label\n", b"image\tlabel\n", b"file;a;b\r\n", b"path,label,split\n"])
    return header + b"".join(pieces)


def lines_of(content: bytes) -> list[str]:
    """The lines that are not blank, without what names the separator."""
    lines = [line.removeprefix("\ufeff") for line in re.split(r"\r\n|\r|\n", content.decode())]
    if re.fullmatch(r"sep=.\s*", lines[0], re.IGNORECASE):
        lines = lines[1:]
    return [line for line in lines if line.strip()]


def test_random_lists_are_read_to_their_last_line_or_refused_in_words(tmp_path):
    generator, outcomes = random.Random(11), {"read": 0, "refused": 0}
    for number in range(TEXTS):
        path = tmp_path / f"list{generator.choice(['.csv', '.csv', '.tsv', '.txt', '.jsonl'])}"
        path.write_bytes(content := random_list(generator))
        options = ReadOptions(split_column=generator.choice([None, None, "split"]))
        try:
            found = sources.expand(str(path))
            sources.check_split_column(found, options)
            count = len(list(sources.read_entries(found, options)))
        except UserError as error:
            assert "\n" not in str(error), number
            assert path.name in str(error) or "--split_column" in str(error), (number, str(error))
            outcomes["refused"] += 1
            continue
        lines = lines_of(content)
        first = re.sub(r"[\s_-]", "", re.split(r"[,;\t ]", lines[0].strip())[0].strip('" ')).casefold()
        assert count == len(lines) - (first in PATH_COLUMNS and path.suffix != ".jsonl"), (number, content)
        outcomes["read"] += 1
    assert min(outcomes.values()) > TEXTS / 10, outcomes


def test_random_lists_of_real_images_are_written_or_rejected_line_by_line(tmp_path):
    root = pictures(tmp_path / "photos", {"cat": 8, "dog": 8})
    generator, built = random.Random(12), 0
    for number in range(BUILDS):
        path = root / "list.csv"
        lines = _lines(generator)
        path.write_text("\n".join(lines))
        try:
            data = build_tfrecords.build(str(path), str(tmp_path / "data"), eval_fraction=0.5, workers=1)
        except UserError:
            continue
        with open(tmp_path / "data" / "rejected.csv", newline="") as file:
            rejected = len(list(csv.DictReader(file)))
        written = sum(split.examples for split in data.splits.values())
        assert written + rejected == len(lines), (number, lines)
        assert sum(split.images for split in data.splits.values()) == len(lines)
        built += 1
    assert built > BUILDS / 3


def _lines(generator: random.Random) -> list[str]:
    """Lines for the photos, some of them wrong, repeated, contradictory, or in a split."""
    lines = []
    for _ in range(generator.randrange(20, 60)):
        label = generator.choice(["cat", "dog"])
        line = f"{label}/{generator.randrange(8):04}.png,{label}"
        if (kind := generator.random()) < 0.05:
            line = generator.choice(
                [",", "x.png", ",cat", "a.png,b,", f"{line[:-3]}owl", line.replace("/", "\\"), '"a",b']
            )
        elif kind < 0.1:
            line = f"{generator.choice(['test', 'TRAIN', 'validation', 'unassigned'])},{line}"
        lines.append(line)
    return lines


@pytest.mark.slow
def test_many_more_random_lists_are_read_or_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.TEXTS", 20_000)
    test_random_lists_are_read_to_their_last_line_or_refused_in_words(tmp_path)
