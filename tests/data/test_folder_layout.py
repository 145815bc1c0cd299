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
        (("training_set/cat/1", "test_set/cat/1"), "{0}/training_set --eval_metadata {0}/test_set"),
        (("seg_train/seg_train/sea/1", "seg_test/seg_test/sea/1", "seg_pred/1"), "{0}/seg_train/seg_train --eval_"),
        (("ILSVRC_train/n01/1", "ILSVRC_val/n01/1"), "{0}/ILSVRC_train --eval_metadata {0}/ILSVRC_val"),
        (("trn/cat/1", "tst/cat/1"), "--train_metadata {0}/trn --eval_metadata {0}/tst"),
        (("fold1/cat/1", "fold2/cat/1", "fold2/dog/1"), "Give some as --train_metadata, and another as"),
        (("train/images/cat/1", "val/images/cat/1"), "{0}/train/images --eval_metadata {0}/val/images"),
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


@pytest.mark.parametrize(
    "names", [("train_station/near/1", "test_tube/far/1"), ("train_images/1", "val_images/1"), ("fold/a/1", "cat/a/1")]
)
def test_names_that_only_contain_words_of_splits_are_classes(root, names):
    write(root, *names)
    assert classes(root) == {name.partition("/")[0] for name in names}


def test_folders_of_images_that_are_all_named_like_splits_are_announced(root, caplog):
    write(root, "train_images/1", "val_images/1")
    assert len(classes(root)) == 2
    assert "the folder train_images, val_images counts as a class, although it has the name of a split" in caplog.text


def test_folders_with_the_same_sub_folders_are_announced(root, caplog):
    write(root, "apprentissage/cat/1", "apprentissage/dog/1", "essai/cat/1", "essai/dog/1")
    assert classes(root) == {"apprentissage", "essai"}
    assert (
        "its folders, apprentissage, essai, all have the sub-folders cat, dog. If these are the classes" in caplog.text
    )


def test_folders_without_files_are_announced(tmp_path, caplog):
    write(str(tmp_path), "cat/1", "dog/2")
    (tmp_path / "bird").mkdir()
    assert classes(str(tmp_path)) == {"cat", "dog"}
    assert "folders without files are no classes: bird" in caplog.text


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
