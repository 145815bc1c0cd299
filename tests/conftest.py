from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"
SHARED_DATA, SHARED_CASES = SHARED / "data", SHARED / "cases" / "data"


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory) -> Path:
    """60 small pictures of two classes, bright ones and dark ones."""
    import numpy as np
    from PIL import Image

    root = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(1)
    for name, level in (("bright", 200), ("dark", 40)):
        (root / name).mkdir()
        for number in range(30):
            pixels = random.integers(level - 30, level + 30, (20, 24, 3)).astype("uint8")
            Image.fromarray(pixels).save(root / name / f"{number:02}.{'jpg' if number % 2 else 'png'}")
    return root


@pytest.fixture(scope="session")
def mini_mnist() -> Path:
    """The original framework's own example data."""
    folder = SHARED_DATA / "mini_mnist"
    if not folder.is_dir():
        pytest.skip(f"the original's example data is not at {folder}")
    return folder


@pytest.fixture(scope="session")
def built_data(image_folder, tmp_path_factory):
    """The manifest of a data set built from `image_folder`."""
    from tf_image_classification import build_tfrecords

    return build_tfrecords.build(
        str(image_folder), str(tmp_path_factory.mktemp("built") / "data"), eval_fraction=0.25, workers=1
    )


@pytest.fixture
def training_flags(tmp_path):
    """Makes the flags of a short training of the small network; keyword arguments replace them."""
    from tf_image_classification import flags as flag_table

    def make(**changes):
        values = {
            "model_dir": str(tmp_path / "model"),
            "model_name": "small",
            "image_size": 16,
            "batch_size": 8,
            "train_steps": 6,
            "learning_rate": 0.1,
            "learning_rate_decay_type": "fixed",
            "seed": 7,
        }
        return flag_table.validate(values | changes, [flag.name for flag in flag_table.of_command(flag_table.TRAIN)])

    return make
