"""TFRecords given as metadata: checked and listed, not copied."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import pytest
from PIL import Image

from tests.build_tfrecords.records import build, original, picture, slim, write
from tf_image_classification import build_tfrecords
from tf_image_classification.build_tfrecords import images
from tf_image_classification.data import manifest, tfrecord
from tf_image_classification.data.manifest import Task
from tf_image_classification.errors import DataError

CAT_DOG = ("cat", "dog")


def test_the_originals_own_tfrecords_are_listed_where_they_are(mini_mnist, tmp_path):
    folder = mini_mnist / "dataset" / "tf_records"
    data = build_tfrecords.build(
        f"{folder}/train*",
        str(tmp_path / "data"),
        eval_metadata=f"{folder}/eval*",
        labels_file=str(mini_mnist / "labels.txt"),
    )
    names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    assert data.tasks == (Task("label", names, "class_id"),)
    train, evaluation = data.splits["train"], data.splits["eval"]
    assert (train.examples, evaluation.examples) == (train.images, evaluation.images) == (418, 182)
    assert (train.schema, train.compression) == ("original", "GZIP")
    assert train.class_counts["label"]["seven"] == 43
    (path,) = data.shard_paths("train")
    assert path == str(folder / "train-00000-of-00001.tfrecord.gz")
    assert train.shards[0].crc32c == tfrecord.file_crc32c(path)
    assert not list((tmp_path / "data").glob("*tfrecord*"))
    assert manifest.read(str(tmp_path / "data")) == data


def test_gzip_files_that_together_unpack_to_many_times_their_size_are_refused(tmp_path, monkeypatch):
    example = slim(0, padding=bytes(2**15))
    files = [write(tmp_path / name, [example] * 2, zipped=True) for name in "abc"]
    monkeypatch.setattr(tfrecord, "_MAY_UNPACK", 5 * 2**15)  # one file is below it
    with pytest.raises(DataError, match="unpack to more than 32 times their size"):
        build_tfrecords.check(",".join(files), eval_metadata=files[0])


def test_records_of_16_bit_grey_have_thumbnails(tmp_path):
    file = io.BytesIO()
    Image.new("I;16", (400, 400), 30_000).save(file, "PNG")
    examples = [{"image/encoded": file.getvalue(), "image/class/label": number} for number in (0, 1)]
    assert build(tmp_path, examples).splits["train"].examples == 2
    grey = Image.open(io.BytesIO(images.thumbnail(file.getvalue())))
    assert grey.getpixel((50, 50)) == pytest.approx((117, 117, 117), abs=2)


def test_class_names_are_the_texts_beside_the_ids_else_the_ids(tmp_path):
    assert build(tmp_path, [slim(0, "cat"), slim(1, "dog")]).tasks[0].labels == CAT_DOG
    assert build(tmp_path, [slim(0), slim(1), slim(2)], [slim(2)]).tasks[0].labels == ("0", "1", "2")
    gap = build(tmp_path, [slim(0, "cat"), slim(2, "dog")], allow_missing_classes=True)
    assert gap.tasks[0].labels == ("cat", "1", "dog")


def test_a_labels_file_names_the_classes(tmp_path):
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    data = build(tmp_path, [original(animal=1.0), original(animal=0.0)], labels_file=str(tmp_path / "labels.txt"))
    assert data.tasks == (Task("label", CAT_DOG, "animal"),)
    assert data.splits["train"].class_counts == {"label": {"cat": 1, "dog": 1}}


def test_several_floats_are_several_tasks_and_fractions_a_regression(tmp_path):
    data = build(tmp_path, [original(age=20.5, gender=0.0), original(age=30.0, gender=1.0)])
    assert data.tasks == (Task("age", (), "age"), Task("gender", ("0", "1"), "gender"))


def test_tasks_of_built_shards_are_recognised_by_their_feature_names(tmp_path):
    example = {
        "image/encoded": picture(),
        "image/class/age/label": 0,
        "image/class/gender/label": 1,
        "image/class/gender/text": b"m",
    }
    data = build(
        tmp_path,
        [
            example,
            {**example, "image/class/age/label": 1, "image/class/gender/label": 0, "image/class/gender/text": b"f"},
        ],
    )
    assert data.tasks == (
        Task("age", ("0", "1"), "image/class/age/label"),
        Task("gender", ("f", "m"), "image/class/gender/label"),
    )


@pytest.mark.parametrize(
    ("examples", "problem"),
    [
        ([slim(0), {"image/encoded": picture()}], "it has no label.*record 1"),
        ([slim(0), {"image/encoded": b"", "image/class/label": 1}], "neither JPEG nor PNG.*record 1"),
        ([slim(0), slim(1) | {"image/encoded": picture()[:-20]}], "truncated image.*record 1"),
        ([slim(0), {"something": 1}], "its features are something.*record 1"),
        ([slim(0, "cat"), slim(0, "dog")], "it calls class 0 dog, an earlier one cat"),
        (
            [original(age=1.0), original(age=1.0, gender=1.0)],
            "its labels are age, gender, those of the first record age",
        ),
        ([original(age=-1.0), original(age=1.0)], "without a label"),
        ([], "no examples"),
        ([slim(0), slim(0)], "single class"),
    ],
)
def test_a_record_that_cannot_be_used_is_an_error_that_names_it(tmp_path, examples, problem):
    with pytest.raises(DataError, match=problem):
        build(tmp_path, examples)
    assert not (tmp_path / "data").exists()


def test_files_that_differ_are_refused(tmp_path):
    with pytest.raises(DataError, match="do not hold the same features"):
        build(tmp_path, [slim(0), slim(1)], [original(x=0.0), original(x=1.0)])
    plain, zipped = write(tmp_path / "a", [slim(0), slim(1)]), write(tmp_path / "b", [slim(0)], zipped=True)
    with pytest.raises(DataError, match="Some of the TFRecords are compressed, some are not"):
        build_tfrecords.build(f"{plain},{zipped}", str(tmp_path / "data"), eval_metadata=plain)


def test_labels_beyond_the_labels_file_are_refused(tmp_path):
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    with pytest.raises(DataError, match=r"not in labels.*image/class/label 2.*from 0 to 1"):
        build(tmp_path, [slim(0), slim(1)], [slim(2)], labels_file=str(tmp_path / "labels.txt"))
    with pytest.raises(DataError, match=r"Received: horse for class 1\. Expected: dog"):
        build(tmp_path, [slim(0, "cat"), slim(1, "horse")], labels_file=str(tmp_path / "labels.txt"))


def test_tfrecords_cannot_be_split(tmp_path):
    with pytest.raises(DataError, match=r"TFRecords cannot be split.*--eval_metadata"):
        build_tfrecords.build(write(tmp_path / "train", [slim(0), slim(1)]), str(tmp_path / "data"))


def folder_of_images(root: Path) -> str:
    for name in CAT_DOG:
        (root / name).mkdir(parents=True)
        for number in range(20):
            (root / name / f"{number}.png").write_bytes(picture())
    return str(root)


def test_a_built_data_set_is_metadata_of_its_own_two_splits(tmp_path):
    built = build_tfrecords.build(folder_of_images(tmp_path / "photos"), str(tmp_path / "built"))
    data = build_tfrecords.build(str(tmp_path / "built"), str(tmp_path / "data"))
    assert data.tasks == built.tasks
    for split in ("train", "eval"):
        assert data.shard_paths(split) == built.shard_paths(split)
        assert data.splits[split].class_counts == built.splits[split].class_counts
    again = build_tfrecords.build_eval(str(tmp_path / "data"), str(tmp_path / "again"), built.tasks)
    assert again.shard_paths("eval") == built.shard_paths("eval")


def test_a_shard_that_has_changed_or_is_gone_is_noticed(tmp_path):
    built = build_tfrecords.build(folder_of_images(tmp_path / "photos"), str(tmp_path / "built"))
    shard = Path(built.shard_paths("eval")[0])
    first = next(tfrecord.read(str(shard)))
    shard.write_bytes(tfrecord.frame(first))
    with pytest.raises(DataError, match="changed since it was built"):
        build_tfrecords.build(str(tmp_path / "built"), str(tmp_path / "data"))
    shard.unlink()
    with pytest.raises(DataError, match="A shard is missing"):
        build_tfrecords.build(str(tmp_path / "built"), str(tmp_path / "data"), fingerprint="f")


def test_images_and_built_shards_are_the_two_splits_if_their_labels_agree(tmp_path):
    photos = folder_of_images(tmp_path / "photos")
    shards = write(tmp_path / "shards.tfrecord", [slim(0, "cat"), slim(1, "dog")])
    for train, evaluation in ((photos, shards), (shards, photos)):
        data = build_tfrecords.build(train, str(tmp_path / "data"), eval_metadata=evaluation)
        assert list(data.splits) == ["train", "eval"]
        assert data.tasks[0].labels == CAT_DOG
        assert sorted(split.examples for split in data.splits.values()) == [2, 40]
    others = write(tmp_path / "others.tfrecord", [slim(0, "dog"), slim(1, "cat")])
    with pytest.raises(DataError, match="other class names"):
        build_tfrecords.build(photos, str(tmp_path / "other"), eval_metadata=others)


def test_images_and_the_originals_schema_are_not_mixed(tmp_path):
    photos, shards = (
        folder_of_images(tmp_path / "photos"),
        write(tmp_path / "old.gz", [original(x=0.0), original(x=1.0)], zipped=True),
    )
    for train, evaluation in ((photos, shards), (shards, photos)):
        with pytest.raises(DataError, match="One split is images, the other TFRecords with other features"):
            build_tfrecords.build(train, str(tmp_path / "data"), eval_metadata=evaluation)


def test_an_evaluation_split_of_tfrecords_takes_the_models_names(tmp_path):
    path = write(tmp_path / "eval.gz", [original(animal=1.0), original(animal=0.0)], zipped=True)
    data = build_tfrecords.build_eval(path, str(tmp_path / "data"), (Task("label", CAT_DOG),))
    assert data.tasks == (Task("label", CAT_DOG, "animal"),)
    assert data.splits["eval"].class_counts == {"label": {"cat": 1, "dog": 1}}


def test_tfrecords_of_both_splits_are_announced(tmp_path, caplog):
    same, other = [slim(0, "cat"), slim(1, "dog")], [slim(1, "dog"), slim(0, "cat")]
    with caplog.at_level(logging.WARNING):
        build(tmp_path, same, other)
        assert not caplog.records
        build(tmp_path, same)
    assert f"2 of the examples that are evaluated are in TFRecords that are also trained on: {tmp_path}/eval" in (
        caplog.text.replace("the evaluation will be too good: ", "")
    )
