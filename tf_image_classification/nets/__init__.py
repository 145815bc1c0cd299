"""The built-in networks: slim's, with slim's variable names, those of keras.applications, and a small one.

A network is a module here that holds a tuple `NETWORKS` of `Network`, an entry of that module in `_MODULES` below, and
a line in `network_sizes.MIN_IMAGE_SIZE`. Importing this package registers the networks and builds none.
"""

from __future__ import annotations

import types
from collections.abc import Mapping

import keras

from tf_image_classification.errors import FlagError, did_you_mean
from tf_image_classification.nets import (
    inception_resnet_v2,
    inception_v1,
    inception_v2,
    inception_v3,
    inception_v4,
    keras_applications,
    mobilenet,
    resnet,
    small,
    vgg,
)
from tf_image_classification.nets.names import scoped_names
from tf_image_classification.nets.network import Network, NetworkError, registry

__all__ = ["NETS", "Network", "NetworkError", "build", "registry", "scoped_names"]

_MODULES = (
    small,
    inception_v1,
    inception_v2,
    inception_v3,
    inception_v4,
    inception_resnet_v2,
    mobilenet,
    resnet,
    vgg,
    keras_applications,
)
NETS: Mapping[str, Network] = types.MappingProxyType(
    registry(network for module in _MODULES for network in module.NETWORKS)
)


def build(model_name: str, *, image_size: int, outputs: Mapping[str, int], weight_decay: float = 0.0) -> keras.Model:
    """A freshly initialised network; see `Network.build`.

    Raises:
        FlagError: the network is unknown, or the images are too small for it.
    """
    if model_name not in NETS:
        raise FlagError(
            "Unknown network",
            received=repr(model_name),
            expected="one of " + ", ".join(NETS),
            hint=did_you_mean(model_name, NETS),
        )
    return NETS[model_name].build(image_size=image_size, outputs=outputs, weight_decay=weight_decay)
