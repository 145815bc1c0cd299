"""Inception v4 (arXiv:1602.07261), as slim's nets/inception_v4.py."""

from __future__ import annotations

from tf_image_classification.nets.layers import Branch, Conv, Fork, Layers, Norm, Pool, Tensor, variance_scaling
from tf_image_classification.nets.slim import SlimBuilder, slim_network


def _body(layers: Layers, x: Tensor) -> Tensor:
    x = layers.conv(x, "Conv2d_1a_3x3", 32, stride=2, padding="valid")
    x = layers.conv(x, "Conv2d_2a_3x3", 32, padding="valid")
    x = layers.conv(x, "Conv2d_2b_3x3", 64)
    x = layers.mixed(x, "Mixed_3a", (Pool("MaxPool_0a_3x3", 2, "valid"),), (Conv("Conv2d_0a_3x3", 96, 2, "valid"),))
    x = layers.mixed(
        x,
        "Mixed_4a",
        (Conv("Conv2d_0a_1x1", 64), Conv("Conv2d_1a_3x3", 96, padding="valid")),
        (
            Conv("Conv2d_0a_1x1", 64),
            Conv("Conv2d_0b_1x7", 64),
            Conv("Conv2d_0c_7x1", 64),
            Conv("Conv2d_1a_3x3", 96, padding="valid"),
        ),
    )
    x = layers.mixed(x, "Mixed_5a", (Conv("Conv2d_1a_3x3", 192, 2, "valid"),), (Pool("MaxPool_1a_3x3", 2, "valid"),))
    for scope in ("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_5e"):
        x = layers.mixed(x, scope, *MODULE_A)
    x = layers.mixed(x, "Mixed_6a", *REDUCTION_A)
    for scope in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e", "Mixed_6f", "Mixed_6g", "Mixed_6h"):
        x = layers.mixed(x, scope, *MODULE_B)
    x = layers.mixed(x, "Mixed_7a", *REDUCTION_B)
    for scope in ("Mixed_7b", "Mixed_7c", "Mixed_7d"):
        x = layers.mixed(x, scope, *MODULE_C)
    return x


MODULE_A: tuple[Branch, ...] = (
    (Conv("Conv2d_0a_1x1", 96),),
    (Conv("Conv2d_0a_1x1", 64), Conv("Conv2d_0b_3x3", 96)),
    (Conv("Conv2d_0a_1x1", 64), Conv("Conv2d_0b_3x3", 96), Conv("Conv2d_0c_3x3", 96)),
    (Pool("AvgPool_0a_3x3"), Conv("Conv2d_0b_1x1", 96)),
)
REDUCTION_A: tuple[Branch, ...] = (
    (Conv("Conv2d_1a_3x3", 384, 2, "valid"),),
    (Conv("Conv2d_0a_1x1", 192), Conv("Conv2d_0b_3x3", 224), Conv("Conv2d_1a_3x3", 256, 2, "valid")),
    (Pool("MaxPool_1a_3x3", 2, "valid"),),
)
MODULE_B: tuple[Branch, ...] = (
    (Conv("Conv2d_0a_1x1", 384),),
    (Conv("Conv2d_0a_1x1", 192), Conv("Conv2d_0b_1x7", 224), Conv("Conv2d_0c_7x1", 256)),
    (
        Conv("Conv2d_0a_1x1", 192),
        Conv("Conv2d_0b_7x1", 192),
        Conv("Conv2d_0c_1x7", 224),
        Conv("Conv2d_0d_7x1", 224),
        Conv("Conv2d_0e_1x7", 256),
    ),
    (Pool("AvgPool_0a_3x3"), Conv("Conv2d_0b_1x1", 128)),
)
REDUCTION_B: tuple[Branch, ...] = (
    (Conv("Conv2d_0a_1x1", 192), Conv("Conv2d_1a_3x3", 192, 2, "valid")),
    (
        Conv("Conv2d_0a_1x1", 256),
        Conv("Conv2d_0b_1x7", 256),
        Conv("Conv2d_0c_7x1", 320),
        Conv("Conv2d_1a_3x3", 320, 2, "valid"),
    ),
    (Pool("MaxPool_1a_3x3", 2, "valid"),),
)
MODULE_C: tuple[Branch, ...] = (
    (Conv("Conv2d_0a_1x1", 256),),
    (Conv("Conv2d_0a_1x1", 384), Fork(Conv("Conv2d_0b_1x3", 256), Conv("Conv2d_0c_3x1", 256))),
    (
        Conv("Conv2d_0a_1x1", 384),
        Conv("Conv2d_0b_3x1", 448),
        Conv("Conv2d_0c_1x3", 512),
        Fork(Conv("Conv2d_0d_1x3", 256), Conv("Conv2d_0e_3x1", 256)),
    ),
    (Pool("AvgPool_0a_3x3"), Conv("Conv2d_0b_1x1", 256)),
)

NETWORKS = (
    slim_network(
        SlimBuilder(
            name="inception_v4",
            scope="InceptionV4",
            head="Logits/Logits",
            aux="AuxLogits",
            dense_head=True,
            dropout=0.2,
            norm=Norm(decay=0.9997, epsilon=1e-3, scale=False),
            initializer=variance_scaling,
            body=_body,
        ),
        preprocessing="inception",
        default_size=299,
        min_size=75,
        num_params=42_712_937,
    ),
)
