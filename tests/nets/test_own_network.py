"""A network that is not slim's: what it takes to register one, and that everything works with it."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_image_classification import (
    built_in_estimator,
    checkpoints,
    flags,
    nets,
    network_sizes,
    preprocessing,
    slim_preprocessing,
    train_estimator,
)
from tf_image_classification.errors import CheckpointError


def build_own(*, image_size: int, outputs: Mapping[str, int], weight_decay: float) -> keras.Model:
    """GELU, layer normalisation and global max pooling, with the names that Keras gives variables."""
    images = keras.Input((image_size, image_size, 3))
    regularizer = keras.regularizers.L2(weight_decay / 2)
    x = keras.layers.Conv2D(8, 4, strides=4, kernel_regularizer=regularizer, name="patches")(images)
    x = keras.layers.LayerNormalization(name="norm")(x)
    x = keras.layers.Activation("gelu", name="gelu")(x)
    x = keras.layers.GlobalMaxPooling2D(name="pool")(x)
    heads = {task: keras.layers.Dense(k, name=f"head_{task}", dtype="float32")(x) for task, k in outputs.items()}
    return keras.Model(images, heads if len(heads) > 1 else next(iter(heads.values())), name="own")


OWN = nets.Network(
    name="own", builder=build_own, preprocessing="half", head_scopes=("head_",), default_size=16, min_size=4
)
HALF = preprocessing.Preprocessing(
    train_fn=lambda image, width, height, seed: slim_preprocessing.unit(image, width, height) * 0.5,
    eval_fn=lambda image, width, height: slim_preprocessing.unit(image, width, height) * 0.5,
    normalize_fn=lambda image: slim_preprocessing.scale_to_unit(image) * 0.5,
)


@pytest.fixture
def own_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the registrations that a file of its own and the tables would hold."""
    monkeypatch.setitem(preprocessing.PREPROCESSINGS, "half", HALF)
    monkeypatch.setitem(network_sizes.MIN_IMAGE_SIZE, "own", 4)
    model_name = dataclasses.replace(flags.BY_NAME["model_name"], choices=tuple(network_sizes.MIN_IMAGE_SIZE))
    monkeypatch.setitem(flags.BY_NAME, "model_name", model_name)
    monkeypatch.setattr(nets, "NETS", nets.registry([*nets.NETS.values(), OWN]))


@pytest.mark.usefixtures("own_network")
def test_a_network_that_is_not_slims_is_trained_exported_and_fine_tuned_without_its_head(
    built_data, training_flags, tmp_path, caplog
):
    flags = training_flags(model_name="own", train_steps=2, weight_decay=0.1)
    first = train_estimator.train_and_evaluate(built_in_estimator.BuiltInEstimator(), built_data, flags)
    assert np.isfinite(first.metrics["loss"])
    with checkpoints.read(first.model_dir) as weights:
        assert set(weights) == {
            f"{layer}/{name}"
            for layer, names in {
                "patches": ("kernel", "bias"),
                "norm": ("gamma", "beta"),
                "head_label": ("kernel", "bias"),
            }.items()
            for name in names
        }
    serve = tf.saved_model.load(str(Path(first.export_dir, "saved_model"))).signatures["serving_default"]
    scores = serve(image_bytes=tf.stack([tf.io.encode_png(tf.fill([9, 9, 3], tf.constant(200, tf.uint8)))]))["scores"]
    np.testing.assert_allclose(np.sum(scores, axis=1), [1.0], rtol=1e-5)

    fine_tuning = training_flags(
        model_name="own",
        model_dir=str(tmp_path / "fine-tuned"),
        checkpoint_path=first.model_dir,
        checkpoint_exclude_scopes=",".join(nets.NETS["own"].head_scopes),
        train_steps=2,
    )
    with caplog.at_level(logging.INFO):
        second = train_estimator.train_and_evaluate(built_in_estimator.BuiltInEstimator(), built_data, fine_tuning)
    warm_start = json.loads(Path(second.export_dir, "model.json").read_text())["warm_start"]
    assert (warm_start["loaded"], warm_start["not_loaded"]) == (4, ["head_label/bias", "head_label/kernel"])


@pytest.mark.usefixtures("own_network")
def test_the_shape_error_names_the_head_of_a_network_that_is_not_slims(tmp_path: Path) -> None:
    nets.build("own", image_size=8, outputs={"label": 5}).save(tmp_path / "five.keras")
    with pytest.raises(CheckpointError, match=r"give --checkpoint_exclude_scopes head_\."):
        checkpoints.warm_start(
            nets.build("own", image_size=8, outputs={"label": 2}), str(tmp_path / "five.keras"), None
        )


@pytest.mark.usefixtures("own_network")
def test_a_network_of_several_tasks_has_its_own_names_and_regularisation() -> None:
    model = nets.build("own", image_size=8, outputs={"age": 5, "kind": 2}, weight_decay=0.5)
    assert {task: logits.shape[-1] for task, logits in model.output.items()} == {"age": 5, "kind": 2}
    kernel = model.get_layer("patches").kernel.numpy()
    assert float(sum(model.losses)) == pytest.approx(0.5 * np.sum(kernel**2) / 2, rel=1e-5)


def test_two_networks_of_one_name_are_refused() -> None:
    with pytest.raises(nets.NetworkError, match=r"same name.*Received: 'small'"):
        nets.registry([*nets.NETS.values(), dataclasses.replace(nets.NETS["small"], default_size=64)])


@pytest.mark.usefixtures("own_network")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preprocessing": "incepton"}, r"own has an unknown preprocessing.*Did you mean inception\?"),
        ({"head_scopes": ()}, r"own names no head scopes.*Received: head_scopes=\(\)"),
        ({"head_scopes": ("",)}, r"own names no head scopes"),
        ({"head_scopes": "head_"}, r"own names no head scopes"),
        ({"min_size": 5}, r"min_size=5 in the network, 4 in MIN_IMAGE_SIZE of network_sizes\.py"),
        ({"name": "owl"}, r"owl .*min_size=4 in the network, no entry in MIN_IMAGE_SIZE of network_sizes\.py"),
    ],
)
def test_a_network_whose_description_is_wrong_is_refused(changes: dict[str, object], message: str) -> None:
    others = [network for network in nets.NETS.values() if network is not OWN]
    with pytest.raises(nets.NetworkError, match=message):
        nets.registry([*others, dataclasses.replace(OWN, **changes)])


def test_a_name_that_flags_offers_and_no_network_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(network_sizes.MIN_IMAGE_SIZE, "own", 4)
    with pytest.raises(
        nets.NetworkError, match=r"does not register.*Received: own.*nets/__init__\.py.*network_sizes\.py"
    ):
        nets.registry(nets.NETS.values())


def test_registering_networks_builds_none() -> None:
    def never(**arguments: object) -> keras.Model:
        raise AssertionError("built")

    unbuildable = [dataclasses.replace(network, builder=never) for network in nets.NETS.values()]
    assert list(nets.registry(unbuildable)) == list(nets.NETS)
