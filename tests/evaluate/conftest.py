from __future__ import annotations

import pytest

from tests.evaluate.brightness import save_model
from tf_image_classification.data.manifest import DEFAULT_TASK


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model folder of the classes dark, middle, light."""
    return save_model(tmp_path_factory.mktemp("model") / "three", {DEFAULT_TASK: ("dark", "middle", "light")})
