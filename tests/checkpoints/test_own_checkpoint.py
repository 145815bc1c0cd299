"""A training's own checkpoint."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.checkpoints import index_files
from tf_image_classification import checkpoints, nets
from tf_image_classification.errors import CheckpointError
from tf_image_classification.optimizers import Momentum, RMSProp

IMAGES = tf.constant(np.random.default_rng(0).normal(size=(4, 8, 8, 3)), tf.float32)


class Training:
    """A few steps of training the small net, with dropout, so that random states matter too."""

    def __init__(self, optimizer: keras.optimizers.Optimizer, scopes: str | None = None, classes: int = 2) -> None:
        net = nets.build("small", image_size=8, outputs={"label": classes})
        self.model = keras.Sequential([keras.Input((8, 8, 3)), net, keras.layers.Dropout(0.5)], name="with_dropout")
        self.variables = checkpoints.trainable_variables(self.model, scopes)
        self.optimizer = optimizer
        self.optimizer.build(self.variables)
        self.global_step = tf.Variable(0, dtype=tf.int64)
        self.data_seed = tf.Variable(1, dtype=tf.int64)
        self.state = checkpoints.training_checkpoint(
            self.model, self.optimizer, self.global_step, {"data_seed": self.data_seed}
        )

    def steps(self, count: int) -> None:
        for _ in range(count):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum((self.model(IMAGES, training=True) - 1.0) ** 2)
                scaled = self.optimizer.scale_loss(loss)
            self.optimizer.apply(tape.gradient(scaled, [variable.value for variable in self.variables]), self.variables)
            self.global_step.assign_add(1)

    def everything(self) -> list[np.ndarray]:
        variables = [*self.model.variables, *self.optimizer.variables]
        return [*(variable.numpy() for variable in variables), self.global_step.numpy(), self.data_seed.numpy()]


OPTIMIZERS = {
    "momentum": lambda: Momentum(0.01),
    "rmsprop": lambda: RMSProp(keras.optimizers.schedules.ExponentialDecay(0.01, 2, 0.5)),
    "adam": lambda: keras.optimizers.Adam(0.01),
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(RMSProp(0.01)),
}


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_an_interrupted_training_continues_as_if_it_had_not_stopped(name: str, tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    first = Training(OPTIMIZERS[name]())
    first.steps(3)
    path = first.state.save(str(tmp_path / "model.ckpt"))
    first.data_seed.assign(2)
    first.steps(2)

    second = Training(OPTIMIZERS[name]())
    checkpoints.restore(second.state, path)
    assert (int(second.global_step), int(second.data_seed)) == (3, 1)
    second.data_seed.assign(2)
    second.steps(2)
    for one, other in zip(first.everything(), second.everything(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> str:
    training = Training(OPTIMIZERS["momentum"](), scopes="Small/Logits")
    return str(training.state.save(str(tmp_path_factory.mktemp("saved") / "model.ckpt")))


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (lambda: Training(OPTIMIZERS["adam"](), scopes="Small/Logits"), "another optimizer"),
        (lambda: Training(OPTIMIZERS["momentum"]()), "another optimizer or --trainable_scopes"),
        (lambda: Training(OPTIMIZERS["momentum"](), scopes="Small/Logits", classes=3), "another network"),
    ],
    ids=["optimizer", "scopes", "classes"],
)
def test_a_checkpoint_of_another_training_is_refused_before_anything_changes(other, what: str, saved: str) -> None:
    training = other()
    before = training.everything()
    with pytest.raises(CheckpointError, match=f"{what}.*another --model_dir"):
        checkpoints.restore(training.state, saved)
    assert all(np.array_equal(one, value) for one, value in zip(training.everything(), before, strict=True))


def test_an_own_checkpoint_that_asks_for_more_memory_than_its_file_has_is_damaged(saved: str, tmp_path: Path) -> None:
    copied = tmp_path / "model.ckpt-1"
    for suffix in (".index", ".data-00000-of-00001"):
        (tmp_path / f"{copied.name}{suffix}").write_bytes(Path(f"{saved}{suffix}").read_bytes())
    shape, key = [1 << 40], "global_step/.ATTRIBUTES/VARIABLE_VALUE"
    (tmp_path / f"{copied.name}.index").write_bytes(index_files.of_entries({key: index_files.entry(shape, 1 << 42)}))
    training = Training(OPTIMIZERS["momentum"](), scopes="Small/Logits")
    with pytest.raises(tf.errors.DataLossError, match="is refused"):
        checkpoints.restore(training.state, str(copied))


def test_the_weights_of_a_training_start_another_one(saved: str) -> None:
    model = nets.build("small", image_size=8, outputs={"label": 2})
    report = checkpoints.warm_start(model, saved, None)
    assert (len(report.loaded), report.missing, report.unused) == (22, [], [])
