from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED_DATA = REPOSITORY.parent / "shared" / "data"


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory) -> Path:
    """60 small pictures of two classes that anyone can tell apart: bright ones and dark ones."""
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
