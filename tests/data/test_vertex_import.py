"""Import files of Vertex AI and AutoML: `[ML_USE,]path,label` lines, or JSON Lines."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.data.test_sources import entries, write
from tf_image_classification.data import sources
from tf_image_classification.data.sources import Entry, Rejected
from tf_image_classification.errors import DataError, FlagError


def line(uri: str | None = "gs://b/a.jpg", label: str | None = "daisy", ml_use: str | None = None, **more: Any) -> str:
    item: dict[str, Any] = {} if uri is None else {"imageGcsUri": uri}
    if label is not None:
        item["classificationAnnotation"] = {
            "displayName": label,
            "annotationResourceLabels": {"aiplatform.googleapis.com/annotation_set_name": "1"},
        }
    item["dataItemResourceLabels"] = {} if ml_use is None else {"aiplatform.googleapis.com/ml_use": ml_use}
    return json.dumps(item | more)


def splits(path: str) -> list[tuple[str, str, str | None]]:
    return [(entry.path, *entry.labels, entry.split) for entry in entries(path, "gs://b") if isinstance(entry, Entry)]


EXPECTED = [
    ("gs://b/1.jpg", "daisy", "training"),
    ("gs://b/2.jpg", "tulip", "validation"),
    ("gs://b/3.jpg", "daisy", "test"),
    ("gs://b/4.jpg", "tulip", "unassigned"),
    ("gs://b/5.jpg", "daisy", "unassigned"),
]


@pytest.mark.parametrize("first", range(5))
def test_a_csv_names_the_split_first_in_any_case_or_not_at_all(tmp_path, first):
    lines = [
        "TRAIN,gs://b/1.jpg,daisy",
        "Validation,gs://b/2.jpg,tulip",
        "test,gs://b/3.jpg,daisy",
        "UNASSIGNED,gs://b/4.jpg,tulip",
        "gs://b/5.jpg,daisy",
    ]
    lines = lines[first:] + lines[:first]
    table = write(tmp_path / "import.csv", "\n".join(lines))
    assert sorted(splits(table)) == EXPECTED
    assert sources.task_names(sources.expand(table)) == ("label",)


def test_a_line_of_a_csv_without_a_label_is_rejected(tmp_path):
    table = write(tmp_path / "import.csv", "gs://b/1.jpg\ntraining,gs://b/2.jpg\ntest,gs://b/3.jpg,\ntest,,daisy\n")
    assert entries(table, "gs://b") == [
        Rejected("gs://b/1.jpg", "no label"),
        Rejected("gs://b/2.jpg", "no label"),
        Rejected("gs://b/3.jpg", "no label"),
        Rejected(f"{table}:4", "no path"),
    ]


@pytest.mark.parametrize("bad", ["training,gs://b/1.jpg,daisy,tulip", "holdout,gs://b/1.jpg,daisy"])
def test_a_line_of_a_csv_with_several_labels_or_an_unknown_split_is_an_error(tmp_path, bad):
    table = write(tmp_path / "import.csv", f"training,gs://b/0.jpg,daisy\n{bad}\n")
    with pytest.raises(DataError, match=f"import.csv:2: {bad}.*training, validation, test, unassigned.*Multi-label"):
        entries(table)


def test_a_csv_of_bounding_boxes_is_called_object_detection(tmp_path):
    table = write(tmp_path / "import.csv", "TRAIN,gs://b/0.jpg,daisy,0.1,0.1,,,0.3,0.3,,\n")
    with pytest.raises(DataError, match=r"import.csv:1: .*Object detection, .*not supported"):
        entries(table)


def test_a_csv_without_splits_names_none(tmp_path):
    assert splits(write(tmp_path / "images.csv", "gs://b/1.jpg,daisy\n")) == [("gs://b/1.jpg", "daisy", None)]


def test_json_lines_name_image_class_and_split(tmp_path):
    rows = [
        line("gs://b/1.jpg", "daisy", "training"),
        line("gs://b/2.jpg", "tulip", "VALIDATION"),
        line("gs://b/3.jpg", "daisy", "test"),
        line("gs://b/4.jpg", "tulip", "unassigned"),
        line("gs://b/5.jpg", "daisy"),
    ]
    assert splits(write(tmp_path / "import.jsonl", "\r\n".join([*rows, "", ""]))) == EXPECTED


def test_a_json_line_that_cannot_be_used_is_rejected_by_its_line(tmp_path):
    rows = [line(), "{", "[]", line(uri=None), line(label=None), line(label=" "), line(uri="https://x.org/a.jpg")]
    path = write(tmp_path / "import.jsonl", "\n".join(rows))
    assert entries(path, "gs://b")[1:] == [
        Rejected(f"{path}:2", "not a JSON object"),
        Rejected(f"{path}:3", "not a JSON object"),
        Rejected(f"{path}:4", "no imageGcsUri"),
        Rejected(f"{path}:5", "no label"),
        Rejected("gs://b/a.jpg", "no label"),
        Rejected("https://x.org/a.jpg", "not a local, gs:// or s3:// path"),
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        ('{"image": "a.jpg", "class": "cat"}', "not in Vertex AI's import format.*import.jsonl:1: keys image, class"),
        ("hello", "not in Vertex AI's import format.*:1: hello"),
        (line() + "\n" + line(label=None, classificationAnnotations=[]), ":2.*single-label|multi-label.*:2"),
        (line(label=None, boundingBoxAnnotations=[]), "for object detection"),
        (line(ml_use="holdout"), "in no split that is known.*:1: holdout.*train or training; validation"),
    ],
)
def test_json_lines_of_another_format_are_an_error(tmp_path, content, words):
    with pytest.raises(DataError, match=words):
        entries(write(tmp_path / "import.jsonl", content))


@pytest.mark.parametrize(("name", "content"), [("a.jsonl", line()), ("a.csv", "test,a.jpg,daisy\n"), ("c/a.jpg", "x")])
def test_split_column_is_refused_where_there_are_no_columns_with_names(tmp_path, name, content):
    write(tmp_path / name, content)
    given = str(tmp_path) if "/" in name else str(tmp_path / name)
    options = sources.ReadOptions(split_column="split")
    with pytest.raises(FlagError, match=r"--split_column names a column.*Vertex AI's import files name their splits"):
        found = sources.expand(given)
        sources.check_split_column(found, options)
        list(sources.read_entries(found, options))
