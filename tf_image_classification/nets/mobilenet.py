"""MobileNet v1 (arXiv:1704.04861) and v2 (arXiv:1801.04381), as slim's nets/mobilenet_v1.py and nets/mobilenet/."""

from __future__ import annotations

import functools

from tf_image_classification.nets.layers import Layers, Norm, Tensor, truncated_normal
from tf_image_classification.nets.slim import SlimBuilder, slim_network

# (output channels, stride) of each block: table 1 of the first paper, table 2 of the second
V1_BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
V2_BLOCKS = (
    (16, 1), (24, 2), (24, 1), (32, 2), (32, 1), (32, 1), (64, 2), (64, 1), (64, 1), (64, 1), (96, 1), (96, 1),
    (96, 1), (160, 2), (160, 1), (160, 1), (320, 1),
)  # fmt: skip
V2_EXPANSION = 6


def _v1_body(layers: Layers, x: Tensor) -> Tensor:
    x = layers.conv(x, "Conv2d_0", 32, kernel=3, stride=2)
    for index, (filters, stride) in enumerate(V1_BLOCKS, start=1):
        x = layers.depthwise(x, f"Conv2d_{index}_depthwise", stride=stride)
        x = layers.conv(x, f"Conv2d_{index}_pointwise", filters, kernel=1)
    return x


def _v2_body(layers: Layers, x: Tensor) -> Tensor:
    x = layers.conv(x, "Conv", 32, kernel=3, stride=2)
    for index, (filters, stride) in enumerate(V2_BLOCKS):
        block, y = layers.within(f"expanded_conv_{index}" if index else "expanded_conv"), x
        if index:
            y = block.conv(y, "expand", V2_EXPANSION * x.shape[-1], kernel=1)
        y = block.depthwise(y, "depthwise", stride=stride)
        y = block.conv(y, "project", filters, kernel=1, relu=False)
        x = block.add(x, y) if stride == 1 and x.shape[-1] == filters else y
    return layers.conv(x, "Conv_1", 1280, kernel=1)


NETWORKS = (
    slim_network(
        SlimBuilder(
            name="mobilenet_v1",
            scope="MobilenetV1",
            head="Logits/Conv2d_1c_1x1",
            dropout=0.001,
            norm=Norm(decay=0.9997, epsilon=1e-3, scale=True),
            max_value=6.0,
            initializer=functools.partial(truncated_normal, 0.09),
            body=_v1_body,
        ),
        preprocessing="inception",
        default_size=224,
        min_size=32,
        num_params=4_254_889,
    ),
    slim_network(
        SlimBuilder(
            name="mobilenet_v2",
            scope="MobilenetV2",
            head="Logits/Conv2d_1c_1x1",
            dropout=0.2,
            norm=Norm(decay=0.997, epsilon=1e-3, scale=True),
            max_value=6.0,
            initializer=functools.partial(truncated_normal, 0.09),
            body=_v2_body,
        ),
        preprocessing="inception",
        default_size=224,
        min_size=32,
        num_params=3_540_265,
    ),
)
