"""Files that Keras wrote, of this version and of version 2: loaded completely and correctly, or refused."""

from __future__ import annotations

import logging
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.nets import published
from tf_image_classification import checkpoints, nets
from tf_image_classification.errors import CheckpointError

SIZE = 75  # the smallest of InceptionV3


@pytest.fixture(scope="module")
def source() -> keras.Model:
    """InceptionV3: nearly all its layers are numbered by Keras, and many have the same shapes."""
    return published.randomize(published.application("InceptionV3", weights=None, input_shape=(SIZE, SIZE, 3)))


@pytest.fixture(scope="module")
def mobile() -> keras.Model:
    return published.randomize(published.application("MobileNetV3Small", weights=None, input_shape=(32, 32, 3)))


def build(name: str, classes: int, size: int = 32) -> keras.Model:
    return nets.build(name, image_size=size, outputs={"label": classes})


def features(model: keras.Model) -> keras.Model:
    """The model without its head."""
    return keras.Model(model.input, model.get_layer("predictions").input)


def images(size: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (2, size, size, 3)).astype(np.float32)


@pytest.mark.parametrize(("first_number", "whole_model"), [(0, False), (1, True), (95, False)])
def test_numbered_layers_of_keras_2_are_matched_whatever_their_numbers(
    source: keras.Model, tmp_path: Path, first_number: int, whole_model: bool
) -> None:
    path = published.save(source, tmp_path / "old.h5", whole_model=whole_model, first_number=first_number)
    model = build("InceptionV3", 1000, SIZE)
    assert checkpoints.warm_start(model, path, None).missing == []
    np.testing.assert_allclose(model(images(SIZE)), source(images(SIZE)), rtol=1e-5, atol=1e-5)


def test_numbered_layers_of_keras_3_are_matched_whatever_their_numbers(source: keras.Model, tmp_path: Path) -> None:
    for _ in range(2):
        keras.layers.Conv2D(1, 1)  # the next network's numbers begin later
    other = published.application("InceptionV3", weights=None, input_shape=(SIZE, SIZE, 3))
    other.set_weights(source.get_weights())
    other.save_weights(tmp_path / "new.weights.h5")
    model = build("InceptionV3", 1000, SIZE)
    assert checkpoints.warm_start(model, str(tmp_path / "new.weights.h5"), None).missing == []
    np.testing.assert_allclose(model(images(SIZE)), source(images(SIZE)), rtol=1e-5, atol=1e-5)


def test_a_file_that_this_version_of_keras_writes_in_the_old_layout_loads(source: keras.Model, tmp_path: Path) -> None:
    source.save(tmp_path / "whole.h5")
    model = build("InceptionV3", 1000, SIZE)
    assert checkpoints.warm_start(model, str(tmp_path / "whole.h5"), None).missing == []
    np.testing.assert_allclose(model(images(SIZE)), source(images(SIZE)), rtol=1e-5, atol=1e-5)


def test_a_file_without_top_loads_all_but_the_head(source: keras.Model, tmp_path: Path) -> None:
    path = published.save(features(source), tmp_path / "notop.h5")
    model = build("InceptionV3", 3, SIZE)
    assert checkpoints.warm_start(model, path, None).missing == ["predictions/kernel", "predictions/bias"]
    np.testing.assert_allclose(features(model)(images(SIZE)), features(source)(images(SIZE)), rtol=1e-5, atol=1e-5)


def test_a_file_without_top_may_lack_a_layer_before_the_head(tmp_path: Path) -> None:
    headless = keras.applications.MobileNetV3Small(include_top=False, weights=None, input_shape=(32, 32, 3))
    report = checkpoints.warm_start(build("MobileNetV3Small", 3), published.save(headless, tmp_path / "x.h5"), None)
    assert report.missing == ["conv_2/kernel", "conv_2/bias", "logits/kernel", "logits/bias"]


@pytest.mark.parametrize("nested", [False, True])
def test_an_estimators_own_model_on_a_network_of_keras_loads_its_features(
    source: keras.Model, tmp_path: Path, nested: bool
) -> None:
    inputs = keras.Input((SIZE, SIZE, 3))
    tensor = None if nested else inputs
    backbone = keras.applications.InceptionV3(
        include_top=False, weights=None, input_tensor=tensor, input_shape=(SIZE, SIZE, 3), pooling="avg"
    )
    pooled = backbone(inputs) if nested else backbone.output
    hidden = keras.layers.Dense(8, activation="relu", name="mine")(pooled)
    model = keras.Model(inputs, keras.layers.Dense(3, name="head")(hidden))
    report = checkpoints.warm_start(model, published.save(source, tmp_path / "top.h5"), "auto")
    assert [name.rpartition("/")[0].rpartition("/")[2] for name in report.missing] == ["mine", "mine"]
    expected = features(source)(images(SIZE))
    np.testing.assert_allclose(keras.Model(inputs, pooled)(images(SIZE)), expected, rtol=1e-5, atol=1e-5)


def test_layers_in_another_order_are_matched_by_name(tmp_path: Path) -> None:
    def model(*names: str) -> keras.Model:
        inputs = keras.Input((4,))
        x = inputs
        for name in names:
            x = keras.layers.Dense(4, name=name)(x)
        return keras.Model(inputs, keras.layers.Dense(2, name="head")(x))

    first, target = model("one", "two"), model("two", "one")
    checkpoints.warm_start(target, published.save(published.randomize(first), tmp_path / "x.h5"), None)
    for name in ("one", "two", "head"):
        np.testing.assert_array_equal(target.get_layer(name).kernel, first.get_layer(name).kernel)


@pytest.mark.parametrize(
    ("saved", "without_top", "target"),
    [
        pytest.param("ResNet50", False, "ResNet101", marks=pytest.mark.slow),
        ("ResNet50", True, "ResNet101"),
        pytest.param("ResNet50", False, "MobileNetV3Small", marks=pytest.mark.slow),
        ("MobileNetV3Small", True, "small"),
        ("MobileNetV2", False, "mobilenet_v2"),
    ],
)
def test_a_file_of_another_network_is_refused_and_named(
    saved: str, without_top: bool, target: str, tmp_path: Path
) -> None:
    source = getattr(keras.applications, saved)(weights=None, include_top=not without_top, input_shape=(32, 32, 3))
    model = build(target, 2)
    before = model.get_weights()
    with pytest.raises(CheckpointError, match=rf"It fits --model_name {saved}\.$"):
        checkpoints.warm_start(model, published.save(source, tmp_path / "other.h5"), "auto")
    assert all(np.array_equal(one, other) for one, other in zip(before, model.get_weights(), strict=True))


@pytest.mark.parametrize("suffix", [".h5", ".weights.h5", ".keras"])
def test_a_fine_tuned_model_of_another_network_is_named_too(suffix: str, tmp_path: Path) -> None:
    source, path = build("MobileNetV3Small", 7), tmp_path / f"other{suffix}"
    if suffix == ".h5":
        published.save(source, path)
    elif suffix == ".keras":
        source.save(path)
    else:
        source.save_weights(path)
    with pytest.raises(CheckpointError, match=r"It fits --model_name MobileNetV3Small\.$"):
        checkpoints.warm_start(build("small", 7), str(path), None)


def test_images_of_another_size_than_the_weights_of_vgg_are_for_are_an_error(tmp_path: Path) -> None:
    path = published.save(published.application("VGG16", weights=None, input_shape=(64, 64, 3)), tmp_path / "vgg.h5")
    with pytest.raises(CheckpointError, match=r"fc1/kernel has another shape.*depends on --image_size.*are for 224\.$"):
        checkpoints.warm_start(build("VGG16", 3), path, "auto")


def test_auto_leaves_the_head_out_only_if_its_shape_differs(mobile: keras.Model, tmp_path: Path, caplog) -> None:
    path = published.save(mobile, tmp_path / "x.h5")
    with caplog.at_level(logging.INFO):
        report = checkpoints.warm_start(build("MobileNetV3Small", 3), path, "auto")
    assert report.excluded == ["logits/kernel", "logits/bias"]
    assert "The head has another shape in the checkpoint and is not loaded: logits/bias, logits/kernel" in caplog.text
    assert checkpoints.warm_start(build("MobileNetV3Small", 1000), path, "auto").excluded == []
    with pytest.raises(CheckpointError, match=r"logits/kernel has another shape.*--checkpoint_exclude_scopes logits\."):
        checkpoints.warm_start(build("MobileNetV3Small", 3), path, None)


@pytest.mark.parametrize("classes", [3, 5])
def test_auto_works_for_any_checkpoint(classes: int, tmp_path: Path) -> None:
    build("small", 3).save(tmp_path / "small.keras")
    report = checkpoints.warm_start(build("small", classes), str(tmp_path / "small.keras"), "auto")
    assert report.excluded == (["Small/Logits/weights", "Small/Logits/biases"] if classes == 5 else [])


def test_several_tasks_start_with_new_heads(mobile: keras.Model, tmp_path: Path) -> None:
    model = nets.build("MobileNetV3Small", image_size=32, outputs={"age": 1000, "kind": 2})
    report = checkpoints.warm_start(model, published.save(mobile, tmp_path / "x.h5"), "auto")
    assert report.missing == ["logits_age/kernel", "logits_age/bias", "logits_kind/kernel", "logits_kind/bias"]
