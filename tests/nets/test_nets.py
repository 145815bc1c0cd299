"""Building networks by name."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from tf_image_classification import flags, nets
from tf_image_classification.errors import FlagError


def test_the_model_name_flag_offers_every_network() -> None:
    assert set(flags.BY_NAME["model_name"].choices) == set(nets.NETS)


def test_one_task_gives_one_array_of_logits() -> None:
    model = nets.build("small", image_size=16, outputs={"label": 7})
    logits = model(np.zeros((3, 16, 16, 3), np.float32))
    assert (tuple(logits.shape), logits.dtype.name) == ((3, 7), "float32")


def test_several_tasks_give_logits_by_task_and_a_head_each() -> None:
    model = nets.build("small", image_size=16, outputs={"age": 5, "gender": 2})
    logits = model(np.zeros((3, 16, 16, 3), np.float32))
    assert {task: tuple(value.shape) for task, value in logits.items()} == {"age": (3, 5), "gender": (3, 2)}
    names = list(nets.scoped_names(model))
    assert {"Small/Logits/age/weights", "Small/Logits/gender/biases"} < set(names)
    assert not any(name in names for name in ("Small/Logits/weights", "Small/Logits/biases"))


def test_an_unknown_network_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(FlagError, match=r"'inception_3'.*Did you mean inception_v3\?"):
        nets.build("inception_3", image_size=299, outputs={"label": 2})


@pytest.mark.parametrize(
    ("name", "min_size"),
    [("small", 8), ("mobilenet_v2", 32), ("inception_v3", 75), ("vgg_16", 224), ("inception_v4", 75)],
)
def test_images_that_are_too_small_are_refused(name: str, min_size: int) -> None:
    with pytest.raises(FlagError, match=f"image_size .*Received: {min_size - 1}. Expected: {min_size} pixels or more"):
        nets.build(name, image_size=min_size - 1, outputs={"label": 2})


@pytest.mark.parametrize(
    "name",
    [
        *("small", "mobilenet_v2", "inception_v1", "inception_v3", "resnet_v2_50"),
        pytest.param("inception_v4", marks=pytest.mark.slow),
        pytest.param("inception_resnet_v2", marks=pytest.mark.slow),
    ],
)
def test_the_minimum_image_size_reaches_the_logits(name: str) -> None:
    size = nets.NETS[name].min_size
    model = nets.build(name, image_size=size, outputs={"label": 2})
    assert np.isfinite(model(np.ones((1, size, size, 3), np.float32))).all()


def test_vgg_takes_images_larger_than_its_fully_connected_layers_expect() -> None:
    model = nets.build("vgg_16", image_size=299, outputs={"label": 3})
    assert model.output_shape == (None, 3)
    assert tuple(nets.scoped_names(model)["vgg_16/fc6/weights"].shape) == (7, 7, 512, 4096)


def test_head_scopes_name_what_depends_on_the_number_of_classes() -> None:
    assert nets.NETS["inception_v3"].head_scopes == ("InceptionV3/Logits", "InceptionV3/AuxLogits")
    assert nets.NETS["vgg_16"].head_scopes == ("vgg_16/fc8",)
    few = nets.scoped_names(nets.build("mobilenet_v2", image_size=32, outputs={"label": 2}))
    many = nets.scoped_names(nets.build("mobilenet_v2", image_size=32, outputs={"label": 5}))
    differing = {name for name in few if few[name].shape != many[name].shape}
    assert differing == {name for name in few if name.startswith(nets.NETS["mobilenet_v2"].head_scopes)}


def test_without_weight_decay_nothing_is_regularised() -> None:
    assert nets.build("small", image_size=16, outputs={"label": 2}, weight_decay=0.0).losses == []


def test_a_seed_gives_the_same_initial_values_and_no_two_layers_share_them() -> None:
    def initial() -> dict[str, np.ndarray]:
        keras.utils.set_random_seed(5)
        model = nets.build("mobilenet_v2", image_size=32, outputs={"label": 2})
        return {name: variable.numpy() for name, variable in nets.scoped_names(model).items()}

    once, again = initial(), initial()
    assert all(np.array_equal(once[name], again[name]) for name in once)
    assert not np.array_equal(
        once["MobilenetV2/expanded_conv_4/expand/weights"], once["MobilenetV2/expanded_conv_5/expand/weights"]
    )


def test_mixed_precision_keeps_variables_and_logits_in_float32() -> None:
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = nets.build("small", image_size=16, outputs={"label": 2})
        logits = model(np.random.default_rng(0).normal(size=(4, 16, 16, 3)).astype(np.float32), training=True)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert logits.dtype.name == "float32"
    assert {variable.dtype for variable in model.weights} == {"float32"}
    assert model.get_layer("Small.Conv2d_2_3x3").compute_dtype == "float16"
    assert np.isfinite(logits).all()


def test_a_saved_model_file_loads_without_custom_objects_and_predicts_the_same(tmp_path: Path) -> None:
    model = nets.build("small", image_size=16, outputs={"age": 5, "gender": 2}, weight_decay=0.1)
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
    model(images, training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    assert list(nets.scoped_names(loaded)) == list(nets.scoped_names(model))
    np.testing.assert_array_equal(loaded(images)["age"], model(images)["age"])
