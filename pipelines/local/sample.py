"""The sample data set: scikit-learn's 1,797 scanned digits as an image folder, and flags that train well on it."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from tf_image_classification import storage

_log = logging.getLogger(__name__)

IMAGE_SIZE = 32  # pixels; the scans are 8 x 8

FLAGS: dict[str, object] = {
    "model_name": "small",
    "image_size": IMAGE_SIZE,
    "batch_size": 64,
    "train_steps": 400,
    "learning_rate": 0.1,
    "learning_rate_decay_type": "polynomial",
    "num_epochs_per_decay": 18.0,
    "save_checkpoints_secs": 3.0,
    "eval_throttle_secs": 30,
    "eval_freq": 100,
    "seed": 1,
    "min_accuracy": 0.9,
}


def write(folder: str) -> str:
    """Writes the images as `<folder>/<digit>/<number>.png`, unless the folder exists; returns `folder`."""
    if os.path.isdir(folder):
        return folder
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    with storage.replacing_dir(folder, "0") as staging:
        for number, (pixels, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
            class_folder = Path(staging, str(digit))
            class_folder.mkdir(exist_ok=True)
            scan = Image.fromarray((pixels * (255 / 16)).round().astype("uint8"))
            scan.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC).save(class_folder / f"{number:04}.png")
    _log.info("Wrote the sample, %d scanned digits, to %s", len(digits.images), folder)
    return folder
