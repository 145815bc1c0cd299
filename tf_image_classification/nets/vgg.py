"""VGG (arXiv:1409.1556), as slim's nets/vgg.py.

Its fully connected layers are convolutions, so that it takes images larger than 224 pixels.
"""

from __future__ import annotations

import functools

import keras

from tf_image_classification.nets.layers import Layers, Tensor
from tf_image_classification.nets.network import Network
from tf_image_classification.nets.slim import SlimBuilder, slim_network


def _body(layers: Layers, x: Tensor, *, convolutions: tuple[int, ...]) -> Tensor:
    for block, (count, filters) in enumerate(zip(convolutions, (64, 128, 256, 512, 512), strict=True), start=1):
        for index in range(1, count + 1):
            x = layers.conv(x, f"conv{block}.conv{block}_{index}", filters, kernel=3)
        x = layers.pool(x, f"pool{block}", 2, "valid", kernel=2)
    x = layers.conv(x, "fc6", 4096, kernel=7, padding="valid")
    x = keras.layers.Dropout(0.5, name=f"{layers.scope}.dropout6")(x)
    return layers.conv(x, "fc7", 4096, kernel=1)


def _vgg(name: str, convolutions: tuple[int, ...], num_params: int) -> Network:
    return slim_network(
        SlimBuilder(
            name=name,
            scope=name,
            head="fc8",
            dropout=0.5,
            norm=None,
            initializer=keras.initializers.GlorotUniform,
            body=functools.partial(_body, convolutions=convolutions),
        ),
        preprocessing="vgg",
        default_size=224,
        min_size=224,
        num_params=num_params,
    )


NETWORKS = (
    _vgg("vgg_16", (2, 2, 3, 3, 3), 138_357_544),
    _vgg("vgg_19", (2, 2, 4, 4, 4), 143_667_240),
)
