"""The networks of keras.applications compute what Keras does with their published weights, are trained and served."""

from __future__ import annotations

import gc
import inspect
import math
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.nets import published
from tf_image_classification import built_in_estimator, checkpoints, nets, preprocessing, train_estimator
from tf_image_classification.imagenet_weights import FILES

QUICK = "MobileNetV3Small"
OTHERS = (
    "EfficientNetB0",
    "MobileNet",
    "MobileNetV2",
    "MobileNetV3Large",
    "EfficientNetB3",
    "EfficientNetV2B0",
    "EfficientNetV2S",
    "ConvNeXtTiny",
    "ResNet50",
    "ResNet50V2",
    "DenseNet121",
    "InceptionV3",
    "Xception",
    "NASNetMobile",
)
slow = pytest.mark.slow


@pytest.fixture(autouse=True)
def forget_models():
    """Frees the memory of a test's models, which Keras would keep: gigabytes over all networks."""
    yield
    keras.utils.clear_session()
    gc.collect()


NETWORKS = [QUICK, *(pytest.param(name, marks=slow) for name in OTHERS)]


def size_of(name: str) -> int:
    """Small images, but for VGG, whose published weights are for one size."""
    return 224 if name.startswith("VGG") else max(64, nets.NETS[name].min_size)


def images(name: str) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (2, size_of(name), size_of(name), 3)).astype(np.float32)


@pytest.mark.parametrize("name", NETWORKS)
def test_published_weights_give_the_logits_that_keras_computes_with_them(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = size_of(name)
    source = published.application(name, weights=None, input_shape=(size, size, 3))
    path = published.save(published.randomize(source), tmp_path / "published.h5")
    expected = published.as_published(name, path, size, monkeypatch)(images(name))
    model = nets.build(name, image_size=size, outputs={"label": 1000})
    report = checkpoints.warm_start(model, path, None)
    assert (report.missing, report.unused, len(report.loaded)) == ([], [], len(model.weights))
    logits = model(images(name))
    assert np.ptp(logits) > 1e-3
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_starts_from_published_weights_trains_and_is_served(
    name: str, tmp_path: Path, built_data, training_flags
) -> None:
    size = 224 if name.startswith("VGG") else nets.NETS[name].min_size
    source = published.application(name, weights=None, input_shape=(size, size, 3))
    flags = training_flags(
        model_name=name,
        image_size=size,
        train_steps=2,
        batch_size=2,
        eval_freq=1,
        learning_rate=1e-3,
        checkpoint_path=published.save(source, tmp_path / "published.h5"),
        checkpoint_exclude_scopes="auto",
        mixed_precision=name == "EfficientNetV2B0",
    )
    result = train_estimator.train_and_evaluate(built_in_estimator.BuiltInEstimator(), built_data, flags)
    assert (result.steps_made, np.isfinite(result.metrics["loss"])) == (2, True)
    serve = tf.saved_model.load(str(Path(result.export_dir, "saved_model"))).signatures["serving_default"]
    encoded = tf.io.encode_png(tf.fill([9, 9, 3], tf.constant(200, tf.uint8)))
    served = serve(image_bytes=tf.stack([encoded]))["scores"]
    loaded = keras.saving.load_model(Path(result.export_dir, "model.keras"), compile=False)
    image = preprocessing.PREPROCESSINGS[nets.NETS[name].preprocessing].eval_fn(tf.io.decode_png(encoded), size, size)
    np.testing.assert_allclose(served, tf.nn.softmax(loaded(image[tf.newaxis])), rtol=1e-4, atol=1e-5)


def test_every_network_of_keras_applications_is_registered_with_a_published_file() -> None:
    names = {name for name, function in inspect.getmembers(keras.applications, inspect.isfunction) if name[0].isupper()}
    assert names == set(FILES) == {name for name in nets.NETS if nets.NETS[name].num_params_without_top}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_has_the_stated_size_and_number_of_values(name: str) -> None:
    network = nets.NETS[name]
    model = network.build(image_size=224 if name.startswith("VGG") else 96, outputs={"label": 1000})
    assert sum(math.prod(variable.shape) for variable in nets.scoped_names(model).values()) == network.num_params
    application = getattr(keras.applications, name)
    without_top = application(include_top=False, weights=None, input_shape=(96, 96, 3))
    assert without_top.count_params() == network.num_params_without_top
    if not name.startswith("MobileNetV3"):  # of any size
        assert application(weights=None).input_shape[1] == network.default_size


@pytest.mark.parametrize("name", ["InceptionV3", pytest.param("ConvNeXtTiny", marks=slow)])
def test_names_do_not_depend_on_what_the_process_has_built(name: str) -> None:
    first, second = (nets.build(name, image_size=75, outputs={"label": 2}) for _ in range(2))
    assert list(nets.scoped_names(first)) == list(nets.scoped_names(second))
    assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]
    keras.utils.clear_session()
    fresh = getattr(keras.applications, name)(weights=None, input_shape=(75, 75, 3), classes=2)
    names = {layer.name for layer in fresh.layers if layer.weights}
    assert names == {layer.name for layer in first.layers if layer.weights}


def test_several_tasks_have_a_head_each_on_the_same_features() -> None:
    model = nets.build("MobileNetV3Small", image_size=32, outputs={"age": 5, "kind": 2})
    assert {task: logits.shape for task, logits in model.output.items()} == {"age": (None, 5), "kind": (None, 2)}
    heads = [name for name in nets.scoped_names(model) if name.startswith(nets.NETS["MobileNetV3Small"].head_scopes)]
    assert heads == ["logits_age/kernel", "logits_age/bias", "logits_kind/kernel", "logits_kind/bias"]
    assert set(checkpoints.head_variables(model)) == set(heads)


def test_logits_are_float32_under_mixed_precision() -> None:
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = nets.build("MobileNetV3Small", image_size=32, outputs={"label": 2})
        logits = model(np.full((1, 32, 32, 3), 200, np.float32))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert (logits.dtype.name, model.get_layer("conv").compute_dtype) == ("float32", "float16")


def test_weight_decay_regularises_kernels_but_no_depthwise_ones() -> None:
    model = nets.build("MobileNetV3Small", image_size=32, outputs={"label": 2}, weight_decay=0.5)
    kernels = [
        layer.kernel.numpy() for layer in model.layers if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense))
    ]
    assert float(sum(model.losses)) == pytest.approx(0.5 / 2 * sum(np.sum(kernel**2) for kernel in kernels), rel=1e-4)
    assert nets.build("MobileNetV3Small", image_size=32, outputs={"label": 2}).losses == []


@pytest.mark.parametrize("mode", ["caffe", "torch", "tf"])
def test_preprocessing_normalises_as_keras_does(mode: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    ours = preprocessing.PREPROCESSINGS[mode].eval_fn(tf.constant(image), 8, 8)
    theirs = keras.applications.imagenet_utils.preprocess_input(image.astype(np.float32), mode=mode)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", FILES)
def test_the_preprocessing_is_the_one_of_kerass_module(name: str) -> None:
    module = inspect.getmodule(getattr(keras.applications, name))
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    ours = preprocessing.PREPROCESSINGS[nets.NETS[name].preprocessing].eval_fn(tf.constant(image), 8, 8)
    np.testing.assert_allclose(ours, module.preprocess_input(image.astype(np.float32)), rtol=1e-5, atol=1e-5)
