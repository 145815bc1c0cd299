"""Inception-ResNet v2 (arXiv:1602.07261), as slim's nets/inception_resnet_v2.py."""

from __future__ import annotations

import keras

from tf_image_classification.nets.layers import Branch, Conv, Layers, Norm, Pool, Tensor, variance_scaling
from tf_image_classification.nets.slim import SlimBuilder, slim_network


def _body(layers: Layers, x: Tensor) -> Tensor:
    x = layers.conv(x, "Conv2d_1a_3x3", 32, stride=2, padding="valid")
    x = layers.conv(x, "Conv2d_2a_3x3", 32, padding="valid")
    x = layers.conv(x, "Conv2d_2b_3x3", 64)
    x = layers.pool(x, "MaxPool_3a_3x3", 2, "valid")
    x = layers.conv(x, "Conv2d_3b_1x1", 80, padding="valid")
    x = layers.conv(x, "Conv2d_4a_3x3", 192, padding="valid")
    x = layers.pool(x, "MaxPool_5a_3x3", 2, "valid")
    x = layers.mixed(
        x,
        "Mixed_5b",
        (Conv("Conv2d_1x1", 96),),
        (Conv("Conv2d_0a_1x1", 48), Conv("Conv2d_0b_5x5", 64)),
        (Conv("Conv2d_0a_1x1", 64), Conv("Conv2d_0b_3x3", 96), Conv("Conv2d_0c_3x3", 96)),
        (Pool("AvgPool_0a_3x3"), Conv("Conv2d_0b_1x1", 64)),
    )
    for index in range(1, 11):
        x = _residual(layers, x, f"Repeat.block35_{index}", BLOCK_35, 0.17)
    x = layers.mixed(
        x,
        "Mixed_6a",
        (Conv("Conv2d_1a_3x3", 384, 2, "valid"),),
        (Conv("Conv2d_0a_1x1", 256), Conv("Conv2d_0b_3x3", 256), Conv("Conv2d_1a_3x3", 384, 2, "valid")),
        (Pool("MaxPool_1a_3x3", 2, "valid"),),
    )
    for index in range(1, 21):
        x = _residual(layers, x, f"Repeat_1.block17_{index}", BLOCK_17, 0.1)
    x = layers.mixed(
        x,
        "Mixed_7a",
        (Conv("Conv2d_0a_1x1", 256), Conv("Conv2d_1a_3x3", 384, 2, "valid")),
        (Conv("Conv2d_0a_1x1", 256), Conv("Conv2d_1a_3x3", 288, 2, "valid")),
        (Conv("Conv2d_0a_1x1", 256), Conv("Conv2d_0b_3x3", 288), Conv("Conv2d_1a_3x3", 320, 2, "valid")),
        (Pool("MaxPool_1a_3x3", 2, "valid"),),
    )
    for index in range(1, 10):
        x = _residual(layers, x, f"Repeat_2.block8_{index}", BLOCK_8, 0.2)
    x = _residual(layers, x, "Block8", BLOCK_8, 1.0, relu=False)
    return layers.conv(x, "Conv2d_7b_1x1", 1536)


BLOCK_35: tuple[Branch, ...] = (
    (Conv("Conv2d_1x1", 32),),
    (Conv("Conv2d_0a_1x1", 32), Conv("Conv2d_0b_3x3", 32)),
    (Conv("Conv2d_0a_1x1", 32), Conv("Conv2d_0b_3x3", 48), Conv("Conv2d_0c_3x3", 64)),
)
BLOCK_17: tuple[Branch, ...] = (
    (Conv("Conv2d_1x1", 192),),
    (Conv("Conv2d_0a_1x1", 128), Conv("Conv2d_0b_1x7", 160), Conv("Conv2d_0c_7x1", 192)),
)
BLOCK_8: tuple[Branch, ...] = (
    (Conv("Conv2d_1x1", 192),),
    (Conv("Conv2d_0a_1x1", 192), Conv("Conv2d_0b_1x3", 224), Conv("Conv2d_0c_3x1", 256)),
)


def _residual(
    layers: Layers, x: Tensor, scope: str, branches: tuple[Branch, ...], scale: float, relu: bool = True
) -> Tensor:
    block = layers.within(scope)
    up = block.conv(layers.mixed(x, scope, *branches), "Conv2d_1x1", x.shape[-1], norm=False, relu=False)
    x = block.add(x, keras.layers.Rescaling(scale, name=f"{block.scope}.scale")(up))
    return block.relu(x, "Relu") if relu else x


NETWORKS = (
    slim_network(
        SlimBuilder(
            name="inception_resnet_v2",
            scope="InceptionResnetV2",
            head="Logits/Logits",
            aux="AuxLogits",
            dense_head=True,
            dropout=0.2,
            norm=Norm(decay=0.9997, epsilon=1e-3, scale=False),
            initializer=variance_scaling,
            regularize_biases=True,
            body=_body,
        ),
        preprocessing="inception",
        default_size=299,
        min_size=75,
        num_params=55_875_273,
    ),
)
