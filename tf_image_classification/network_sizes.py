"""The built-in networks' names and smallest images: what flags and command lines know of them without Keras."""

from __future__ import annotations

# The built-in networks -> the smallest height and width, in pixels, that leave a feature map for their logits.
MIN_IMAGE_SIZE = {
    "small": 8,
    "inception_v1": 32,
    "inception_v2": 32,
    "inception_v3": 75,
    "inception_v4": 75,
    "inception_resnet_v2": 75,
    "mobilenet_v1": 32,
    "mobilenet_v2": 32,
    "resnet_v1_50": 32,
    "resnet_v1_101": 32,
    "resnet_v1_152": 32,
    "resnet_v2_50": 32,
    "resnet_v2_101": 32,
    "resnet_v2_152": 32,
    "vgg_16": 224,  # fc6 needs a 7x7 map after five halvings
    "vgg_19": 224,
}
