"""Values that --trainable_scopes refuses, and variables that it never selects."""

from __future__ import annotations

import keras
import pytest

from tf_image_classification import checkpoints, nets
from tf_image_classification.errors import FlagError


@pytest.fixture(scope="module")
def model() -> keras.Model:
    inputs = x = keras.Input((2,))
    for name in ("Net.block1", "Net.block10", "Net.Logits", "Net.LogitsExtra", "Head"):
        x = keras.layers.Dense(2, use_bias=False, name=name)(x)
    return keras.Model(inputs, x)


def test_a_scope_that_is_not_a_valid_regular_expression_is_refused(model: keras.Model) -> None:
    with pytest.raises(FlagError, match=r"not a valid regular expression.*Received: Net/\(block1"):
        checkpoints.trainable_variables(model, "Net/(block1")


def test_moving_statistics_are_never_selected() -> None:
    model = nets.build("small", image_size=8, outputs={"label": 2})
    assert len(checkpoints.trainable_variables(model, "Small/Conv2d_1_3x3")) == 3
