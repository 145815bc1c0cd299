"""Features of TFRecords: their kinds are those that training parses, under slim's names or others."""

from __future__ import annotations

import io

import pytest
import tensorflow as tf
from PIL import Image

from tests.build_tfrecords.records import build, original, picture, slim, write
from tests.build_tfrecords.support import command, pictures
from tf_image_classification import build_tfrecords
from tf_image_classification.build_tfrecords import ReadOptions
from tf_image_classification.data import manifest
from tf_image_classification.errors import DataError, FlagError

TFDS = ReadOptions(image_feature="image", label_feature="label")


def serialised(**features: list) -> bytes:
    """A tf.train.Example with any number of values per feature; `__` in a name stands for a slash."""
    parts = {}
    for name, values in features.items():
        if values and isinstance(values[0], bytes):
            feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
        elif values and isinstance(values[0], float):
            feature = tf.train.Feature(float_list=tf.train.FloatList(value=values))
        else:
            feature = tf.train.Feature(int64_list=tf.train.Int64List(value=values))
        parts[name.replace("__", "/")] = feature
    return tf.train.Example(features=tf.train.Features(feature=parts)).SerializeToString()


SLIM = {"image__encoded": [picture()], "image__class__label": [1]}
ORIGINAL = {"image_bytes": [picture()], "age": [1.0]}


@pytest.mark.parametrize(
    ("features", "problem"),
    [
        (SLIM | {"image__class__label": [1.0]}, "image/class/label is float instead of one value of kind int64"),
        (SLIM | {"image__class__label": [b"cat"]}, "image/class/label is bytes instead of one value of kind int64"),
        (SLIM | {"image__class__label": [1, 2]}, "image/class/label is 2 x int64 instead of one"),
        (SLIM | {"image__class__label": []}, "image/class/label is empty instead of one"),
        (SLIM | {"image__encoded": [7]}, "image/encoded is int64 instead of one value of kind bytes"),
        (SLIM | {"image__encoded": [picture(), picture()]}, "image/encoded is 2 x bytes instead of one"),
        (SLIM | {"image__filename": [7]}, "image/filename is int64 instead of one value of kind bytes"),
        (SLIM | {"image__filename": []}, "image/filename is empty instead of one"),
        (SLIM | {"image__filename": [b"a", b"b"]}, "image/filename is 2 x bytes instead of one"),
        (SLIM | {"image__class__text": [1]}, "image/class/text is int64 instead of one value of kind bytes"),
        (SLIM | {"image__class__text": [b"caf\xe9"]}, r"image/class/text is not UTF-8: b'caf\\xe9'"),
        (ORIGINAL | {"image_uri": [1]}, "image_uri is int64 instead of one value of kind bytes"),
        (ORIGINAL | {"age": [1.0, 2.0]}, "age is 2 x float instead of one value of kind float"),
        (ORIGINAL | {"age": [float("nan")]}, "age is nan, not a finite number"),
        (
            {"pixels": [1, 2], "y": [1.0]},
            r"neither image/encoded nor image_bytes; its features are pixels \(2 x int64\)",
        ),
    ],
)
def test_a_feature_of_another_kind_is_refused_with_its_record(tmp_path, features, problem):
    good = serialised(**(ORIGINAL if "image_bytes" in features else SLIM))
    with pytest.raises(DataError, match=f"{problem}.*record 1, counted from 0"):
        build(tmp_path, [good, serialised(**features)])
    assert not (tmp_path / "data").exists()


def test_a_feature_that_training_does_not_parse_may_be_anything(tmp_path):
    odd = {"image__format": [1], "image__height": [b"8"], "image__object__bbox__xmin": [0.5, 0.5], "image__width": []}
    records = [serialised(**SLIM | odd), serialised(**SLIM | {"image__class__label": [0]})]
    assert build(tmp_path, records).splits["train"].examples == 2


def test_records_of_which_some_lack_a_file_name_are_parsed_with_none(tmp_path):
    from tf_image_classification import dataset

    data = build(tmp_path, [slim(0), slim(1, **{"image/filename": b"b.png"})])
    (batch,) = dataset.evaluation_examples(data, "eval", 4)
    assert batch["filename"].numpy().tolist() == [b"", b"b.png"]


@pytest.mark.parametrize(("kind", "name"), [("GIF", "GIF"), ("WEBP", "WEBP"), ("BMP", "BMP"), ("TIFF", "TIFF")])
def test_an_image_that_is_neither_jpeg_nor_png_is_called_what_it_is(tmp_path, kind, name):
    with pytest.raises(DataError, match=f"image/encoded is {name}, neither JPEG nor PNG: TFRecords are not rewritten"):
        build(tmp_path, [slim(0) | {"image/encoded": picture(kind)}])


def test_raw_pixels_are_called_so(tmp_path):
    with pytest.raises(DataError, match=r"192 bytes of no known image format \(pixels that are not encoded\?\)"):
        build(tmp_path, [slim(0) | {"image/encoded": bytes(192)}])


def test_images_that_a_build_would_re_encode_are_counted_in_a_warning(tmp_path, caplog):
    file = io.BytesIO()
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (8, 6), "teal").save(file, "JPEG", exif=turned)
    build(tmp_path, [slim(0), slim(1) | {"image/encoded": file.getvalue()}], [slim(0), slim(1)])
    assert "1 images of the TFRecords may train with other pixels than a viewer shows" in caplog.text


def tfds(label: int, **more: object) -> dict:
    """A record as TensorFlow Datasets writes it; `text` there is a caption, no class name."""
    return {"image": picture("JPEG"), "label": label, "text": f"a picture {label}".encode(), **more}


def read_through_pipelines(data: manifest.Manifest) -> list[tuple[bytes, int]]:
    """File names and labels of the evaluation examples, after a training batch was parsed and decoded."""
    from tf_image_classification import dataset, preprocessing

    entry = {"name": "label", "depth": len(data.tasks[0].labels), "one-hot": True}
    common = {"image_size": 8, "batch_size": 2, "shuffle": False}

    def preproc(image, width, height):
        return tf.image.resize(tf.cast(image, tf.float32), (height, width))

    def decode(encoded, width, height, seed):
        return preprocessing.decode(encoded)

    more = {"decode_fn": decode, "preproc_fn": preproc, "seed": 1, "first_step": 0, "steps": 1}
    ((images, labels),) = dataset.training_batches(data, [entry], **more, **common)
    assert images.shape == (2, 8, 8, 3)
    assert labels["label"].shape == (2, entry["depth"])
    (batch, *_) = dataset.evaluation_examples(data, "eval", 8)
    return list(zip(batch["filename"].numpy().tolist(), batch["labels"]["label"].numpy().tolist(), strict=True))


def test_records_under_names_of_others_are_read_by_them_in_training_and_evaluation(tmp_path):
    records = [tfds(1, **{"image/filename": b"b.jpg"}), tfds(0), tfds(1)]
    data = build(tmp_path, records, options=TFDS)
    assert data.tasks == (manifest.Task("label", ("0", "1"), "label"),)
    assert (data.splits["train"].schema, data.splits["train"].image_feature) == ("slim", "image")
    assert manifest.read(str(tmp_path / "data")) == data
    assert read_through_pipelines(data) == [(b"b.jpg", 1), (b"", 0), (b"", 1)]


def test_a_data_set_of_such_records_knows_the_names_itself(tmp_path):
    built = build(tmp_path, [tfds(0), tfds(1)], options=TFDS)
    again = build_tfrecords.build(str(tmp_path / "data"), str(tmp_path / "again"))
    assert (again.tasks, again.splits) == (built.tasks, built.splits)
    assert read_through_pipelines(again) == [(b"", 0), (b"", 1)]
    alone = build_tfrecords.build_eval(str(tmp_path / "data"), str(tmp_path / "alone"), built.tasks)
    assert alone.splits["eval"] == built.splits["eval"]


def test_one_name_may_be_the_schemas_own(tmp_path):
    for options, record, image, label in (
        (
            ReadOptions(image_feature="jpg"),
            lambda i: {"jpg": picture(), "image/class/label": i},
            "jpg",
            "image/class/label",
        ),
        (ReadOptions(label_feature="y"), lambda i: {"image/encoded": picture(), "y": i}, "", "y"),
        (ReadOptions(label_feature="y"), lambda i: original(y=float(i), confidence=0.5), "", "y"),
        (ReadOptions(image_feature="jpg"), lambda i: {"jpg": picture(), "y": float(i)}, "jpg", "y"),
        (
            ReadOptions(image_feature="image_bytes", label_feature="y"),
            lambda i: original() | {"y": i},
            "image_bytes",
            "y",
        ),
    ):
        data = build(tmp_path, [record(0), record(1)], options=options)
        assert (data.splits["train"].image_feature, data.tasks[0].feature) == (image, label)
        assert read_through_pipelines(data) == [(b"", 0), (b"", 1)]


def test_a_wrong_name_is_refused_with_the_records_features_and_their_kinds(tmp_path):
    for wrong in (ReadOptions(image_feature="img", label_feature="label"), ReadOptions("", None, "image", "target")):
        name = wrong.image_feature if wrong.image_feature == "img" else wrong.label_feature
        with pytest.raises(
            DataError,
            match=rf"it has no feature {name}; its features are image \(bytes\), label \(int64\), text \(bytes\)",
        ):
            build(tmp_path, [tfds(0), tfds(1)], options=wrong)


def test_a_label_of_words_is_refused(tmp_path):
    with pytest.raises(DataError, match="label is bytes instead of one value of kind int64"):
        build(tmp_path, [tfds(0) | {"label": b"cat"}], options=TFDS)


def test_files_with_the_image_elsewhere_are_not_mixed(tmp_path):
    build(tmp_path, [tfds(0), tfds(1)], options=TFDS)
    other = write(tmp_path / "other", [{"image/encoded": picture(), "label": 0}])
    with pytest.raises(DataError, match="hold their images in different features"):
        build_tfrecords.build(
            f"{tmp_path / 'data'},{other}",
            str(tmp_path / "two"),
            options=ReadOptions(label_feature="label"),
            eval_metadata=str(tmp_path / "data"),
        )


def test_names_of_features_without_such_records_are_refused(tmp_path):
    photos = str(pictures(tmp_path / "photos", {"cat": 5, "dog": 5}))
    with pytest.raises(FlagError, match=r"--image_feature has no effect.*image, and metadata of images"):
        build_tfrecords.build(photos, str(tmp_path / "data"), options=TFDS)
    build(tmp_path, [tfds(0), tfds(1)], options=TFDS)
    with pytest.raises(FlagError, match=r"--label_feature has no effect.*data set, which records its features"):
        build_tfrecords.build(str(tmp_path / "data"), str(tmp_path / "x"), options=ReadOptions(label_feature="y"))


def test_the_command_takes_the_names(tmp_path):
    path = write(tmp_path / "train.tfrecord", [tfds(0), tfds(1)])
    call = ["--train_metadata", path, "--eval_metadata", path, "--output_dir", tmp_path / "data"]
    assert "neither image/encoded nor image_bytes" in " ".join(command(*call).stderr.split())
    assert command(*call, "--image_feature", "image", "--label_feature", "label").returncode == 0


def field(number: int, content: bytes) -> bytes:
    """A length-delimited protobuf field of less than 16 kB."""
    length = len(content)
    return bytes([number << 3 | 2, length & 127 | 128, length >> 7]) + content


def encoded(label: bytes) -> bytes:
    """A record whose label is a serialised tf.train.Feature, however it came about."""
    image = tf.train.Feature(bytes_list=tf.train.BytesList(value=[picture()])).SerializeToString()
    parts = {"image/encoded": image, "image/class/label": label}
    entries = (field(1, field(1, name.encode()) + field(2, feature)) for name, feature in parts.items())
    return field(1, b"".join(entries))


INT64 = tf.train.Feature(int64_list=tf.train.Int64List(value=[1])).SerializeToString()
FLOAT = tf.train.Feature(float_list=tf.train.FloatList(value=[1.0])).SerializeToString()


@pytest.mark.parametrize(
    "record",
    [
        serialised(**SLIM)[:-3],
        encoded(FLOAT + INT64),
        encoded(field(9, b"unknown") + INT64),
        encoded(field(3, b"") + INT64),
        serialised(**SLIM) + field(9, b"unknown"),
    ],
    ids=["cut short", "two kinds of values", "an unknown kind", "an empty list before", "an unknown field"],
)
def test_a_message_that_tensorflow_might_not_parse_is_refused(tmp_path, record):
    with pytest.raises(DataError, match=r"not a tf\.train\.Example.*record 1"):
        build(tmp_path, [serialised(**SLIM), record])
