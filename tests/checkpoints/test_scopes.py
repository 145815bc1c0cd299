"""--trainable_scopes selects variables by regular expressions on their slim names."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_image_classification import checkpoints, nets
from tf_image_classification.errors import FlagError


@pytest.fixture(scope="module")
def model() -> keras.Model:
    inputs = x = keras.Input((2,))
    for name in ("Net.block1", "Net.block10", "Net.Logits", "Net.LogitsExtra", "Head"):
        x = keras.layers.Dense(2, use_bias=False, name=name)(x)
    return keras.Model(inputs, x)


BLOCK1, BLOCK10, LOGITS, EXTRA = (f"Net/{name}/weights" for name in ("block1", "block10", "Logits", "LogitsExtra"))
HEAD = "Head/kernel"


@pytest.mark.parametrize(
    ("scopes", "selected"),
    [
        (None, [BLOCK1, BLOCK10, LOGITS, EXTRA, HEAD]),
        ("", [BLOCK1, BLOCK10, LOGITS, EXTRA, HEAD]),
        ("Net/Logits", [LOGITS, EXTRA]),
        ("Net/Logits/", [LOGITS]),
        ("Net/block1", [BLOCK1, BLOCK10]),
        ("Net/block1/", [BLOCK1]),
        ("Head,Net/block1/", [HEAD, BLOCK1]),
        (" Head , , Net/block1/,", [HEAD, BLOCK1]),
        (".*Logits/", [LOGITS]),
        ("Net/block(1|2)/,Head", [BLOCK1, HEAD]),
        ("Net/Logits,Net", [LOGITS, EXTRA, BLOCK1, BLOCK10]),
    ],
)
def test_a_scope_matches_from_the_start_of_a_name_without_a_word_boundary(model: keras.Model, scopes: str, selected: list[str]) -> None:
    names = {id(variable): name for name, variable in nets.scoped_names(model).items()}
    assert [names[id(variable)] for variable in checkpoints.trainable_variables(model, scopes)] == selected


@pytest.mark.parametrize("scopes", ["Logits", "head", "Net/block3"])
def test_a_scope_that_selects_nothing_is_refused_with_the_scopes_there_are(model: keras.Model, scopes: str) -> None:
    with pytest.raises(FlagError, match=r"No variables to optimize.*Net/block1, Net/block10, Net/Logits, Net/LogitsExtra, Head"):
        checkpoints.trainable_variables(model, scopes)


def test_a_scope_that_is_no_regular_expression_is_refused(model: keras.Model) -> None:
    with pytest.raises(FlagError, match=r"no regular expression.*Received: Net/\(block1"):
        checkpoints.trainable_variables(model, "Net/(block1")


def test_moving_statistics_are_never_selected() -> None:
    model = nets.build("small", image_size=8, outputs={"label": 2})
    assert len(checkpoints.trainable_variables(model, "Small/Conv2d_1_3x3")) == 3


def test_a_frozen_backbone_keeps_its_kernels_but_still_runs_in_training_mode() -> None:
    model = nets.build("small", image_size=8, outputs={"label": 2})
    variables = checkpoints.trainable_variables(model, "Small/Logits")
    optimizer = keras.optimizers.SGD(0.1)
    images = tf.constant(np.random.default_rng(0).normal(3.0, 2.0, size=(4, 8, 8, 3)), tf.float32)
    before = {name: variable.numpy() for name, variable in nets.scoped_names(model).items()}
    for _ in range(3):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(images, training=True) ** 2)
        optimizer.apply_gradients(zip(tape.gradient(loss, [variable.value for variable in variables]), variables, strict=True))
    changed = {name for name, variable in nets.scoped_names(model).items() if not np.array_equal(variable.numpy(), before[name])}
    moving = {name for name in before if "/moving_" in name}
    assert changed == moving | {"Small/Logits/weights", "Small/Logits/biases"}
    assert not np.allclose(model(images, training=True), model(images, training=False))
