"""A head that starts anew behind pretrained layers."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from tf_image_classification import checkpoints, nets


@pytest.fixture
def pretrained(tmp_path: Path) -> str:
    path = str(tmp_path / "pretrained.keras")
    nets.build("small", image_size=16, outputs={"label": 3}).save(path)
    return path


def head_kernel(model: keras.Model) -> np.ndarray:
    (kernel,) = (variable for variable in checkpoints.head_variables(model).values() if len(variable.shape) > 1)
    return np.asarray(kernel)


def test_the_kernel_of_a_built_in_networks_new_head_starts_at_zero(pretrained, training_flags):
    model = nets.build("small", image_size=16, outputs={"label": 2})
    assert np.any(head_kernel(model) != 0)
    checkpoints.load_pretrained(
        model, training_flags(checkpoint_path=pretrained, checkpoint_exclude_scopes="auto"), model_name="small"
    )
    assert np.all(head_kernel(model) == 0)


def test_a_head_that_is_loaded_keeps_its_weights(pretrained, training_flags):
    model = nets.build("small", image_size=16, outputs={"label": 3})
    checkpoints.load_pretrained(model, training_flags(checkpoint_path=pretrained), model_name="small")
    np.testing.assert_array_equal(head_kernel(model), head_kernel(keras.models.load_model(pretrained)))


def test_the_head_of_an_estimator_of_ones_own_keeps_its_initializer(pretrained, training_flags):
    model = nets.build("small", image_size=16, outputs={"label": 2})
    initial = head_kernel(model)
    checkpoints.load_pretrained(model, training_flags(checkpoint_path=pretrained, checkpoint_exclude_scopes="auto"))
    np.testing.assert_array_equal(head_kernel(model), initial)
