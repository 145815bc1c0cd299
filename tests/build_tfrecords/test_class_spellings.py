from __future__ import annotations

import logging

import pytest

from tests.build_tfrecords.support import pictures
from tf_image_classification import build_tfrecords
from tf_image_classification.build_tfrecords import class_spellings
from tf_image_classification.data.manifest import Task


@pytest.mark.parametrize(
    ("labels", "named"),
    [
        (("Red", "blue", "red"), "Red and red"),
        (("1", "1.0", "01", "2"), "1 and 1.0 and 01"),
        (("new york", "New_York", "new  york"), "new york and New_York and new  york"),
        (("Straße", "strasse"), "Straße and strasse"),
        (("NaN", "nan", "inf"), "NaN and nan"),
    ],
)
def test_classes_that_are_spelled_alike_are_named(caplog, labels, named):
    class_spellings.warn([Task("label", labels)])
    assert f"trained as different ones: {named}." in caplog.text


def test_different_classes_are_not(caplog):
    class_spellings.warn([Task("label", ("inf", "1", "2", "1a", "red", "reed"))])
    class_spellings.warn([Task("age", ("1",)), Task("size", ("1.0",))])
    assert not caplog.records


def test_names_of_a_missing_value_are_announced(caplog):
    class_spellings.warn([Task("label", ("NaN", "N/A", "nano", "cat"))])
    assert "the name of a missing value, and are trained as classes: NaN, N/A." in caplog.text


def test_a_folder_and_a_csv_are_compared_with_each_other(tmp_path, caplog):
    root = pictures(tmp_path / "photos", {"red": 30, "green": 30, "other": 30})
    (root / "other").rename(tmp_path / "other")
    (tmp_path / "more.csv").write_text("".join(f"other/{number:04}.png,Red\n" for number in range(30)))
    with caplog.at_level(logging.WARNING):
        build_tfrecords.build(f"{root},{tmp_path}/more.csv", str(tmp_path / "data"))
    assert "Red and red" in caplog.text
