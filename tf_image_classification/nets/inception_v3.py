"""Inception v3 (arXiv:1512.00567), as slim's nets/inception_v3.py."""

from __future__ import annotations

from tf_image_classification.nets.layers import Branch, Conv, Fork, Layers, Norm, Pool, Tensor, variance_scaling
from tf_image_classification.nets.slim import SlimBuilder, slim_network


def _body(layers: Layers, x: Tensor) -> Tensor:
    x = layers.conv(x, "Conv2d_1a_3x3", 32, stride=2, padding="valid")
    x = layers.conv(x, "Conv2d_2a_3x3", 32, padding="valid")
    x = layers.conv(x, "Conv2d_2b_3x3", 64)
    x = layers.pool(x, "MaxPool_3a_3x3", 2, "valid")
    x = layers.conv(x, "Conv2d_3b_1x1", 80, padding="valid")
    x = layers.conv(x, "Conv2d_4a_3x3", 192, padding="valid")
    x = layers.pool(x, "MaxPool_5a_3x3", 2, "valid")
    x = layers.mixed(x, "Mixed_5b", *_module_a(32, Conv("Conv2d_0a_1x1", 48), Conv("Conv2d_0b_5x5", 64)))
    # Names that differ from the other two: the released checkpoints carry them.
    x = layers.mixed(x, "Mixed_5c", *_module_a(64, Conv("Conv2d_0b_1x1", 48), Conv("Conv_1_0c_5x5", 64)))
    x = layers.mixed(x, "Mixed_5d", *_module_a(64, Conv("Conv2d_0a_1x1", 48), Conv("Conv2d_0b_5x5", 64)))
    x = layers.mixed(
        x,
        "Mixed_6a",
        (Conv("Conv2d_1a_1x1", 384, 2, "valid", kernel=3),),
        (Conv("Conv2d_0a_1x1", 64), Conv("Conv2d_0b_3x3", 96), Conv("Conv2d_1a_1x1", 96, 2, "valid", kernel=3)),
        (Pool("MaxPool_1a_3x3", 2, "valid"),),
    )
    for scope, width in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
        x = layers.mixed(x, scope, *_module_b(width))
    x = layers.mixed(
        x,
        "Mixed_7a",
        (Conv("Conv2d_0a_1x1", 192), Conv("Conv2d_1a_3x3", 320, 2, "valid")),
        (
            Conv("Conv2d_0a_1x1", 192),
            Conv("Conv2d_0b_1x7", 192),
            Conv("Conv2d_0c_7x1", 192),
            Conv("Conv2d_1a_3x3", 192, 2, "valid"),
        ),
        (Pool("MaxPool_1a_3x3", 2, "valid"),),
    )
    x = layers.mixed(x, "Mixed_7b", *_module_c("Conv2d_0b_3x1"))
    return layers.mixed(x, "Mixed_7c", *_module_c("Conv2d_0c_3x1"))


def _module_a(pooled: int, *five: Conv) -> tuple[Branch, ...]:
    return (
        (Conv("Conv2d_0a_1x1", 64),),
        five,
        (Conv("Conv2d_0a_1x1", 64), Conv("Conv2d_0b_3x3", 96), Conv("Conv2d_0c_3x3", 96)),
        (Pool("AvgPool_0a_3x3"), Conv("Conv2d_0b_1x1", pooled)),
    )


def _module_b(width: int) -> tuple[Branch, ...]:
    return (
        (Conv("Conv2d_0a_1x1", 192),),
        (Conv("Conv2d_0a_1x1", width), Conv("Conv2d_0b_1x7", width), Conv("Conv2d_0c_7x1", 192)),
        (
            Conv("Conv2d_0a_1x1", width),
            Conv("Conv2d_0b_7x1", width),
            Conv("Conv2d_0c_1x7", width),
            Conv("Conv2d_0d_7x1", width),
            Conv("Conv2d_0e_1x7", 192),
        ),
        (Pool("AvgPool_0a_3x3"), Conv("Conv2d_0b_1x1", 192)),
    )


def _module_c(tall: str) -> tuple[Branch, ...]:
    return (
        (Conv("Conv2d_0a_1x1", 320),),
        (Conv("Conv2d_0a_1x1", 384), Fork(Conv("Conv2d_0b_1x3", 384), Conv(tall, 384))),
        (
            Conv("Conv2d_0a_1x1", 448),
            Conv("Conv2d_0b_3x3", 384),
            Fork(Conv("Conv2d_0c_1x3", 384), Conv("Conv2d_0d_3x1", 384)),
        ),
        (Pool("AvgPool_0a_3x3"), Conv("Conv2d_0b_1x1", 192)),
    )


NETWORKS = (
    slim_network(
        SlimBuilder(
            name="inception_v3",
            scope="InceptionV3",
            head="Logits/Conv2d_1c_1x1",
            aux="AuxLogits",
            dropout=0.2,
            norm=Norm(decay=0.9997, epsilon=1e-3, scale=False),
            initializer=variance_scaling,
            body=_body,
        ),
        preprocessing="inception",
        default_size=299,
        min_size=75,
        num_params=23_853_833,
    ),
)
