"""slim's names of variables."""

from __future__ import annotations

import keras

from tf_image_classification import nets


def test_layers_named_by_slim_scopes_have_slim_names() -> None:
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="Net.Conv2d_1")(inputs)
    x = keras.layers.BatchNormalization(name="Net.Conv2d_1.BatchNorm")(x)
    x = keras.layers.DepthwiseConv2D(3, use_bias=False, name="Net.Conv2d_2")(x)
    x = keras.layers.SeparableConv2D(4, 3, name="Net.Conv2d_3")(x)
    model = keras.Model(inputs, x)
    assert sorted(nets.scoped_names(model)) == [
        "Net/Conv2d_1/BatchNorm/beta",
        "Net/Conv2d_1/BatchNorm/gamma",
        "Net/Conv2d_1/BatchNorm/moving_mean",
        "Net/Conv2d_1/BatchNorm/moving_variance",
        "Net/Conv2d_1/biases",
        "Net/Conv2d_1/weights",
        "Net/Conv2d_2/depthwise_weights",
        "Net/Conv2d_3/biases",
        "Net/Conv2d_3/depthwise_weights",
        "Net/Conv2d_3/pointwise_weights",
    ]


def test_a_model_of_ones_own_has_keras_paths() -> None:
    layers = [keras.Input((4,)), keras.layers.Dense(3, name="hidden"), keras.layers.Dense(2, name="head")]
    model = keras.Sequential(layers, name="mine")
    assert list(nets.scoped_names(model)) == [
        "mine/hidden/kernel",
        "mine/hidden/bias",
        "mine/head/kernel",
        "mine/head/bias",
    ]


def test_a_built_in_network_inside_a_model_of_ones_own_keeps_its_names() -> None:
    backbone = nets.build("small", image_size=16, outputs={"label": 4})
    model = keras.Sequential([keras.Input((16, 16, 3)), backbone, keras.layers.Dense(2, name="head")], name="mine")
    names = nets.scoped_names(model)
    assert {"Small/Logits/weights", "Small/Conv2d_1_3x3/BatchNorm/gamma", "mine/head/kernel"} < set(names)


def test_equal_paths_get_different_names() -> None:
    def part() -> keras.Model:
        inputs = keras.Input((3,))
        return keras.Model(inputs, keras.layers.Dense(3, name="same")(inputs))

    names = nets.scoped_names(keras.Sequential([keras.Input((3,)), part(), part()]))
    assert list(names) == ["same/kernel", "same/bias", "same/kernel_1", "same/bias_1"]


def test_random_number_states_are_no_weights() -> None:
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dropout(0.5), keras.layers.Dense(2, name="head")], name="mine"
    )
    assert len(model.variables) == 3
    assert list(nets.scoped_names(model)) == ["mine/head/kernel", "mine/head/bias"]
