"""A small convolutional network for a first try and for small images: not one of slim's, with scopes like theirs."""

from __future__ import annotations

from tf_image_classification.nets.layers import Layers, Norm, Tensor, variance_scaling
from tf_image_classification.nets.slim import SlimBuilder, slim_network


def _body(layers: Layers, x: Tensor) -> Tensor:
    x = layers.conv(x, "Conv2d_1_3x3", 32, stride=2)
    x = layers.conv(x, "Conv2d_2_3x3", 32)
    x = layers.pool(x, "MaxPool_2_2x2", 2)
    x = layers.conv(x, "Conv2d_3_3x3", 64)
    return layers.conv(x, "Conv2d_4_3x3", 48)


NETWORKS = (
    slim_network(
        SlimBuilder(
            name="small",
            scope="Small",
            head="Logits",
            # Moving averages over tens of steps: a first try is short, and evaluation uses the averages.
            norm=Norm(decay=0.9, epsilon=1e-3, scale=True),
            initializer=variance_scaling,
            body=_body,
        ),
        preprocessing="unit",
        default_size=32,
        min_size=8,
        num_params=57_354,
    ),
)
