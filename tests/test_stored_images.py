"""What a manifest says of a split's images, and the decoding that relies on it."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.build_tfrecords import records
from tests.test_preprocessing import gradient, seed
from tf_image_classification import build_tfrecords, dataset, preprocessing
from tf_image_classification.data import manifest
from tf_image_classification.data.manifest import Manifest
from tf_image_classification.data.stored_images import StoredImages

CROP = preprocessing.Crop(area=(0.05, 1.0))
TASK = {"name": "label", "depth": 2, "one-hot": True}


def image(height: int, width: int, mode: str = "RGB", kind: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(gradient(height, width)).convert(mode).save(file, kind)
    return file.getvalue()


def folder_of(root: Path, images: dict[str, bytes]) -> str:
    """Both classes have all images."""
    for label in ("cat", "dog"):
        (root / label).mkdir(parents=True)
        for name, data in images.items():
            (root / label / name).write_bytes(data)
    return str(root)


def listed(tmp_path: Path, images: list[bytes]) -> Manifest:
    """TFRecords of others."""
    examples = [{"image/encoded": data, "image/class/label": number % 2} for number, data in enumerate(images)]
    path = records.write(tmp_path / "records.tfrecord", examples)
    return build_tfrecords.build(path, str(tmp_path / "data"), eval_metadata=path)


def test_a_manifest_counts_the_formats_and_has_the_largest_height_and_width(tmp_path):
    images = {"a.jpg": image(40, 30), "b.png": image(20, 50, kind="PNG"), "c.jpg": image(30, 30, "CMYK")}
    source = folder_of(tmp_path / "train", images)
    held_out = folder_of(tmp_path / "eval", {"a.jpg": image(8, 9)})
    data = build_tfrecords.build(source, str(tmp_path / "data"), eval_metadata=held_out)
    # What is not stored as it was is stored as a JPEG too.
    assert data.splits["train"].stored == StoredImages({"jpeg": 4, "png": 2}, 40, 50)
    assert data.splits["eval"].stored == StoredImages({"jpeg": 2}, 8, 9)
    assert manifest.read(str(tmp_path / "data")).splits == data.splits


def test_images_of_tfrecords_that_a_build_would_store_otherwise_are_of_another_format(tmp_path):
    data = listed(tmp_path, [image(40, 30), image(20, 50, "CMYK"), image(9, 9, "P", "PNG"), image(9, 9, kind="PNG")])
    assert data.splits["train"].stored == StoredImages({"jpeg": 1, "other": 2, "png": 1}, 40, 50)
    assert not data.splits["train"].stored.are_jpegs


@pytest.mark.parametrize(("height", "width"), [(37, 53), (150, 150), (700, 430)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_graph_for_jpegs_alone_has_the_pixels_of_that_for_any_image(height, width, mode):
    encoded = tf.constant(image(height, width, mode))
    stored = StoredImages({"jpeg": 1}, height, width)
    for number in range(8):
        parts = [preprocessing.Decoder(CROP, known)(encoded, 32, 40, seed(number)).numpy() for known in (None, stored)]
        assert np.array_equal(*parts)
    assert np.array_equal(preprocessing.decode(encoded, stored), preprocessing.decode(encoded))


def test_a_graph_for_jpegs_alone_has_branches_for_the_scales_that_its_images_can_have():
    def branches(stored: StoredImages | None) -> list[int]:
        decode = tf.function(preprocessing.Decoder(CROP, stored), autograph=False)
        graph = decode.get_concrete_function(tf.TensorSpec([], tf.string), 100, 100, seed()).graph
        return [len(op.get_attr("branches")) for op in graph.get_operations() if op.type in ("Case", "StatelessCase")]

    assert branches(StoredImages({"jpeg": 1}, 199, 900)) == []
    assert branches(StoredImages({"jpeg": 1}, 200, 900)) == [2]
    assert branches(StoredImages({"jpeg": 1}, 800, 800)) == [4]


def test_an_image_that_is_larger_than_the_manifest_says_has_the_same_part_of_it():
    encoded = tf.constant(image(800, 800))
    part = preprocessing.Decoder(CROP, StoredImages({"jpeg": 1}, 90, 90))(encoded, 50, 50, seed(3)).numpy()
    reduced = preprocessing.Decoder(CROP)(encoded, 50, 50, seed(3)).numpy()
    assert part.shape[0] >= 2 * reduced.shape[0]
    assert np.abs(part.mean((0, 1)) - reduced.mean((0, 1))).max() < 2


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "in a graph"])
@pytest.mark.parametrize("crop", [None, CROP], ids=["whole", "crop"])
@pytest.mark.parametrize("other", [image(20, 20, kind="PNG"), image(20, 20, "CMYK"), b"", b"\xff\xd8\xff"])
def test_an_image_that_is_no_such_jpeg_after_all_is_an_error(compiled, crop, other):
    decode = preprocessing.Decoder(crop, StoredImages({"jpeg": 1}, 20, 20))
    decode = tf.function(decode) if compiled else decode
    is_jpeg = other == b"\xff\xd8\xff"
    with pytest.raises(tf.errors.InvalidArgumentError, match="JPEG" if is_jpeg else "not a grey or RGB JPEG, as all"):
        decode(tf.constant(other), 8, 8, seed())


def batches(data: Manifest, split: str) -> list[np.ndarray]:
    kind = preprocessing.PREPROCESSINGS["inception"]
    options = {"image_size": 16, "batch_size": 2, "shuffle": True}
    if split == "train":
        more = {"decode_fn": kind.decode_fn, "preproc_fn": kind.train_fn, "seed": 1, "first_step": 0, "steps": 6}
        read = dataset.training_batches(data, [TASK], **more, **options)
    else:
        read = dataset.evaluation_batches(data, [TASK], preproc_fn=kind.eval_fn, batches=2, **options)
    return [images.numpy() for images, _ in read]


def with_stored(data: Manifest, stored: StoredImages | None) -> Manifest:
    splits = {name: dataclasses.replace(split, stored=stored) for name, split in data.splits.items()}
    return dataclasses.replace(data, splits=splits)


@pytest.mark.parametrize("split", ["train", "eval"])
def test_an_input_that_knows_its_images_has_the_batches_of_one_that_does_not(tmp_path, split):
    data = listed(tmp_path, [image(30 + number, 40) for number in range(4)])
    assert data.splits[split].stored.are_jpegs
    for known, any_image in zip(batches(data, split), batches(with_stored(data, None), split), strict=True):
        assert np.array_equal(known, any_image)


@pytest.mark.parametrize("split", ["train", "eval"])
def test_an_input_of_a_data_set_that_is_not_what_its_manifest_says_fails(tmp_path, split):
    data = listed(tmp_path, [image(30, 40), image(30, 40, "CMYK")])
    assert len(batches(data, split)) in (1, 6)
    with pytest.raises(tf.errors.InvalidArgumentError, match="not a grey or RGB JPEG, as all images of this data set"):
        batches(with_stored(data, StoredImages({"jpeg": 2}, 30, 40)), split)
