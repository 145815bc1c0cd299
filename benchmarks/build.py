"""build_tfrecords and its yardsticks: slim's converter loop, and decoding of the same bytes on all cores."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from tf_image_classification import build_tfrecords, storage


def ours(images: str, folder: str) -> Callable[[], None]:
    """A whole build: split, check and encode images, shuffle, write shards and manifest."""

    def work() -> None:
        build_tfrecords.build(images, os.path.join(folder, "built"))

    return work


def slim_loop(images: str, folder: str) -> Callable[[], None]:
    """The loop of slim's dataset converters, in one process: read, decode to check, make an Example, write."""
    import tensorflow as tf

    paths = _pictures(images)
    is_png = paths[0].endswith(".png")
    decode, channels, image_format = (tf.io.decode_png, 1, b"png") if is_png else (tf.io.decode_jpeg, 3, b"jpg")
    output_path = os.path.join(folder, "slim.tfrecord")

    def work() -> None:
        with tf.io.TFRecordWriter(output_path) as writer:
            for path in paths:
                encoded = Path(path).read_bytes()
                height, width = decode(encoded, channels=channels).shape[:2]
                feature = {
                    "image/encoded": _bytes(tf, encoded),
                    "image/format": _bytes(tf, image_format),
                    "image/class/label": _integer(tf, 0),
                    "image/height": _integer(tf, height),
                    "image/width": _integer(tf, width),
                }
                writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
        os.unlink(output_path)

    return work


def pillow_decoding(images: str) -> Callable[[], None]:
    """Pillow's full decoding on all cores, nothing written; the time to start the processes does not count."""
    paths = _pictures(images)
    cores = len(os.sched_getaffinity(0))
    parts = [paths[start :: cores * 4] for start in range(cores * 4)]
    pool = ProcessPoolExecutor(cores, mp_context=get_context("spawn"))
    list(pool.map(_decode, parts))

    def work() -> None:
        list(pool.map(_decode, parts))

    return work


def _pictures(images: str) -> list[str]:
    return [file.path for file in storage.walk(images)]


def _decode(paths: list[str]) -> None:
    from PIL import Image

    for path in paths:
        with Image.open(path) as image:
            image.load()


def _bytes(tf, value: bytes):  # type: ignore[no-untyped-def]
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _integer(tf, value: int):  # type: ignore[no-untyped-def]
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
