"""Files in the layout of the published weights of keras.applications, made on the spot."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

_NUMBERED = re.compile(r"(conv2d|batch_normalization|normalization|dense)(?:_(\d+))?")


def application(name: str, **arguments: Any) -> keras.Model:
    """A network as keras.applications builds it, which gives logits."""
    return getattr(keras.applications, name)(classifier_activation=None, **arguments)


def randomize(model: keras.Model) -> keras.Model:
    """Sets all weights to random values, moving statistics too, so that two of them are never mistaken."""
    random = np.random.default_rng(0)
    for variable in model.weights:
        if variable.name in ("variance", "moving_variance"):
            variable.assign(random.uniform(0.8, 1.25, variable.shape))
        elif variable.name != "count":
            noise = random.normal(0, 0.02, variable.shape)
            variable.assign(variable.numpy() * (1 + noise) + noise)
    return model


def save(model: keras.Model, path: Path, *, whole_model: bool = False, first_number: int = 95) -> str:
    """Saves a model's weights as Keras 2 did: layers in order, each with its trainable weights first.

    Args:
        whole_model: as `model.save` did, with the weights in a group.
        first_number: of the layers that Keras numbers, in a process that had built others.
    """
    with h5py.File(path, "w") as file:
        group = file.create_group("model_weights") if whole_model else file
        names = [_renumbered(layer.name, first_number) for layer in model.layers]
        group.attrs["layer_names"] = [name.encode() for name in names]
        group.attrs["backend"], group.attrs["keras_version"] = b"tensorflow", b"2.4.0"
        for name, layer in zip(names, model.layers, strict=True):
            own = group.create_group(name)
            weights = [*layer.trainable_weights, *layer.non_trainable_weights]
            weights = [weight for weight in weights if "seed_generator" not in weight.path]
            weight_names = [f"{name}/{index}/{weight.name}:0" for index, weight in enumerate(weights)]
            own.attrs["weight_names"] = [weight_name.encode() for weight_name in weight_names]
            for weight_name, weight in zip(weight_names, weights, strict=True):
                own[weight_name] = weight.numpy()
    return str(path)


def _renumbered(name: str, first_number: int) -> str:
    match = _NUMBERED.fullmatch(name)
    return f"{match[1]}_{int(match[2] or 0) + first_number}" if match else name


def as_published(name: str, path: str, size: int, monkeypatch: pytest.MonkeyPatch) -> keras.Model:
    """The network that keras.applications makes of its published weights, if these are in `path`."""
    monkeypatch.setattr("keras.src.utils.file_utils.get_file", lambda *args, **kwargs: path)
    return application(name, weights="imagenet", input_tensor=keras.Input((size, size, 3)))
