"""Splits that a list names itself: what is trained on, what is evaluated, and what is left out."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.build_tfrecords.support import filenames, pictures
from tf_image_classification import build_tfrecords
from tf_image_classification.build_tfrecords import builder
from tf_image_classification.data.manifest import Manifest
from tf_image_classification.data.sources import ReadOptions, split_of
from tf_image_classification.errors import DataError, FlagError

BY_SPLIT = ReadOptions(split_column="split")
WORDS = {"a": "train", "b": "validation", "c": "test", "d": "unassigned"}


@pytest.fixture
def root(tmp_path) -> Path:
    """Sixty images of two classes."""
    return pictures(tmp_path / "photos", {"cat": 30, "dog": 30})


def listed(root: Path, name: str, words: str, header: bool = True) -> str:
    """A CSV whose lines are in the splits that the letters of `words` stand for, again and again."""
    paths = [f"{label}/{number:04}.png" for label in ("cat", "dog") for number in range(30)]
    lines = ["path,split,label"] if header else []
    for number, path in enumerate(paths):
        split, label = WORDS[words[number % len(words)]], path.split("/")[0]
        lines.append(f"{path},{split},{label}" if header else f"{split.upper()},{path},{label}")
    (root / name).write_text("\n".join(lines))
    return str(root / name)


def of(root: Path, table: str, word: str) -> set[str]:
    """The images of a CSV that are in a split."""
    with open(table, newline="") as file:
        return {row["path"] for row in csv.DictReader(file) if row["split"] == word}


def read(data: Manifest) -> tuple[set[str], set[str], dict[str, int]]:
    train, evaluated = (set(filenames(data, split)) for split in ("train", "eval"))
    assert sum(split.images for split in data.splits.values()) == 60
    return train, evaluated, data.rejected_reasons


def test_validation_lines_are_evaluated_and_test_lines_left_out_and_announced(root, tmp_path, caplog):
    table = listed(root, "images.csv", "aaabc")
    train, evaluated, rejected = read(build_tfrecords.build(table, str(tmp_path / "data"), options=BY_SPLIT))
    assert (train, evaluated) == (of(root, table, "train"), of(root, table, "validation"))
    assert rejected == {"in the test split": 12}
    assert "12 images of the train metadata are in the test split and left out" in caplog.text
    assert "in the test split" in (tmp_path / "data" / "rejected.csv").read_text()


def test_test_lines_are_evaluated_where_no_line_is_for_validation(root, tmp_path):
    table = listed(root, "images.csv", "aac")
    train, evaluated, rejected = read(build_tfrecords.build(table, str(tmp_path / "data"), options=BY_SPLIT))
    assert (train, evaluated, rejected) == (of(root, table, "train"), of(root, table, "test"), {})


def test_unassigned_lines_are_split_by_hash(root, tmp_path):
    table = listed(root, "images.csv", "abd")
    train, evaluated, _ = read(build_tfrecords.build(table, str(tmp_path / "data"), options=BY_SPLIT))
    held_out = {name for name in of(root, table, "unassigned") if split_of(name, 0.2) == "eval"}
    assert held_out
    assert evaluated == of(root, table, "validation") | held_out
    assert train == of(root, table, "train") | of(root, table, "unassigned") - held_out


def test_a_part_of_the_training_lines_is_held_out_where_all_lines_are_for_training(root, tmp_path, caplog):
    table = listed(root, "images.csv", "a")
    train, evaluated, _ = read(build_tfrecords.build(table, str(tmp_path / "data"), options=BY_SPLIT))
    assert evaluated == {name for name in train | evaluated if split_of(name, 0.2) == "eval"}
    assert "All lines of the training metadata are for training: --eval_fraction of them are held out" in caplog.text


def test_with_evaluation_metadata_training_lines_alone_are_trained_on(root, tmp_path):
    table, other = listed(root, "images.csv", "abcd"), listed(root, "other.csv", "bbbbbbbbbbbbbbc")
    data = build_tfrecords.build(table, str(tmp_path / "data"), eval_metadata=other, options=BY_SPLIT)
    assert set(filenames(data, "train")) == of(root, table, "train") | of(root, table, "unassigned")
    assert set(filenames(data, "eval")) == of(root, other, "validation")
    assert data.rejected_reasons == {"in the test split": 19, "in the validation split": 15}


@pytest.mark.parametrize(
    ("words", "evaluated"), [("abcd", "test"), ("abbd", "validation"), ("ad", "train unassigned"), ("d", "unassigned")]
)
def test_a_finished_model_is_evaluated_on_test_lines_else_validation_lines_else_all(root, tmp_path, words, evaluated):
    table = listed(root, "images.csv", words)
    tasks = build_tfrecords.build(str(root), str(tmp_path / "model")).tasks
    data = builder.build_eval(table, str(tmp_path / "data"), tasks, options=BY_SPLIT)
    expected = set().union(*(of(root, table, word) for word in evaluated.split()))
    assert set(filenames(data, "eval")) == expected
    assert data.splits["eval"].images == 60


def test_vertex_import_files_need_no_flag_and_mix_with_other_sources(root, tmp_path):
    table = listed(root, "import.csv", "abc", header=False)
    pictures(root / "more", {"cat": 10, "dog": 10})
    data = build_tfrecords.build(f"{table},{root}/more", str(tmp_path / "data"))
    assert data.rejected_reasons == {"in the test split": 20}
    assert sum(split.examples for split in data.splits.values()) == 60


def test_an_image_in_two_splits_or_under_two_labels_is_counted(root, tmp_path):
    lines = Path(listed(root, "images.csv", "aabc")).read_text().splitlines()
    lines += [lines[1].replace("train", "test"), lines[3].replace(",cat", ",dog"), lines[4].replace(",cat", ",dog")]
    (root / "images.csv").write_text("\n".join(lines))
    data = build_tfrecords.build(str(root / "images.csv"), str(tmp_path / "data"), options=BY_SPLIT)
    assert sum(split.images for split in data.splits.values()) == 63
    assert data.rejected_reasons == {
        "in the test split": 14,
        "labelled cat before": 2,
        "labelled dog later": 2,
        "duplicate of an earlier entry": 1,
    }


def test_a_word_that_is_no_split_and_a_column_that_is_missing_are_errors(root, tmp_path):
    table = listed(root, "images.csv", "ab")
    with pytest.raises(FlagError, match=r"no column that --split_column names.*--split_column fold.*split, label"):
        build_tfrecords.build(table, str(tmp_path / "data"), options=ReadOptions(split_column="fold"))
    with pytest.raises(FlagError, match="a folder has none"):
        build_tfrecords.build(str(root), str(tmp_path / "data"), options=BY_SPLIT)
    Path(table).write_text(Path(table).read_text().replace("validation", "holdout"))
    with pytest.raises(DataError, match=r"images.csv:3: holdout.*Expected: train or training"):
        build_tfrecords.build(table, str(tmp_path / "data"), options=BY_SPLIT)
