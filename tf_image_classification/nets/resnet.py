"""ResNet v1 (arXiv:1512.03385) and v2 (arXiv:1603.05027), as slim's nets/resnet_v1.py and resnet_v2.py.

Unlike the papers and keras.applications, the stride of a block is in its last unit.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import keras

from tf_image_classification.nets.layers import Layers, Norm, Tensor, variance_scaling
from tf_image_classification.nets.network import Network
from tf_image_classification.nets.slim import SlimBuilder, slim_network

Unit = Callable[[Layers, Tensor, int, int], Tensor]

# depth of the ResNet -> units of each block
UNITS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def _v1_body(layers: Layers, x: Tensor, *, units: tuple[int, ...]) -> Tensor:
    x = _conv_same(layers, x, "conv1", 64, kernel=7, stride=2)
    x = layers.pool(x, "MaxPool.pool1", 2, kernel=3)
    return _blocks(layers, x, units, "bottleneck_v1", _v1_unit)


def _v2_body(layers: Layers, x: Tensor, *, units: tuple[int, ...]) -> Tensor:
    x = _conv_same(layers, x, "conv1", 64, kernel=7, stride=2, norm=False, relu=False)
    x = layers.pool(x, "MaxPool.pool1", 2, kernel=3)
    x = _blocks(layers, x, units, "bottleneck_v2", _v2_unit)
    return layers.relu(layers.batch_norm(x, "postnorm"), "postnorm.Relu")


def _blocks(layers: Layers, x: Tensor, units: tuple[int, ...], scope: str, unit: Unit) -> Tensor:
    for block, (count, width) in enumerate(zip(units, (64, 128, 256, 512), strict=True), start=1):
        for index in range(1, count + 1):
            stride = 2 if index == count and block < len(units) else 1
            x = unit(layers.within(f"block{block}.unit_{index}.{scope}"), x, width, stride)
    return x


def _v1_unit(layers: Layers, x: Tensor, width: int, stride: int) -> Tensor:
    if x.shape[-1] == 4 * width:
        shortcut = _subsample(layers, x, stride)
    else:
        shortcut = layers.conv(x, "shortcut", 4 * width, kernel=1, stride=stride, relu=False)
    y = layers.conv(x, "conv1", width, kernel=1)
    y = _conv_same(layers, y, "conv2", width, kernel=3, stride=stride)
    y = layers.conv(y, "conv3", 4 * width, kernel=1, relu=False)
    return layers.relu(layers.add(shortcut, y), "Relu")


def _v2_unit(layers: Layers, x: Tensor, width: int, stride: int) -> Tensor:
    normalised = layers.relu(layers.batch_norm(x, "preact"), "preact.Relu")
    if x.shape[-1] == 4 * width:
        shortcut = _subsample(layers, x, stride)
    else:
        shortcut = layers.conv(normalised, "shortcut", 4 * width, kernel=1, stride=stride, norm=False, relu=False)
    y = layers.conv(normalised, "conv1", width, kernel=1)
    y = _conv_same(layers, y, "conv2", width, kernel=3, stride=stride)
    y = layers.conv(y, "conv3", 4 * width, kernel=1, norm=False, relu=False)
    return layers.add(shortcut, y)


def _conv_same(
    layers: Layers,
    x: Tensor,
    name: str,
    filters: int,
    *,
    kernel: int,
    stride: int,
    norm: bool = True,
    relu: bool = True,
) -> Tensor:
    """slim's resnet_utils.conv2d_same: with a stride, equal padding on both sides whatever the size of the image.

    TensorFlow's SAME padding pads one more pixel at the end where the size is even.
    """
    if stride == 1:
        return layers.conv(x, name, filters, kernel=kernel, norm=norm, relu=relu)
    x = keras.layers.ZeroPadding2D((kernel - 1) // 2, name=f"{layers.scope}.{name}.pad")(x)
    return layers.conv(x, name, filters, kernel=kernel, stride=stride, padding="valid", norm=norm, relu=relu)


def _subsample(layers: Layers, x: Tensor, stride: int) -> Tensor:
    return x if stride == 1 else layers.pool(x, "MaxPool.shortcut", stride, kernel=1)


def _v1(depth: int, num_params: int) -> Network:
    return slim_network(
        SlimBuilder(
            name=f"resnet_v1_{depth}",
            scope=f"resnet_v1_{depth}",
            head="logits",
            norm=Norm(decay=0.997, epsilon=1e-5, scale=True),
            initializer=variance_scaling,
            body=functools.partial(_v1_body, units=UNITS[depth]),
        ),
        preprocessing="vgg",
        default_size=224,
        min_size=32,
        num_params=num_params,
    )


def _v2(depth: int, num_params: int) -> Network:
    return slim_network(
        SlimBuilder(
            name=f"resnet_v2_{depth}",
            scope=f"resnet_v2_{depth}",
            head="logits",
            norm=Norm(decay=0.997, epsilon=1e-5, scale=True),
            initializer=variance_scaling,
            body=functools.partial(_v2_body, units=UNITS[depth]),
        ),
        preprocessing="inception",
        default_size=299,
        min_size=32,
        num_params=num_params,
    )


NETWORKS = (
    _v1(50, 25_610_152),
    _v1(101, 44_654_504),
    _v1(152, 60_344_232),
    _v2(50, 25_615_849),
    _v2(101, 44_677_609),
    _v2(152, 60_382_697),
)
