"""Folders whose sub-folders are no classes are refused, with what to give instead."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.build_tfrecords.support import pictures
from tests.standin import bucket as standin
from tf_image_classification import build_tfrecords, storage
from tf_image_classification.data import sources
from tf_image_classification.data.sources import Entry, Rejected
from tf_image_classification.errors import DataError, FlagError


@pytest.fixture(params=["local", "bucket"])
def root(request, tmp_path) -> Iterator[str]:
    """An empty folder, local or in a bucket."""
    if request.param == "local":
        yield str(tmp_path)
        return
    with standin.serving("photos") as url, pytest.MonkeyPatch.context() as environment:
        environment.setenv("STORAGE_EMULATOR_HOST", url)
        yield "gs://photos/data"


def write(root: str, *names: str) -> None:
    for name in names:
        if not storage.is_gcs(root):
            Path(root, name).parent.mkdir(parents=True, exist_ok=True)
        storage.write_text(f"{root}/{name}", "x")


def classes(root: str) -> set[str]:
    return {entry.labels[0] for entry in sources.read_entries(sources.expand(root)) if isinstance(entry, Entry)}


@pytest.mark.parametrize(
    ("names", "flags"),
    [
        (("train/cat/1", "valid/cat/1", "test/cat/1"), "--train_metadata {0}/train --eval_metadata {0}/valid"),
        (("Training/cat/1", "TESTING/dog/1"), "--train_metadata {0}/Training --eval_metadata {0}/TESTING"),
        (("train/cat/1", "val/cat/1", "unlabeled/1", "README", "labels.txt"), "{0}/train --eval_metadata {0}/val"),
        (("train/cat/1", "dev/cat/1", "something/1", "cat/2"), "--train_metadata {0}/train --eval_metadata {0}/dev"),
        (("train/cat/1", "test/1", "test/2"), "Give --train_metadata {0}/train."),  # as Kaggle gives test images
        (("train/cat/1", "__MACOSX/train/cat/1"), "Give --train_metadata {0}/train."),
        (("holdout/cat/1", "eval/cat/1"), "Give --eval_metadata {0}/eval."),
    ],
)
def test_splits_are_refused_with_the_flags_to_give(root, names, flags):
    write(root, *names)
    with pytest.raises(FlagError, match="splits, not classes") as raised:
        sources.expand(root)
    assert flags.format(root) in str(raised.value)


def test_splits_without_classes_are_refused(root):
    write(root, "train/1", "test/1", "list.txt")
    with pytest.raises(FlagError, match=r"splits, not classes, and hold no class folders.*write a CSV"):
        sources.expand(root)


def test_a_class_with_the_name_of_a_split_is_one_beside_others_with_a_warning(root, caplog):
    write(root, "test/1", "cat/1", "dog/1", "dog/deep/2")
    assert classes(root) == {"test", "cat", "dog"}
    assert "the folder test counts as a class" in caplog.text


def test_images_beside_their_annotations_are_no_classes(root):
    write(root, "images/cat_1", "annotations/trimaps/cat_1", "README")
    with pytest.raises(FlagError, match=f"no classes.*give {root}/images.*write a CSV"):
        sources.expand(root)
    write(root, "birds/1")
    assert classes(root) == {"images", "annotations", "birds"}


def test_a_folder_around_the_classes_is_said(root, caplog):
    write(root, "photos/photos/cat/1", "photos/photos/dog/1", "__MACOSX/photos/1", ".git/x")
    assert classes(root) == {"photos"}
    assert f"If its sub-folders are the classes, give {root}/photos/photos\n" in caplog.text


def test_the_error_about_a_single_class_names_the_folder_of_the_classes(tmp_path):
    pictures(tmp_path / "all" / "photos", {"cat": 20, "dog": 20})
    with pytest.raises(DataError, match=f"single class.*sub-folders of {tmp_path}/all/photos, give this folder"):
        build_tfrecords.build(str(tmp_path / "all"), str(tmp_path / "data"))


def test_what_a_system_hides_is_rejected_and_announced(root, caplog):
    caplog.set_level(logging.WARNING)
    write(root, "cat/1", "dog/1", "__MACOSX/cat/1", "cat/@eaDir/1/thumb", ".thumbnails/a", ".thumbnails/b", "cat/.2")
    assert classes(root) == {"cat", "dog"}
    found = list(sources.read_entries(sources.expand(root)))
    assert {entry for entry in found if isinstance(entry, Rejected)} == {
        Rejected(f"{root}/__MACOSX/cat/1", "in a folder of the system"),
        Rejected(f"{root}/cat/@eaDir/1/thumb", "in a folder of the system"),
        Rejected(f"{root}/.thumbnails/", "hidden file or folder"),
        Rejected(f"{root}/cat/.2", "hidden file or folder"),
    }
    assert "2 left out: hidden file or folder" in caplog.text
    assert "2 left out: in a folder of the system" in caplog.text


def test_tfrecords_beside_the_folder_of_a_system_are_found(root):
    write(root, "a.tfrecord", "__MACOSX/a.tfrecord", "@eaDir/a.tfrecord/thumb")
    assert [source.path for source in sources.expand(root)] == [root]
    assert sources.expand(root)[0].files("train")[0].path == f"{root}/a.tfrecord"
