"""Starting from a checkpoint: what is loaded, what is left out, and which of two checkpoints wins."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.parity.support import V1, V2, NumberSpec, make_flags, numbered_data, save_by_name
from tf_image_classification import checkpoints, hooks, nets, train_estimator
from tf_image_classification.data.manifest import Manifest
from tf_image_classification.errors import CheckpointError
from tf_image_classification.flags import Flags
from tf_image_classification.training.training_folder import TrainingFolder

SLIM_INCEPTION_V3 = json.loads((Path(__file__).parent / "manifests" / "inception_v3.json").read_text())["variables"]
HEADS = "InceptionV3/Logits,InceptionV3/AuxLogits"


def values_of(model: keras.Model) -> dict[str, np.ndarray]:
    return {name: variable.numpy() for name, variable in nets.scoped_names(model).items()}


@pytest.fixture(scope="module")
def inception(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint with slim's variables, all of them 7."""
    values = {name: np.full(shape, 7, np.float32) for name, shape, *_ in SLIM_INCEPTION_V3}
    return save_by_name(values, tmp_path_factory.mktemp("inception") / "inception_v3.ckpt", V1)


def test_18_exclude_scopes_leave_out_the_heads_of_other_classes(inception: str) -> None:
    model = nets.build("inception_v3", image_size=75, outputs={"label": 10})
    before = values_of(model)
    report = checkpoints.warm_start(model, inception, HEADS)
    assert report.excluded == [f"InceptionV3/Logits/Conv2d_1c_1x1/{name}" for name in ("weights", "biases")]
    assert not report.missing
    assert {name.split("/")[1] for name in report.unused} == {"AuxLogits"}
    for name, value in values_of(model).items():
        assert np.array_equal(value, before[name]) if name in report.excluded else (value == 7).all()


def test_18_exclude_scopes_are_in_the_hint_of_the_error_about_another_shape(inception: str) -> None:
    model = nets.build("inception_v3", image_size=75, outputs={"label": 10})
    expected = rf"InceptionV3/Logits/Conv2d_1c_1x1/weights .*1001\].*10\].*--checkpoint_exclude_scopes {HEADS}\."
    with pytest.raises(CheckpointError, match=expected):
        checkpoints.warm_start(model, inception, None)


def small() -> keras.Model:
    return nets.build("small", image_size=8, outputs={"label": 2})


def test_18_exclude_scopes_are_plain_prefixes_with_blanks_and_empty_items_dropped(tmp_path: Path) -> None:
    path = save_by_name(values_of(small()), tmp_path / "small.ckpt")
    report = checkpoints.warm_start(small(), path, " Small/Conv2d_1_3x3/B , Small/Log ,, ")
    assert {name.rpartition("/")[0] for name in report.excluded} == {"Small/Conv2d_1_3x3/BatchNorm", "Small/Logits"}


def test_18_exclude_scopes_are_no_patterns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = save_by_name(values_of(small()), tmp_path / "small.ckpt")
    report = checkpoints.warm_start(small(), path, "Small/.*")
    assert not report.excluded
    assert "nothing in the model or the checkpoint starts with Small/.*" in caplog.text


def test_18_exclude_scopes_or_not_a_variable_that_the_checkpoint_lacks_is_only_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lacking = ["Small/Logits/weights", "Small/Logits/biases"]
    pretrained = {name: value for name, value in values_of(small()).items() if name not in lacking}
    model = small()
    before = values_of(model)
    with caplog.at_level(logging.WARNING):
        report = checkpoints.warm_start(model, save_by_name(pretrained, tmp_path / "small.ckpt"), None)
    assert report.missing == lacking
    assert "2 variables are not in" in caplog.text and "Small/Logits/biases" in caplog.text
    assert all(np.array_equal(values_of(model)[name], before[name]) for name in lacking)


def initial_state(model_dir: Path, checkpoint_path: str) -> tuple[dict[str, np.ndarray], int]:
    """The weights and the global step with which a training of the small network starts."""
    model, global_step = small(), tf.Variable(0, dtype=tf.int64)
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build(model.trainable_variables)
    state = checkpoints.training_checkpoint(model, optimizer, global_step)
    model_dir.mkdir()
    manager = tf.train.CheckpointManager(state, str(model_dir), max_to_keep=5, checkpoint_name="model.ckpt")
    hooks.load_checkpoint(
        model, manager, TrainingFolder(str(model_dir), str(model_dir)), make_flags(checkpoint_path=checkpoint_path)
    )
    return values_of(model), int(global_step)


@pytest.mark.parametrize("kind", ["V1 file", "V2 prefix", "V2 index file", "folder"])
def test_19_checkpoint_kinds_give_a_training_the_same_weights_and_step_0(kind: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    values = {
        name: random.uniform(0.5, 1, value.shape).astype(np.float32) for name, value in values_of(small()).items()
    }
    extras = {
        "global_step": np.int64(7),
        "Small/mean_rgb": np.zeros(3, np.float32),
        "Small/Logits/weights/Momentum": np.ones_like(values["Small/Logits/weights"]),
        "Small/Logits/weights/ExponentialMovingAverage": np.ones_like(values["Small/Logits/weights"]),
    }
    (tmp_path / "slim").mkdir()
    path = save_by_name({**values, **extras}, tmp_path / "slim" / "small.ckpt", V1 if kind == "V1 file" else V2)
    given = {"V2 index file": f"{path}.index", "folder": str(tmp_path / "slim")}.get(kind, path)
    started, global_step = initial_state(tmp_path / "model", given)
    assert started.keys() == values.keys()
    assert all(np.array_equal(started[name], values[name]) for name in values)
    assert global_step == 0


def test_19_checkpoint_path_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"Checkpoint not found.*pretrained\.ckpt"):
        initial_state(tmp_path / "model", str(tmp_path / "pretrained.ckpt"))


@pytest.fixture
def data(tmp_path: Path) -> Manifest:
    return numbered_data(tmp_path, train=10, evaluation=4)


class CountingSpec(NumberSpec):
    """Its loss is minus the bias: with a learning rate of 1 and plain gradient descent the bias grows by one each
    step."""

    def loss_fn(self, labels, logits):
        return -super().loss_fn(labels, logits)


def counted(model_dir: Path) -> float:
    with checkpoints.read(str(model_dir)) as weights:
        return float(weights["counter/bias"])


def counting_flags(model_dir: Path, train_steps: int, **changes: object) -> Flags:
    common = {"learning_rate": 1.0, "learning_rate_decay_type": "fixed", "optimizer": "sgd", "image_size": 4}
    return make_flags(**{**common, "model_dir": str(model_dir), "train_steps": train_steps, **changes})


def test_20_resume_continues_from_the_own_checkpoint_and_ignores_checkpoint_path(
    data: Manifest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pretrained = save_by_name({"counter/bias": np.float32(100)}, tmp_path / "pretrained.ckpt")
    with caplog.at_level(logging.INFO):
        for train_steps, expected in ((3, 103), (8, 108)):
            assert "Ignoring" not in caplog.text
            train_estimator.train_and_evaluate(
                CountingSpec(), data, counting_flags(tmp_path / "model", train_steps, checkpoint_path=pretrained)
            )
            assert counted(tmp_path / "model") == expected
    assert "Ignoring --checkpoint_path" in caplog.text


def test_20_resume_continues_with_the_optimizers_slots(data: Manifest, tmp_path: Path) -> None:
    for model_dir, stops in ((tmp_path / "whole", [8]), (tmp_path / "parts", [3, 8])):
        for train_steps in stops:
            train_estimator.train_and_evaluate(
                CountingSpec(), data, counting_flags(model_dir, train_steps, optimizer="momentum")
            )
    assert counted(tmp_path / "parts") == counted(tmp_path / "whole") > 8


def test_20_resume_of_a_model_dir_of_tensorflow_1_is_refused_not_started_afresh(data: Manifest, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    saver = tf.compat.v1.train.Saver({"counter/bias": tf.Variable(100.0)})
    saver.save(None, str(tmp_path / "old" / "model.ckpt"), global_step=3)
    with pytest.raises(
        CheckpointError, match=r"model\.ckpt-3 was saved by a training with another.*give it as --checkpoint_path"
    ):
        train_estimator.train_and_evaluate(CountingSpec(), data, counting_flags(tmp_path / "old", 8))
    flags = counting_flags(tmp_path / "new", 8, checkpoint_path=str(tmp_path / "old"))
    train_estimator.train_and_evaluate(CountingSpec(), data, flags)
    assert counted(tmp_path / "new") == 108
