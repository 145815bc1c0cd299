"""Which built-in networks a checkpoint is of, told without building them."""

from __future__ import annotations

import math

from tf_image_classification import nets
from tf_image_classification.checkpoints.reader import Weights
from tf_image_classification.imagenet_weights import FILES

_IMAGENET_CLASSES = 1000


def networks_of(weights: Weights) -> list[str]:
    """The names of the networks that a checkpoint can be of.

    One of slim's is told by the scopes of its head. One of keras.applications is told by the number of values in the
    checkpoint: of the published file, with its head or without, or of one with another number of classes.
    """
    scopes = {_network_scope(name.replace(".", "/")) for name in weights}  # a Keras file has '.' in slim's scopes
    sizes = {name: math.prod(shape) for name, shape in weights.shapes.items() if not name.startswith("optimizer/")}
    names = []
    for network in nets.NETS.values():
        is_slim = any(_network_scope(head) in scopes for head in network.head_scopes if "/" in head)
        if is_slim or (network.name in FILES and _has_size_of(network, weights, sizes)):
            names.append(network.name)
    return names


def _has_size_of(network: nets.Network, weights: Weights, sizes: dict[str, int]) -> bool:
    total = sum(sizes.values())
    if total in (network.num_params, network.num_params_without_top):
        return True
    head = [name for name in sizes if name.startswith(network.head_scopes)]
    kernels = [weights.shapes[name] for name in head if len(weights.shapes[name]) > 1]
    if network.num_params is None or not kernels:
        return False
    features = math.prod(kernels[0][:-1])
    without_head = total - sum(sizes[name] for name in head)
    return without_head == network.num_params - (features + 1) * _IMAGENET_CLASSES


def _network_scope(name: str) -> str:
    """The first part of a variable's name: the scope of the whole network in slim's names."""
    return name.partition("/")[0]
