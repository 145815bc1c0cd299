"""Inception v2 (arXiv:1502.03167), as slim's nets/inception_v2.py."""

from __future__ import annotations

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

# Output channels of each module's convolutions, branch by branch: 1x1 | 1x1, 3x3 | 1x1, 3x3, 3x3 | pooling, 1x1
WIDTHS_3 = {"Mixed_3b": (64, 64, 64, 64, 96, 32), "Mixed_3c": (64, 64, 96, 64, 96, 64)}
WIDTHS_4 = {
    "Mixed_4b": (224, 64, 96, 96, 128, 128),
    "Mixed_4c": (192, 96, 128, 96, 128, 128),
    "Mixed_4d": (160, 128, 160, 128, 160, 96),
    "Mixed_4e": (96, 128, 192, 160, 192, 96),
}
WIDTHS_5 = {"Mixed_5b": (352, 192, 320, 160, 224, 128), "Mixed_5c": (352, 192, 320, 192, 224, 128)}


def _body(layers: Layers, x: Tensor) -> Tensor:
    x = layers.separable(x, "Conv2d_1a_7x7", 64, stride=2, multiplier=8, initializer=truncated_normal(1.0))
    x = layers.pool(x, "MaxPool_2a_3x3", 2)
    x = layers.conv(x, "Conv2d_2b_1x1", 64, initializer=truncated_normal(0.1))
    x = layers.conv(x, "Conv2d_2c_3x3", 192)
    x = layers.pool(x, "MaxPool_3a_3x3", 2)
    for scope, widths in WIDTHS_3.items():
        x = layers.mixed(x, scope, *_module(*widths))
    x = layers.mixed(x, "Mixed_4a", *_reduction(128, 160, 64, 96))
    for scope, widths in WIDTHS_4.items():
        x = layers.mixed(x, scope, *_module(*widths))
    x = layers.mixed(x, "Mixed_5a", *_reduction(128, 192, 192, 256))
    x = layers.mixed(x, "Mixed_5b", *_module(*WIDTHS_5["Mixed_5b"]))
    return layers.mixed(x, "Mixed_5c", *_module(*WIDTHS_5["Mixed_5c"], pool="MaxPool_0a_3x3"))


def _module(
    one: int, to_three: int, three: int, to_double: int, double: int, pooled: int, pool: str = "AvgPool_0a_3x3"
) -> tuple[Branch, ...]:
    return (
        (Conv("Conv2d_0a_1x1", one),),
        (_narrow(to_three), Conv("Conv2d_0b_3x3", three)),
        (_narrow(to_double), Conv("Conv2d_0b_3x3", double), Conv("Conv2d_0c_3x3", double)),
        (Pool(pool), Conv("Conv2d_0b_1x1", pooled, initializer=truncated_normal(0.1))),
    )


def _reduction(to_three: int, three: int, to_double: int, double: int) -> tuple[Branch, ...]:
    return (
        (_narrow(to_three), Conv("Conv2d_1a_3x3", three, 2)),
        (_narrow(to_double), Conv("Conv2d_0b_3x3", double), Conv("Conv2d_1a_3x3", double, 2)),
        (Pool("MaxPool_1a_3x3", 2),),
    )


def _narrow(width: int) -> Conv:
    return Conv("Conv2d_0a_1x1", width, initializer=truncated_normal(0.09))


NETWORKS = (
    slim_network(
        SlimBuilder(
            name="inception_v2",
            scope="InceptionV2",
            head="Logits/Conv2d_1c_1x1",
            dropout=0.2,
            norm=Norm(decay=0.9997, epsilon=1e-3, scale=False),
            initializer=variance_scaling,
            body=_body,
        ),
        preprocessing="inception",
        default_size=224,
        min_size=32,
        num_params=11_199_137,
    ),
)
