"""--trainable_scopes selects by regular expressions from the start of slim's names; what is frozen still runs in
training mode."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_image_classification import checkpoints, nets
from tf_image_classification.built_in_estimator import BuiltInEstimator
from tf_image_classification.errors import FlagError
from tf_image_classification.flags import Flags
from tf_image_classification.training import steps


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
def test_16_trainable_scopes_match_from_the_start_of_a_name_without_a_word_boundary(
    model: keras.Model, scopes: str, selected: list[str]
) -> None:
    names = {id(variable): name for name, variable in nets.scoped_names(model).items()}
    assert [names[id(variable)] for variable in checkpoints.trainable_variables(model, scopes)] == selected


@pytest.mark.parametrize("scopes", ["Logits", "head", "Net/block3"])
def test_16_trainable_scopes_that_select_nothing_are_refused_with_the_scopes_there_are(
    model: keras.Model, scopes: str
) -> None:
    with pytest.raises(
        FlagError, match=r"No variables to optimize.*Net/block1, Net/block10, Net/Logits, Net/LogitsExtra, Head"
    ):
        checkpoints.trainable_variables(model, scopes)


def test_16_trainable_scopes_that_overlap_update_each_variable_once(model: keras.Model) -> None:
    before = [value.copy() for value in model.get_weights()]
    variables = checkpoints.trainable_variables(model, "Net,Net/Logits")
    optimizer = keras.optimizers.SGD(1.0)
    optimizer.apply([tf.ones_like(variable.value) for variable in variables], variables)
    moved = [float((old - new).mean()) for old, new in zip(before, model.get_weights(), strict=True)]
    np.testing.assert_allclose(moved, [1, 1, 1, 1, 0], atol=1e-6)


def test_17_frozen_backbone_keeps_its_kernels_but_still_runs_in_training_mode() -> None:
    spec = BuiltInEstimator()
    spec.class_dict = [{"name": "label", "depth": 2, "one-hot": True}]
    spec.flags = Flags(label_smoothing=0.0)
    model = nets.build("small", image_size=8, outputs={"label": 2})
    variables = checkpoints.trainable_variables(model, "Small/Logits")
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build(variables)
    images = tf.constant(np.random.default_rng(0).normal(3.0, 2.0, size=(4, 8, 8, 3)), tf.float32)
    labels = {"label": tf.one_hot([0, 1, 0, 1], 2)}
    before = {name: variable.numpy() for name, variable in nets.scoped_names(model).items()}
    by_the_batch = float(steps.total_loss(spec, model, images, labels, training=True)[0]["loss"])
    global_step = tf.Variable(0, dtype=tf.int64)
    update = steps.train_step(spec, model, optimizer, variables, global_step, tf.distribute.get_strategy())
    batches = iter(tf.data.Dataset.from_tensors((images, labels)).repeat(3))
    losses = [float(update(batches)["loss"]) for _ in range(3)]

    changed = {
        name
        for name, variable in nets.scoped_names(model).items()
        if not np.array_equal(variable.numpy(), before[name])
    }
    moving = {name for name in before if "/moving_" in name}
    assert changed == moving | {"Small/Logits/weights", "Small/Logits/biases"}
    assert losses[0] == pytest.approx(by_the_batch, rel=1e-5)
    assert losses[-1] < losses[0]
    assert not np.allclose(model(images, training=True), model(images, training=False))
