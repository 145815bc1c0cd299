"""Photographs to measure on: a folder of the user's, or crops of the two that scikit-learn ships."""

from __future__ import annotations

import os
import random
from pathlib import Path

from tf_image_classification import storage

COUNT = 1200


def folder_of(images: str | None, cache: str) -> str:
    """`images`, or a folder of two classes with `COUNT` JPEGs of about 400 x 370 pixels, made in `cache` unless they
    are there."""
    if images:
        return images
    target = os.path.join(cache, "photos")
    if os.path.isdir(target):
        return target
    from PIL import Image
    from sklearn.datasets import load_sample_images

    chance = random.Random(1)
    sample = load_sample_images()
    with storage.replacing_dir(target, "china") as aside:
        for number in range(COUNT):
            index = number % len(sample.images)
            place = Path(aside, Path(sample.filenames[index]).stem)
            place.mkdir(exist_ok=True)
            photo = Image.fromarray(sample.images[index])
            width, height = chance.randint(300, 500), chance.randint(280, 420)
            left, top = chance.randint(0, photo.width - width), chance.randint(0, photo.height - height)
            photo.crop((left, top, left + width, top + height)).save(place / f"{number:05}.jpg", quality=90)
    return target
