"""Pictures to measure on: photographs, the user's or crops of the two that scikit-learn ships, and small ones of them.

They are spread over two classes, whatever they show: labels do not matter to speed.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tf_image_classification import storage

if TYPE_CHECKING:
    from PIL import Image

SMALL_SIZE = 28  # pixels, as in MNIST

_CROP_QUALITY = 98  # so that crops have the bytes of photographs too: decoding takes its time by both
_TILES = 5  # of a phone's picture, along each side


def photographs(images: str | None, count: int, folder: str) -> str:
    """Creates a folder of JPEGs; returns it.

    Args:
        images: a folder of the user's, of whose JPEGs at most `count` are copied, evenly spread over their names; None
            creates `count` of about 450 x 380 pixels and 104 kB, as those of Oxford's pets.
    """
    if images:
        for number, path in enumerate(_evenly_chosen(images, count)):
            shutil.copyfile(path, _path(folder, number, "jpg"))
    else:
        for number, photo in enumerate(_crops(count)):
            photo.save(_path(folder, number, "jpg"), quality=_CROP_QUALITY)
    return folder


def small_pictures(photographs: str, count: int, folder: str) -> str:
    """Creates `count` grey PNGs of 28 x 28 pixels, which are parts of photographs reduced to a quarter."""
    from PIL import Image

    generator = random.Random(1)
    paths = _jpegs(photographs)
    number = 0
    for index, path in enumerate(paths):
        with Image.open(path) as photo:
            reduced = photo.convert("L")
        reduced = reduced.resize((max(SMALL_SIZE, photo.width // 4), max(SMALL_SIZE, photo.height // 4)))
        while number < count * (index + 1) // len(paths):
            _crop(generator, reduced, SMALL_SIZE, SMALL_SIZE).save(_path(folder, number, "png"))
            number += 1
    return folder


def phone_pictures(photographs: str, count: int, size: tuple[int, int], folder: str) -> str:
    """Creates `count` JPEGs as phones take them: mosaics of photographs.

    Args:
        size: width and height in pixels. At 4000 x 3000, each photograph is scaled to 800 x 600: the picture has the
            bytes of one that is a little soft, some 3 MB.
    """
    from PIL import Image

    paths = itertools.cycle(_jpegs(photographs))
    width, height = size[0] // _TILES, size[1] // _TILES
    for number in range(count):
        picture = Image.new("RGB", (width * _TILES, height * _TILES))
        for tile in range(_TILES**2):
            with Image.open(next(paths)) as photo:
                scaled = photo.convert("RGB").resize((width, height))
            picture.paste(scaled, (tile % _TILES * width, tile // _TILES * height))
        picture.save(_path(folder, number, "jpg"), quality=90)
    return folder


def _evenly_chosen(images: str, count: int) -> list[str]:
    paths = _jpegs(images)
    if not paths:
        raise SystemExit(f"--images {images} holds no JPEG")
    count = min(count, len(paths))
    return [paths[number * len(paths) // count] for number in range(count)]


def _crops(count: int) -> Iterator[Image.Image]:
    from PIL import Image
    from sklearn.datasets import load_sample_images

    generator = random.Random(1)
    photos = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    for number in range(count):
        width, height = generator.randint(400, 500), generator.randint(340, 420)
        yield _crop(generator, photos[number % len(photos)], width, height)


def _crop(generator: random.Random, image: Image.Image, width: int, height: int) -> Image.Image:
    left, top = generator.randint(0, image.width - width), generator.randint(0, image.height - height)
    return image.crop((left, top, left + width, top + height))


def _jpegs(folder: str) -> list[str]:
    return sorted(file.path for file in storage.walk(folder) if file.path.lower().endswith((".jpg", ".jpeg")))


def _path(folder: str, number: int, extension: str) -> str:
    class_folder = Path(folder, "even" if number % 2 == 0 else "odd")
    class_folder.mkdir(parents=True, exist_ok=True)
    return os.fspath(class_folder / f"{number:06}.{extension}")
