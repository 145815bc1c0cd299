"""Classes without a training example: an error that names them and the likely cause, for images and TFRecords."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from tests.build_tfrecords.records import build, original, slim, write
from tests.build_tfrecords.support import command, pictures
from tests.conftest import SHARED_CASES
from tf_image_classification import build_tfrecords
from tf_image_classification.data import manifest
from tf_image_classification.errors import DataError

CASES = SHARED_CASES / "tfrecord"
with_cases = pytest.mark.skipif(not CASES.exists(), reason="the shared cases are not here")


def labels_file(tmp_path: Path, *names: str) -> str:
    (tmp_path / "labels.txt").write_text("\n".join(names))
    return str(tmp_path / "labels.txt")


def test_ids_from_1_leave_a_phantom_class_0(tmp_path):
    with pytest.raises(
        DataError, match=r"^1 of 4 classes .* Received: 0\. .*Labels start at 1: class 0 has no example.*background"
    ) as refused:
        build(tmp_path, [slim(1), slim(2), slim(3)])
    assert "--allow_missing_classes" in str(refused.value)
    assert not (tmp_path / "data").exists()


def test_ids_from_1_with_a_labels_file_one_line_too_long_shift_every_name(tmp_path):
    names = labels_file(tmp_path, "red", "green", "blue", "yellow")
    with pytest.raises(DataError, match=r"Received: red\. .*off by one: id 1 is now called green"):
        build(tmp_path, [slim(1), slim(2), slim(3)], labels_file=names)


def test_ids_from_1_beyond_a_labels_file_are_called_off_by_one(tmp_path):
    with pytest.raises(DataError, match=r"not in labels.*image/class/label 2.*ids start at 1 \(off by one\)"):
        build(tmp_path, [slim(1), slim(2)], labels_file=labels_file(tmp_path, "red", "green"))


def test_a_labels_file_one_line_too_long_is_named_as_the_cause(tmp_path):
    names = labels_file(tmp_path, "background", "red", "green")
    with pytest.raises(DataError, match=r"Received: green\. .*one line more than there are classes.*background line"):
        build(tmp_path, [slim(0), slim(1)], labels_file=names)


def test_a_gap_is_named_abridged(tmp_path):
    with pytest.raises(DataError, match=r"4,998 of 5,001 classes.*Received: 1, 2, .*gap: 0, 17, 5000") as refused:
        build(tmp_path, [slim(0), slim(17), slim(5000)])
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize("large", [100_000, 2**63 - 1])
def test_hashes_and_other_large_numbers_are_no_class_ids(tmp_path, large):
    examples = [slim(0), slim(1), slim(large)]
    with pytest.raises(DataError, match=f"too large for class ids. Received: image/class/label {large}"):
        build(tmp_path, examples)
    (task,) = build(tmp_path, examples, allow_missing_classes=True).tasks
    assert task.holds_numbers


def test_a_class_on_the_evaluation_side_only_is_named(tmp_path):
    with pytest.raises(DataError, match=r"Received: green\. .*evaluation side only"):
        build(tmp_path, [slim(0, "red"), slim(2, "blue")], [slim(0, "red"), slim(1, "green")])


def test_floats_of_the_originals_schema_obey_the_same_rule(tmp_path):
    with pytest.raises(DataError, match=r"1 of 3 classes.*Received: 0\. .*start at 1"):
        build(tmp_path, [original(animal=1.0), original(animal=2.0)])
    with pytest.raises(DataError, match=r"numbers to predict and no class ids, accept this\. --allow_missing"):
        build(tmp_path, [original(age=0.0), original(age=70.0)])


def test_the_flag_accepts_them_with_a_warning(tmp_path, caplog):
    data = build(tmp_path, [slim(0, "red"), slim(2, "blue")], allow_missing_classes=True)
    assert data.splits["train"].class_counts["label"] == {"red": 1, "1": 0, "blue": 1}
    assert "1 of 3 classes have no training example: 1." in caplog.text


def test_a_data_set_that_was_built_with_the_flag_is_taken_with_a_warning(tmp_path, caplog):
    build(tmp_path, [slim(0, "red"), slim(2, "blue")], allow_missing_classes=True)
    caplog.clear()
    again = build_tfrecords.build(str(tmp_path / "data"), str(tmp_path / "again"))
    assert again.tasks[0].labels == ("red", "1", "blue")
    assert "1 of 3 classes have no training example" in caplog.text


def test_an_older_data_set_with_a_phantom_class_is_still_taken(tmp_path):
    data = build(tmp_path, [slim(0), slim(1)])
    renamed = replace(data.tasks[0], labels=("a", "b", "phantom"))
    replace(data, tasks=(renamed,)).write(str(tmp_path / "data"))
    assert build_tfrecords.build(str(tmp_path / "data"), str(tmp_path / "again")).tasks == (renamed,)


def test_images_obey_the_same_rule_and_the_same_flag(tmp_path, caplog):
    root, names = (
        pictures(tmp_path / "photos", {"cat": 30, "dog": 30}),
        labels_file(tmp_path, "background", "cat", "dog"),
    )
    with pytest.raises(DataError, match=r"1 of 3 classes.*Received: background\. .*--allow_missing_classes"):
        build_tfrecords.build(str(root), str(tmp_path / "data"), labels_file=names)
    data = build_tfrecords.build(str(root), str(tmp_path / "data"), labels_file=names, allow_missing_classes=True)
    assert data.splits["train"].class_counts["label"]["background"] == 0
    assert caplog.text.count("1 of 3 classes have no training image: background") == 1


def test_evaluation_images_that_are_left_out_for_their_class_are_warned_of(tmp_path, caplog):
    train, held_out = (
        pictures(tmp_path / "train", {"cat": 9, "dog": 9}),
        pictures(tmp_path / "eval", {"dog": 3, "owl": 2}),
    )
    build_tfrecords.build(str(train), str(tmp_path / "data"), eval_metadata=str(held_out))
    assert "2 evaluation images are rejected: their classes are not in the labels (owl)" in caplog.text


def test_ids_that_are_their_own_names_are_announced(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        build(tmp_path, [slim(0), slim(1)])
    assert (
        "no names (no image/class/text) for 2 class ids, which are taken for the names themselves: 0, 1" in caplog.text
    )
    caplog.clear()
    build(tmp_path, [slim(0, "cat"), slim(1, "dog")], [slim(1, "dog"), slim(0, "cat")])
    assert not caplog.records


def test_ids_without_names_are_announced_with_the_names_that_a_labels_file_gives_them(tmp_path, caplog):
    build(tmp_path, [slim(0), slim(1)], labels_file=labels_file(tmp_path, "cat", "dog"))
    assert "taken for positions in the labels file, counted from 0: 0 = cat, 1 = dog" in caplog.text


def test_ids_without_names_beside_images_are_announced_and_counted(tmp_path, caplog):
    photos = str(pictures(tmp_path / "photos", {"cat": 5, "dog": 5}))
    nameless = write(tmp_path / "eval", [slim(0), slim(1)])
    build_tfrecords.build(photos, str(tmp_path / "data"), eval_metadata=nameless)
    assert "positions in the classes of the training images, counted from 0: 0 = cat, 1 = dog" in caplog.text
    fewer = write(tmp_path / "fewer", [slim(1)])
    with pytest.raises(DataError, match=r"do not name their classes.*1 in image/class/label: 1\. Expected: 2"):
        build_tfrecords.build(photos, str(tmp_path / "data"), eval_metadata=fewer)
    build_tfrecords.build(photos, str(tmp_path / "data"), eval_metadata=fewer, allow_missing_classes=True)


def test_ids_without_names_are_not_taken_for_another_files_or_data_sets_in_silence(tmp_path, caplog):
    named, nameless = [slim(0, "cat"), slim(1, "dog")], [slim(0), slim(1)]
    build(tmp_path, named, nameless)
    assert "positions in the names that the other TFRecords give, counted from 0: 0 = cat, 1 = dog" in caplog.text
    caplog.clear()
    path = write(tmp_path / "others", nameless)
    build_tfrecords.build(str(tmp_path / "data"), str(tmp_path / "two"), eval_metadata=path)
    assert "positions in the data set's classes, counted from 0: 0 = cat, 1 = dog" in caplog.text


def test_data_sets_that_give_the_same_id_other_names_are_not_mixed(tmp_path):
    for name, classes in (("one", ("cat", "dog")), ("two", ("dog", "cat"))):
        (tmp_path / name).mkdir()
        build(tmp_path / name, [slim(0), slim(1)], labels_file=labels_file(tmp_path, *classes))
    with pytest.raises(DataError, match=r"other class names for the ids.*Received: dog for class 0\. Expected: cat"):
        build_tfrecords.build(
            str(tmp_path / "one/data"), str(tmp_path / "data"), eval_metadata=str(tmp_path / "two/data")
        )


def test_the_command_takes_the_flag(tmp_path):
    path = write(tmp_path / "train", [slim(1), slim(2)])
    call = ["--train_metadata", path, "--eval_metadata", path, "--output_dir", tmp_path / "data"]
    assert command(*call).returncode == 1
    assert command(*call, "--allow_missing_classes").returncode == 0
    assert manifest.read(str(tmp_path / "data")).tasks[0].labels == ("0", "1", "2")


@with_cases
@pytest.mark.parametrize(
    ("case", "options", "words"),
    [
        ("gap", {}, "Received: green.*evaluation side only"),
        ("one_based_no_text", {}, "Received: 0.*Labels start at 1"),
        (
            "one_based_no_text",
            {"labels_file": str(CASES / "labels_one_too_long.txt")},
            "Received: red.*id 1 is now called green",
        ),
        ("float_label", {}, r"image/class/label is float instead of one value of kind int64.*record 0"),
        ("int_filename", {}, r"image/filename is int64 instead of one value of kind bytes.*record 0"),
    ],
)
def test_the_shared_cases_are_refused_with_the_cause(tmp_path, case, options, words):
    with pytest.raises(DataError, match=words):
        build_tfrecords.build(
            str(CASES / case / "train.tfrecord"),
            str(tmp_path / "data"),
            eval_metadata=str(CASES / case / "eval.tfrecord"),
            **options,
        )
