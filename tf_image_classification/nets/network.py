"""What a built-in network is, and the checks that it passes before --model_name offers it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import keras

from tf_image_classification import network_sizes
from tf_image_classification.errors import UserError, did_you_mean
from tf_image_classification.preprocessing import PREPROCESSINGS


class NetworkError(UserError, ValueError):
    """A network cannot be registered: its description contradicts itself, another network's or flags.py."""


class Builder(Protocol):
    """Builds a network's Keras model."""

    def __call__(self, *, image_size: int, outputs: Mapping[str, int], weight_decay: float) -> keras.Model:
        """Returns a freshly initialised model; `Network.build` documents arguments and result.

        The builder makes everything between images and logits: layers, activations, pooling, normalisation and the
        heads. Logits have to be float32, also under a mixed-precision policy (`dtype="float32"` of the last layer).
        """


@dataclass(frozen=True, kw_only=True)
class Network:
    """A built-in network: a name, a builder, a preprocessing and its head's scopes.

    Attributes:
        name: value of --model_name.
        builder: builds the model.
        preprocessing: key of `preprocessing.PREPROCESSINGS`: what the pixels become before the network sees them.
        head_scopes: prefixes of the names of the variables whose shapes depend on the classes, as `scoped_names` names
            variables: what --checkpoint_exclude_scopes leaves out to fine-tune on other classes.
        default_size: height and width in pixels that suit the network best, or that its released weights saw.
        min_size: smallest height and width in pixels that reach the logits; the same number as in
            `network_sizes.MIN_IMAGE_SIZE`, where command lines read it without importing Keras.
        num_params: number of values in all variables, with the classes of the released weights; None: not stated.
        num_params_without_top: number of values in Keras's "notop" file of its released weights; None: there is none.
    """

    name: str
    builder: Builder
    preprocessing: str
    head_scopes: tuple[str, ...]
    default_size: int
    min_size: int
    num_params: int | None = None
    num_params_without_top: int | None = None

    def build(self, *, image_size: int, outputs: Mapping[str, int], weight_decay: float = 0.0) -> keras.Model:
        """A freshly initialised model.

        Initial values and dropout follow the seed of `keras.utils.set_random_seed`.

        Args:
            image_size: height and width of the images in pixels.
            outputs: task name -> number of logits K.
            weight_decay: L2 regularisation: weight_decay * sum(w^2) / 2 for each regularised variable w is in the
                model's `losses`.

        Returns:
            Model of images float32 [B, image_size, image_size, 3] -> logits float32 [B, K], or with several tasks a
            dict of task name -> [B, K].

        Raises:
            FlagError: the images are too small for this network.
        """
        network_sizes.check_image_size(self.name, image_size)
        return self.builder(image_size=image_size, outputs=outputs, weight_decay=weight_decay)


def registry(networks: Iterable[Network]) -> dict[str, Network]:
    """Checks networks and returns them by name. Builds none of them.

    Raises:
        NetworkError: two have the same name, a preprocessing is unknown, a network names no head scopes, or the names
            and minimum sizes are not those of `network_sizes.MIN_IMAGE_SIZE`.
    """
    by_name: dict[str, Network] = {}
    for network in networks:
        if network.name in by_name:
            raise NetworkError("Two networks have the same name", received=repr(network.name))
        _check(network)
        by_name[network.name] = network
    if unregistered := [name for name in network_sizes.MIN_IMAGE_SIZE if name not in by_name]:
        raise NetworkError(
            "network_sizes.MIN_IMAGE_SIZE lists a network that tf_image_classification.nets does not register",
            received=", ".join(unregistered),
            hint="Add its module to nets/__init__.py, or remove its line from MIN_IMAGE_SIZE in network_sizes.py",
        )
    return by_name


def _check(network: Network) -> None:
    if network.preprocessing not in PREPROCESSINGS:
        raise NetworkError(
            f"The network {network.name} has an unknown preprocessing",
            received=repr(network.preprocessing),
            expected="one of " + ", ".join(PREPROCESSINGS),
            hint=did_you_mean(network.preprocessing, PREPROCESSINGS),
        )
    if not (isinstance(network.head_scopes, tuple) and network.head_scopes and all(network.head_scopes)):
        raise NetworkError(
            f"The network {network.name} names no head scopes",
            received=f"head_scopes={network.head_scopes!r}",
            expected="the scopes of the variables whose shapes depend on the number of classes, such as ('head',)",
        )
    if network_sizes.MIN_IMAGE_SIZE.get(network.name) != network.min_size:
        raise NetworkError(
            f"The network {network.name} and network_sizes.MIN_IMAGE_SIZE differ in its minimum image size",
            received=f"min_size={network.min_size} in the network, "
            f"{network_sizes.MIN_IMAGE_SIZE.get(network.name, 'no entry')} in MIN_IMAGE_SIZE of network_sizes.py",
            expected="the same number in both",
        )
