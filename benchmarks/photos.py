"""Photographs to measure on: the user's, or crops of the two that scikit-learn ships."""

from __future__ import annotations

import os
import random
from pathlib import Path

from tf_image_classification import storage

COUNT = 1200  # JPEGs


def image_folder(images: str | None, cache: str) -> str:
    """The folder of images to measure on.

    Args:
        images: a folder of the user's; returned as it is.
        cache: where a folder of `COUNT` JPEGs of two classes, of about 400 x 350 pixels, is created once if `images` is
            not given.
    """
    if images:
        return images
    target = os.path.join(cache, "photos")
    if os.path.isdir(target):
        return target
    from PIL import Image
    from sklearn.datasets import load_sample_images

    generator = random.Random(1)
    sample = load_sample_images()
    with storage.replacing_dir(target, "china") as staging:
        for number in range(COUNT):
            index = number % len(sample.images)
            class_folder = Path(staging, Path(sample.filenames[index]).stem)
            class_folder.mkdir(exist_ok=True)
            photo = Image.fromarray(sample.images[index])
            width, height = generator.randint(300, 500), generator.randint(280, 420)
            left, top = generator.randint(0, photo.width - width), generator.randint(0, photo.height - height)
            photo.crop((left, top, left + width, top + height)).save(class_folder / f"{number:05}.jpg", quality=90)
    return target
