from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.build_tfrecords.records import write
from tests.conftest import REPOSITORY
from tf_image_classification import preprocessing

INPUT_MEMORY = """
import sys
from pathlib import Path
from tf_image_classification import augmentation, build_tfrecords, dataset, preprocessing, record_order
record_order.PARALLEL_CALLS = 2  # on any machine
def peak():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024
def run(metadata):
    data = build_tfrecords.check(metadata, eval_metadata=metadata, workers=2)
    task = {"name": "label", "depth": 2, "one-hot": True}
    data = dataset.with_tasks(data, [task])
    common = {"image_size": 224, "batch_size": 2, "shuffle": True}
    def train(decode_fn, preproc_fn):
        for batch in dataset.training_batches(
            data, [task], decode_fn=decode_fn, preproc_fn=preproc_fn, seed=1, first_step=0, steps=1, **common
        ):
            assert batch[0].shape == (2, 224, 224, 3)
    for kind in preprocessing.PREPROCESSINGS.values():
        assert len(list(dataset.evaluation_batches(data, [task], preproc_fn=kind.eval_fn, batches=1, **common))) == 1
        train(kind.decode_fn, kind.train_fn)
    for name in ("light", "randaugment", "trivialaugment"):
        train(preprocessing.Decoder(preprocessing.Crop()), augmentation.pixels_fn(name))
if __name__ == "__main__":
    run(sys.argv[1])
    before = peak()
    run(sys.argv[2])
    print(peak() - before)
"""


def gradient(height: int, width: int) -> np.ndarray:
    """A picture whose red is the row, whose green is the column, and whose blue is constant."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack(
        [rows * 255 / max(height - 1, 1), columns * 255 / max(width - 1, 1), np.full((height, width), 90)], -1
    ).astype("uint8")


def seed(number: int = 0) -> tf.Tensor:
    return tf.constant([7, number], tf.int64)


@pytest.mark.parametrize(
    "encode", [tf.io.encode_png, lambda image: tf.io.encode_jpeg(image, quality=100)], ids=["png", "jpeg"]
)
def test_a_random_crop_is_a_part_of_the_image_that_its_seed_decides(encode):
    encoded = encode(gradient(120, 160))
    parts = [preprocessing.decode_random_crop(encoded, 64, 64, seed(number)).numpy() for number in range(20)]
    again = preprocessing.decode_random_crop(encoded, 64, 64, seed(3)).numpy()
    assert np.array_equal(parts[3], again)
    assert len({part.shape for part in parts}) > 10
    for part in parts:
        height, width, channels = part.shape
        assert channels == 3
        assert 0.04 <= height * width / (120 * 160) <= 1.0
        assert 0.7 <= width / height <= 1.4
        # Rows and columns follow each other as in the whole.
        assert abs((part[-1, 0, 0].astype(float) - part[0, 0, 0]) * 119 / 255 - (height - 1)) < 4


def test_a_jpeg_crop_is_decoded_at_a_fraction_when_it_is_much_larger_than_the_network_takes():
    encoded = tf.io.encode_jpeg(gradient(1600, 1600))
    for number in range(10):
        part = preprocessing.decode_random_crop(encoded, 32, 32, seed(number))
        assert 32 <= min(part.shape[:2]) < 1600 // 4


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "in a graph"])
def test_a_crop_of_a_transparent_picture_is_that_of_the_picture_on_white(compiled):
    colour, alpha = gradient(90, 70), np.linspace(0, 255, 90 * 70).reshape(90, 70, 1).astype("uint8")
    transparent = tf.io.encode_png(np.concatenate([colour, alpha], -1))
    on_white = tf.io.encode_png(preprocessing.decode(transparent))
    crop = tf.function(preprocessing.decode_random_crop) if compiled else preprocessing.decode_random_crop
    for number in range(5):
        parts = [crop(encoded, 16, 16, seed(number)).numpy() for encoded in (transparent, on_white)]
        assert np.array_equal(*parts)
    assert preprocessing.decode(transparent).numpy()[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (3, 5)])
def test_tiny_images_go_through_every_preprocessing(shape):
    encoded = tf.io.encode_jpeg(gradient(*shape))
    for name, kind in preprocessing.PREPROCESSINGS.items():
        extra = () if name == "unit" else (seed(),)
        decoded = kind.decode_fn(encoded, 16, 16, seed())
        assert kind.train_fn(decoded, 16, 16, *extra).shape == (16, 16, 3)
        assert kind.eval_fn(preprocessing.decode(encoded), 16, 16).shape == (16, 16, 3)


def test_grey_images_become_three_equal_channels():
    encoded = tf.io.encode_jpeg(gradient(30, 30)[..., :1])
    image = preprocessing.decode_random_crop(encoded, 16, 16, seed()).numpy()
    assert np.array_equal(image[..., 0], image[..., 1])
    assert np.array_equal(image[..., 0], image[..., 2])


def test_crops_keep_to_the_ranges_that_are_asked_for():
    encoded = tf.io.encode_png(gradient(200, 300))
    crop = preprocessing.Crop(area=(0.05, 0.08), aspect=(1.0, 2.0))
    shapes = [preprocessing.Decoder(crop)(encoded, 64, 64, seed(number)).shape for number in range(40)]
    areas = [height * width / (200 * 300) for height, width, _ in shapes]
    aspects = [width / height for height, width, _ in shapes]
    assert 0.047 <= min(areas) < 0.06 and 0.07 < max(areas) <= 0.083
    assert 0.95 <= min(aspects) < 1.2 and 1.7 < max(aspects) <= 2.05


def test_a_preprocessing_that_is_only_a_normalisation_crops_and_flips_in_training_and_resizes_in_evaluation():
    kind = preprocessing.resized(lambda image: image - 100.0)
    image = gradient(60, 80)
    expected = tf.image.resize(image, [32, 32]) - 100.0
    assert np.array_equal(kind.eval_fn(tf.constant(image), 32, 32), expected)
    assert kind.crop == preprocessing.Crop(area=(0.35, 1.0), aspect=(0.75, 1.33))
    encoded = tf.io.encode_png(image)
    parts = [kind.decode_fn(encoded, 32, 32, seed(number)) for number in range(12)]
    assert all(0.34 <= part.shape[0] * part.shape[1] / 4800 <= 1.0 for part in parts)
    results = [kind.train_fn(part, 32, 32, seed(number)).numpy() for number, part in enumerate(parts)]
    assert all(result.min() >= -100.0 and result.max() <= 155.0 for result in results)
    flipped = [result[:, 0, 1].mean() > result[:, -1, 1].mean() for result in results]
    assert any(flipped) and not all(flipped)


@pytest.mark.parametrize("name", preprocessing.PREPROCESSINGS)
def test_normalisation_alone_is_what_evaluation_does_to_an_image_of_one_colour(name):
    kind = preprocessing.PREPROCESSINGS[name]
    image = tf.fill([24, 24, 3], tf.constant(77, tf.uint8))
    expected = kind.eval_fn(image, 24, 24)
    np.testing.assert_allclose(kind.normalize_fn(tf.cast(image, tf.float32)), expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures memory where there is a /proc")
@pytest.mark.parametrize(
    ("size", "mode", "options"),
    [
        ((5000, 5000), "CMYK", {"format": "JPEG", "progressive": True}),  # what takes libjpeg most
        ((5000, 5000), "RGBA", {"format": "PNG", "compress_level": 1}),
        ((60_000, 500), "L", {"format": "PNG"}),
        ((500, 60_000), "RGB", {"format": "JPEG", "progressive": True}),
    ],
)
def test_an_image_takes_12_bytes_per_pixel_at_most_under_every_preprocessing_and_augmentation(
    size: tuple[int, int], mode: str, options: dict[str, object], tmp_path: Path
) -> None:
    for name, sides in {"small": (8, 8), "large": size}.items():
        file = io.BytesIO()
        Image.new(mode, sides, (1, 99, 3, 4)[: len(mode)]).save(file, **options)
        write(tmp_path / name, [{"image/encoded": file.getvalue(), "image/class/label": number} for number in (0, 1)])
    (tmp_path / "program.py").write_text(INPUT_MEMORY)
    # A process of its own: memory that an earlier test took and freed would hide what is taken here.
    command = [sys.executable, *(str(tmp_path / name) for name in ("program.py", "small", "large"))]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    taken = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    at_a_time, allocators_keep = 2, 2**28
    assert size[0] * size[1] < int(taken) < 12 * size[0] * size[1] * at_a_time + allocators_keep
