"""Inception v1, GoogLeNet (arXiv:1409.4842) with batch normalisation, as slim's nets/inception_v1.py."""

from __future__ import annotations

import dataclasses

from tf_image_classification.nets.layers import (
    Branch,
    Conv,
    Layers,
    Norm,
    Pool,
    Tensor,
    truncated_normal,
    variance_scaling,
)
from tf_image_classification.nets.slim import SlimBuilder, slim_network

# Output channels of each module's convolutions, branch by branch: 1x1 | 1x1, 3x3 | 1x1, 3x3 | pooling, 1x1
WIDTHS_3 = {"Mixed_3b": (64, 96, 128, 16, 32, 32), "Mixed_3c": (128, 128, 192, 32, 96, 64)}
WIDTHS_4 = {
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
}
WIDTHS_5 = {"Mixed_5b": (256, 160, 320, 32, 128, 128), "Mixed_5c": (384, 192, 384, 48, 128, 128)}


def _body(layers: Layers, x: Tensor) -> Tensor:
    layers = dataclasses.replace(layers, initializer=truncated_normal(0.01))
    x = layers.conv(x, "Conv2d_1a_7x7", 64, stride=2)
    x = layers.pool(x, "MaxPool_2a_3x3", 2)
    x = layers.conv(x, "Conv2d_2b_1x1", 64)
    x = layers.conv(x, "Conv2d_2c_3x3", 192)
    x = layers.pool(x, "MaxPool_3a_3x3", 2)
    for scope, widths in WIDTHS_3.items():
        x = layers.mixed(x, scope, *_module(*widths))
    x = layers.pool(x, "MaxPool_4a_3x3", 2)
    for scope, widths in WIDTHS_4.items():
        x = layers.mixed(x, scope, *_module(*widths))
    x = layers.pool(x, "MaxPool_5a_2x2", 2)
    # A name that differs from all others: the released checkpoint carries it.
    x = layers.mixed(x, "Mixed_5b", *_module(*WIDTHS_5["Mixed_5b"], last="Conv2d_0a_3x3"))
    return layers.mixed(x, "Mixed_5c", *_module(*WIDTHS_5["Mixed_5c"]))


def _module(
    one: int, to_three: int, three: int, to_five: int, five: int, pooled: int, last: str = "Conv2d_0b_3x3"
) -> tuple[Branch, ...]:
    return (
        (Conv("Conv2d_0a_1x1", one),),
        (Conv("Conv2d_0a_1x1", to_three), Conv("Conv2d_0b_3x3", three)),
        (Conv("Conv2d_0a_1x1", to_five), Conv(last, five)),
        (Pool("MaxPool_0a_3x3"), Conv("Conv2d_0b_1x1", pooled)),
    )


NETWORKS = (
    slim_network(
        SlimBuilder(
            name="inception_v1",
            scope="InceptionV1",
            head="Logits/Conv2d_0c_1x1",
            dropout=0.2,
            norm=Norm(decay=0.9997, epsilon=1e-3, scale=False),
            initializer=variance_scaling,
            body=_body,
        ),
        preprocessing="inception",
        default_size=224,
        min_size=32,
        num_params=6_633_209,
    ),
)
