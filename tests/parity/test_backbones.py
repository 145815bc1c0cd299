"""Every network has slim's variables, loads slim's checkpoints, and then computes what slim's computes of the same
image.

manifests/NET.json lists what slim builds: [name, shape, trainable, regularised] for each variable, auxiliary heads
included. slim_logits.json holds the first logits that slim's code (tf_slim 1.1.0; for inception_v4, which it lacks, the
layers of slim's inception_v4.py in TensorFlow's own operations) gives with the weights and the image made here. The
MobileNets and Inception-ResNet v2 are compared with keras.applications, where that is the same function.
"""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.parity.support import V1, V2, save_by_name
from tf_image_classification import checkpoints, nets

GOLDEN = json.loads((Path(__file__).parent / "slim_logits.json").read_text())
MANIFESTS = Path(__file__).parent / "manifests"
WEIGHT_DECAY = 0.00004
# Deeper siblings of what is tested anyway.
SLOW = {
    *("inception_v4", "inception_resnet_v2", "vgg_19"),
    *("resnet_v1_101", "resnet_v1_152", "resnet_v2_101", "resnet_v2_152"),
}


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A value for a variable that depends on its slim name alone."""
    uniform = np.random.RandomState(zlib.crc32(name.encode())).random_sample(shape)
    kind = name.rpartition("/")[2]
    if kind == "moving_variance":
        values = 0.5 + uniform
    elif kind == "gamma":
        values = 0.8 + 0.4 * uniform
    elif len(shape) == 1:
        values = (uniform - 0.5) * 0.2
    else:
        fan_in = np.prod(shape[:2] if kind == "depthwise_weights" else shape[:-1])
        values = (2 * uniform - 1) * np.sqrt(3 / fan_in)
    return values.astype(np.float32)


def image(size: int) -> np.ndarray:
    return (2 * np.random.RandomState(0).random_sample((1, size, size, 3)) - 1).astype(np.float32)


def build(name: str, size: int, folder: Path) -> keras.Model:
    """The network with the weights of a slim checkpoint, of which every variable but those of the auxiliary head is
    used."""
    manifest = json.loads((MANIFESTS / f"{name}.json").read_text())
    values = {variable: weight(variable, tuple(shape)) for variable, shape, *_ in manifest["variables"]}
    path = save_by_name(values, folder / f"{name}.ckpt", V2 if name.startswith("mobilenet") else V1)
    model = nets.build(name, image_size=size, outputs={"label": manifest["classes"]})
    report = checkpoints.warm_start(model, path, None)
    assert (report.missing, report.excluded) == ([], [])
    assert all("/AuxLogits/" in variable for variable in report.unused)
    for variable, loaded in nets.scoped_names(model).items():
        assert np.array_equal(loaded.numpy(), values[variable]), variable
    return model


def assert_close(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()


@pytest.mark.parametrize(
    "golden",
    [
        pytest.param(
            golden,
            id=f"{golden['net']}-{golden['image_size']}",
            marks=[pytest.mark.slow] if golden["net"] in {*SLOW, "vgg_16"} or golden["image_size"] > 224 else [],
        )
        for golden in GOLDEN
    ],
)
def test_25_backbones_give_slims_logits_from_a_slim_checkpoint(golden: dict, tmp_path: Path) -> None:
    model = build(golden["net"], golden["image_size"], tmp_path)
    logits = model(image(golden["image_size"]), training=False).numpy()[0]
    assert_close(logits[: len(golden["logits"])], np.array(golden["logits"]))


def number(layer: keras.layers.Layer) -> int:
    found = re.search(r"_(\d+)$", layer.name)
    return int(found[1]) if found else 0


def in_creation_order(model: keras.Model) -> list[keras.layers.Layer]:
    """Convolutions and dense layers in the order in which the code of keras.applications makes them."""
    layers = [layer for layer in model.layers if hasattr(layer, "kernel")]
    if model.name != "inception_resnet_v2":
        return layers
    unnamed = iter(sorted((layer for layer in layers if layer.name.startswith("conv2d")), key=number))
    order = [next(unnamed) for _ in range(12)]
    for block, count, convolutions, reduction in (("block35", 10, 6, 4), ("block17", 20, 4, 7), ("block8", 10, 4, 0)):
        for index in range(1, count + 1):
            order += [*(next(unnamed) for _ in range(convolutions)), model.get_layer(f"{block}_{index}_conv")]
        order += [next(unnamed) for _ in range(reduction)]
    return [*order, model.get_layer("conv_7b"), model.get_layer("predictions")]


@pytest.mark.parametrize(
    ("name", "application"),
    [
        ("mobilenet_v1", keras.applications.MobileNet),
        ("mobilenet_v2", keras.applications.MobileNetV2),
        pytest.param("inception_resnet_v2", keras.applications.InceptionResNetV2, marks=pytest.mark.slow),
    ],
)
def test_25_backbones_give_the_logits_of_keras_applications_from_a_slim_checkpoint(
    name: str, application, tmp_path: Path
) -> None:
    reference = application(weights=None, classifier_activation=None, classes=1001)
    size = nets.NETS[name].default_size
    ours = build(name, size, tmp_path)
    variables = nets.scoped_names(ours)
    created = [
        row[0]
        for row in json.loads((MANIFESTS / f"{name}.json").read_text())["variables"]
        if "/AuxLogits/" not in row[0]
    ]
    kernels = [variable for variable in created if variable.endswith("weights")]
    layers = in_creation_order(reference)
    norms = [layer for layer in reference.layers if isinstance(layer, keras.layers.BatchNormalization)]
    if name == "inception_resnet_v2":
        norms = [
            *sorted((norm for norm in norms if norm.name != "conv_7b_bn"), key=number),
            reference.get_layer("conv_7b_bn"),
        ]
    for layer, kernel in zip(layers, kernels, strict=True):
        layer.kernel.assign(variables[kernel].numpy().reshape(layer.kernel.shape))
        if layer.use_bias:
            layer.bias.assign(variables[kernel.replace("weights", "biases")])
    normalised = [variable.removesuffix("/beta") for variable in created if variable.endswith("/beta")]
    for norm, scope in zip(norms, normalised, strict=True):
        for variable in norm.variables:
            variable.assign(variables[f"{scope}/{variable.name}"])
    assert_close(ours(image(size), training=False).numpy(), reference(image(size), training=False).numpy())


def test_25_backbones_of_mobilenet_v1_keep_slims_padding_where_maps_have_odd_sizes() -> None:
    model = nets.build("mobilenet_v1", image_size=299, outputs={"label": 2})
    assert model.get_layer("MobilenetV1.Conv2d_13_pointwise.Relu").output.shape == (None, 10, 10, 1024)


@pytest.mark.parametrize(
    ("names", "decay", "epsilon", "gamma"),
    [
        (["inception_v1", "inception_v2", "inception_v3", "inception_v4", "inception_resnet_v2"], 0.9997, 1e-3, False),
        (["mobilenet_v1"], 0.9997, 1e-3, True),
        (["mobilenet_v2"], 0.997, 1e-3, True),
        ([f"resnet_{version}_{depth}" for version in ("v1", "v2") for depth in (50, 101, 152)], 0.997, 1e-5, True),
    ],
)
def test_25_backbones_have_batch_normalisation_set_as_in_slim(
    names: list[str], decay: float, epsilon: float, gamma: bool
) -> None:
    assert {nets.NETS[name].builder.norm for name in names} == {(decay, epsilon, gamma)}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(path.stem, marks=[pytest.mark.slow] if path.stem in SLOW else [])
        for path in sorted(MANIFESTS.glob("*.json"))
    ],
)
def test_25_backbones_have_slims_variables_and_14_weight_decay_on_slims_tensors(name: str) -> None:
    manifest = json.loads((MANIFESTS / f"{name}.json").read_text())
    expected = {
        variable: (tuple(shape), trainable, regularised)
        for variable, shape, trainable, regularised in manifest["variables"]
        if "/AuxLogits/" not in variable
    }
    net = nets.NETS[name]
    model = nets.build(
        name, image_size=net.default_size, outputs={"label": manifest["classes"]}, weight_decay=WEIGHT_DECAY
    )
    variables = nets.scoped_names(model)

    assert {
        key: (tuple(variable.shape), variable.trainable, variable.regularizer is not None)
        for key, variable in variables.items()
    } == (expected)
    assert {float(variable.regularizer.l2) for variable in variables.values() if variable.regularizer} == {
        WEIGHT_DECAY / 2
    }
    assert net.num_params == sum(int(np.prod(variable.shape)) for variable in variables.values())
    assert (net.default_size, net.builder.aux != "") == (
        manifest["image_size"],
        any("/AuxLogits/" in row[0] for row in manifest["variables"]),
    )
