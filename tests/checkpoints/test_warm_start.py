"""Starting from a pretrained checkpoint."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_image_classification import checkpoints, nets
from tf_image_classification.errors import CheckpointError


def small(classes: int = 3) -> keras.Model:
    return nets.build("small", image_size=8, outputs={"label": classes})


def save(path: Path, values: dict[str, np.ndarray]) -> str:
    """Saves a slim checkpoint of version 2."""
    variables = {name: tf.Variable(value) for name, value in values.items()}
    return str(tf.compat.v1.train.Saver(variables).save(None, str(path)))


def values_of(model: keras.Model) -> dict[str, np.ndarray]:
    return {name: variable.numpy() for name, variable in nets.scoped_names(model).items()}


def test_the_error_names_the_auxiliary_head_of_a_slim_net_too(tmp_path: Path) -> None:
    path = save(tmp_path / "mobilenet.ckpt", {"MobilenetV2/Logits/Conv2d_1c_1x1/biases": np.zeros(1001, np.float32)})
    model = nets.build("mobilenet_v2", image_size=32, outputs={"label": 10})
    with pytest.raises(CheckpointError, match=r"--checkpoint_exclude_scopes MobilenetV2/Logits\."):
        checkpoints.warm_start(model, path, None)


def test_a_checkpoint_of_another_network_is_an_error_that_names_the_network(tmp_path: Path) -> None:
    path = save(tmp_path / "x.ckpt", {"InceptionV3/Conv2d_1a_3x3/weights": np.zeros((3, 3, 3, 32), np.float32)})
    with pytest.raises(
        CheckpointError, match=r"scopes InceptionV3/Conv2d_1a_3x3.*under Small.*--model_name inception_v3"
    ):
        checkpoints.warm_start(small(), path, None)


def test_excluding_everything_is_an_error(tmp_path: Path) -> None:
    path = save(tmp_path / "small.ckpt", values_of(small()))
    with pytest.raises(CheckpointError, match="leaves nothing to load"):
        checkpoints.warm_start(small(), path, "Small")


def test_the_table_counts_variables_and_values_by_scope(tmp_path: Path) -> None:
    pretrained = values_of(small())
    del pretrained["Small/Conv2d_4_3x3/weights"]
    pretrained["Small/Logits/weights/Momentum"] = np.zeros(3, np.float32)
    report = checkpoints.warm_start(small(), save(tmp_path / "small.ckpt", pretrained), "Small/Logits")
    assert report.table().splitlines() == [
        "scope                    loaded  excluded  not in checkpoint",
        "Small/Conv2d_1_3x3      5 (992)         -                  -",
        "Small/Conv2d_2_3x3    5 (9,344)         -                  -",
        "Small/Conv2d_3_3x3   5 (18,688)         -                  -",
        "Small/Conv2d_4_3x3      4 (192)         -         1 (27,648)",
        "Small/Logits                  -   2 (147)                  -",
        "all                 19 (29,216)   2 (147)         1 (27,648)",
        "only in the checkpoint: 1 (Small/Logits)",
    ]


def mine() -> keras.Model:
    """A model whose layers Keras names by counting, so that a second one in the same process has other names."""
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(3), keras.layers.Dense(2)])


@pytest.mark.parametrize("kind", ["object checkpoint", ".keras", ".weights.h5"])
def test_a_model_with_automatic_names_is_matched_by_its_structure(kind: str, tmp_path: Path) -> None:
    source, target = mine(), mine()
    if kind == "object checkpoint":
        path = tf.train.Checkpoint(model=source).write(str(tmp_path / "ckpt"))
    elif kind == ".keras":
        source.save(path := str(tmp_path / "mine.keras"))
    else:
        source.save_weights(path := str(tmp_path / "mine.weights.h5"))
    assert len(checkpoints.warm_start(target, path, None).loaded) == 6
    assert all(
        np.array_equal(one, other) for one, other in zip(source.get_weights(), target.get_weights(), strict=True)
    )


def test_a_built_in_backbone_inside_a_model_of_ones_own_loads_by_its_slim_names(tmp_path: Path) -> None:
    pretrained = values_of(small(1001))
    backbone = small(4)
    model = keras.Sequential([keras.Input((8, 8, 3)), backbone, keras.layers.Dense(2, name="head")], name="mine")
    report = checkpoints.warm_start(model, save(tmp_path / "small.ckpt", pretrained), "Small/Logits")
    assert report.missing == ["mine/head/kernel", "mine/head/bias"]
    name = "Small/Conv2d_1_3x3/weights"
    np.testing.assert_array_equal(nets.scoped_names(backbone)[name].numpy(), pretrained[name])


def test_a_backbone_loads_from_the_keras_file_of_a_model_of_ones_own(tmp_path: Path) -> None:
    backbone = small()
    model = keras.Sequential([keras.Input((8, 8, 3)), backbone, keras.layers.Dense(2, name="head")], name="mine")
    model.save(tmp_path / "mine.keras")
    target = small()
    report = checkpoints.warm_start(target, str(tmp_path / "mine.keras"), None)
    assert (len(report.loaded), report.missing) == (22, [])
    assert all(np.array_equal(value, values_of(backbone)[name]) for name, value in values_of(target).items())


@pytest.mark.parametrize("scale", [True, False])
def test_a_layer_of_a_keras_file_with_other_variables_is_not_mistaken(scale: bool, tmp_path: Path) -> None:
    def model(scale: bool) -> keras.Model:
        inputs = keras.Input((4,))
        x = keras.layers.Dense(3, name="hidden")(inputs)
        return keras.Model(inputs, keras.layers.BatchNormalization(scale=scale, name="norm")(x))

    model(scale).save_weights(tmp_path / "other.weights.h5")
    report = checkpoints.warm_start(model(not scale), str(tmp_path / "other.weights.h5"), None)
    assert report.loaded == ["hidden/kernel", "hidden/bias"]
    assert all(name.startswith("norm/") for name in report.missing)
