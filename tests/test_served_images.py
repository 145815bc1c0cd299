"""Serving equals building: the pixels that a served model computes with are the training's, and Pillow's."""

from __future__ import annotations

import ctypes
import gc
import io
import struct
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.build_tfrecords.image_files import header_of_png
from tests.build_tfrecords.image_kinds import AS_IT_IS, KINDS, Kind
from tf_image_classification import export, image_limits, preprocessing, slim_preprocessing
from tf_image_classification.build_tfrecords import images
from tf_image_classification.data.manifest import Task

SIDE = 64
# Pillow and TensorFlow both decode with libjpeg-turbo, in versions that may round differently.
JPEG_TOLERANCE = 2
STORED = [kind for kind in KINDS if kind.outcome == AS_IT_IS]
# Of an image that is turned by EXIF, clients send the upright one: TensorFlow does not turn it.
REENCODED = [
    kind
    for kind in KINDS
    if kind.expected and kind not in STORED and kind.file.endswith((".png", ".jpg"))
    if kind.name not in ("lossless JPEG", "JPEG turned by EXIF")
]


@pytest.fixture(scope="module")
def served_pixels(tmp_path_factory):
    """Bytes -> uint8 [h, w, 3] as the loaded signature's network gets them: its "scores" are the pixels."""
    pixels = keras.Input((SIDE, SIDE, 3))
    model = keras.Model(pixels, {"pixels": keras.layers.Flatten()(pixels)})
    serving = export.Serving(
        model,
        lambda image, width, height: tf.image.pad_to_bounding_box(image, 0, 0, height, width),
        SIDE,
        [Task("pixels", ())],
    )
    folder = str(tmp_path_factory.mktemp("served"))
    tf.saved_model.save(serving, folder, signatures={"serving_default": serving.serve})
    signature = tf.saved_model.load(folder).signatures["serving_default"]

    def decode(encoded: bytes) -> np.ndarray:
        height, width = preprocessing.decode(tf.constant(encoded)).shape[:2]
        scores = signature(image_bytes=tf.constant([encoded]))["scores"]
        return tf.reshape(scores, [SIDE, SIDE, 3]).numpy().astype(np.int16)[:height, :width]

    return decode


@pytest.fixture(scope="module")
def signature(tmp_path_factory):
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    serving = export.Serving(model, slim_preprocessing.vgg_evaluation, 8, [Task("label", ("cat", "dog"))])
    folder = str(tmp_path_factory.mktemp("limits"))
    tf.saved_model.save(serving, folder, signatures={"serving_default": serving.serve})
    return tf.saved_model.load(folder).signatures["serving_default"]


@pytest.mark.parametrize(
    "kind",
    [kind for kind in KINDS if kind.outcome == AS_IT_IS and kind.file != "large.jpg"],
    ids=lambda kind: kind.name,
)
def test_what_goes_in_byte_for_byte_is_served_as_it_is_trained(kind: Kind, served_pixels) -> None:
    data = kind.make()
    stored = images.prepare(data)
    assert stored.data == data
    served = served_pixels(data)
    np.testing.assert_array_equal(served, preprocessing.decode(tf.constant(data)))
    by_pillow = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.int16)
    assert np.abs(served - by_pillow).max() <= (JPEG_TOLERANCE if stored.format == "jpeg" else 0)


@pytest.mark.parametrize("kind", REENCODED, ids=lambda kind: kind.name)
def test_a_jpeg_or_png_that_is_reencoded_is_served_as_it_was_built(kind: Kind, served_pixels) -> None:
    data = kind.make()
    built = Image.open(io.BytesIO(images.prepare(data).data))
    difference = np.abs(served_pixels(data) - np.asarray(built.convert("RGB"), np.int16))
    assert difference.max() <= (12 if built.format == "JPEG" else 1)  # of a second compression; of rounding


@pytest.mark.parametrize("kind", STORED, ids=lambda kind: kind.name)
def test_a_random_crop_has_the_colours_of_the_whole(kind: Kind) -> None:
    data, ranges = tf.constant(kind.make()), preprocessing.Crop((0.98, 1.0), (0.5, 3.0))
    crop = preprocessing.decode_random_crop(data, 8, 8, tf.constant([1, 2], tf.int64), ranges)
    means = [tf.reduce_mean(tf.cast(image, tf.float32), [0, 1]) for image in (crop, preprocessing.decode(data))]
    np.testing.assert_allclose(*means, atol=8)


def test_a_cmyk_jpeg_is_cropped_in_the_colours_that_viewers_show() -> None:
    (kind,) = (kind for kind in KINDS if kind.name == "CMYK JPEG without Adobe's marker")
    crop = preprocessing.decode_random_crop(tf.constant(kind.make()), 8, 8, tf.constant([1, 2], tf.int64))
    assert tf.reduce_max(crop) > 180


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"GIF89a" + bytes(40), b"BM" + bytes(60), b"<html>", b"RIFF\0\0\0\0WEBP"]
)
def test_what_is_neither_jpeg_nor_png_is_refused_in_words(data: bytes, signature) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match="image_bytes holds neither a JPEG nor a PNG"):
        signature(image_bytes=tf.constant([data]))


def test_a_wholly_transparent_image_is_refused(signature) -> None:
    file = io.BytesIO()
    Image.new("RGBA", (9, 7)).save(file, "PNG")
    with pytest.raises(tf.errors.InvalidArgumentError, match="fully transparent"):
        signature(image_bytes=tf.constant([file.getvalue()]))


@pytest.mark.parametrize("sides", [(20_000, 20_000), (2**31 - 1, 2**31 - 1), (1, image_limits.MAX_PIXELS + 1)])
def test_too_many_pixels_are_refused_before_they_are_decoded(sides: tuple[int, int], signature) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match="more than 178,956,970 pixels: scale it down"):
        signature(image_bytes=tf.constant([header_of_png(*sides)]))
    with pytest.raises(images.RejectedImage, match="too many pixels"):
        images.prepare(header_of_png(*sides))


def test_a_jpeg_of_too_many_pixels_is_refused_before_it_is_decoded(signature) -> None:
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "JPEG")
    data = file.getvalue()
    frame = data.index(b"\xff\xc0") + 5
    with pytest.raises(tf.errors.InvalidArgumentError, match="more than 178,956,970 pixels"):
        signature(image_bytes=tf.constant([data[:frame] + struct.pack(">HH", 60_000, 60_000) + data[frame + 4 :]]))


def reset_peak() -> int:
    """Forgets what earlier tests took, which could be more than is measured here: bytes that this process has."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM
    return peak_memory()


def peak_memory() -> int:
    """Of this process since `reset_peak`, in bytes."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="measures memory where there is a /proc"
)


def encoded(mode: str, side: int, image_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (side, side), (9, 99, 9, 99) if mode == "RGBA" else 1).save(file, image_format, **options)
    return file.getvalue()


def test_a_jpeg_of_far_too_many_scans_is_refused(signature) -> None:
    progressive = encoded("L", 8, "JPEG", progressive=True)
    scan = progressive[progressive.rindex(b"\xff\xda") : -2]
    assert signature(image_bytes=tf.constant([progressive]))
    for times, side in ((500, 8), (80, 12_000)):  # 81 scans of 144 million pixels
        jpeg = bytearray(progressive[:-2] + times * scan + progressive[-2:])
        frame = jpeg.index(b"\xff\xc2") + 5
        jpeg[frame : frame + 4] = struct.pack(">HH", side, side)
        with pytest.raises(tf.errors.InvalidArgumentError, match="a JPEG of too many scans"):
            signature(image_bytes=tf.constant([bytes(jpeg)]))


@needs_proc
def test_a_transparent_png_takes_12_bytes_per_pixel_at_most(signature) -> None:
    side = 4000
    request = tf.constant([encoded("RGBA", side, "PNG")])
    assert signature(image_bytes=tf.constant([encoded("RGBA", 8, "PNG")]))
    before = reset_peak()
    assert signature(image_bytes=request)
    assert peak_memory() - before < 12 * side**2


def test_pictures_that_are_put_on_white_in_strips_are_whole() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (1100, 1001, 4)).astype("uint8")  # a strip and a part
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    colour, alpha = pixels[..., :3].astype(int), pixels[..., 3:].astype(int)
    expected = (colour * alpha + 255 * (255 - alpha) + 127) // 255
    np.testing.assert_array_equal(preprocessing.decode(tf.constant(file.getvalue())), expected)


@needs_proc
@pytest.mark.slow  # decodes a gigapixel
def test_a_request_of_many_large_pictures_is_decoded_by_two(signature) -> None:
    side = 10_000
    request = tf.constant([encoded("1", side, "PNG")] * 10)
    before = reset_peak()
    assert signature(image_bytes=request)["scores"].shape == (10, 2)
    assert peak_memory() - before < 12 * 2 * side**2


def test_the_limit_is_the_builders() -> None:
    assert image_limits.MAX_PIXELS == 2 * Image.MAX_IMAGE_PIXELS


@needs_proc
@pytest.mark.parametrize("size", [(20_000, 1), (1, 60_000)])
def test_a_narrow_image_takes_no_gigabytes_under_any_preprocessing(size: tuple[int, int], signature) -> None:
    file = io.BytesIO()
    Image.new("L", size, 90).save(file, "PNG")
    encoded, seed = tf.constant(file.getvalue()), tf.constant([1, 2], tf.int64)
    before = reset_peak()
    assert np.isfinite(signature(image_bytes=encoded[tf.newaxis])["scores"]).all()
    for name, kind in preprocessing.PREPROCESSINGS.items():
        evaluated = kind.eval_fn(preprocessing.decode(encoded), 224, 224)
        draws = () if name == "unit" else (seed,)
        trained = kind.train_fn(kind.decode_fn(encoded, 224, 224, seed), 224, 224, *draws)
        assert evaluated.shape == trained.shape == (224, 224, 3)
    assert peak_memory() - before < 500_000_000  # scaled whole it is gigabytes


@pytest.mark.parametrize("shape", [(300, 400), (500, 333), (40, 1000), (17, 9), (224, 224), (1, 1)])
def test_the_window_is_that_of_the_scaled_image(shape: tuple[int, int]) -> None:
    image = tf.constant(np.random.default_rng(0).integers(0, 255, (*shape, 3)).astype("uint8"))
    target = 256 * 96 / 224
    height, width = (max(96, round(side * target / min(shape))) for side in shape)
    scaled = slim_preprocessing.resize(image, width, height)
    top, left = (height - 96 + 1) // 2, (width - 96 + 1) // 2
    expected = scaled[top : top + 96, left : left + 96] - tf.constant(slim_preprocessing.VGG_MEAN_RGB)
    np.testing.assert_allclose(slim_preprocessing.vgg_evaluation(image, 96, 96), expected, atol=0.05)
