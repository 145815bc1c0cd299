"""The networks of keras.applications, under Keras's names, with the head that their published weights have.

Each is built by Keras's own function and rebuilt with
* names that do not depend on what the process has built before: Keras counts layers without a name through a process;
* a head that gives float32 logits, one for each task, on the features that Keras's head has;
* the input scaling that Keras adds to EfficientNet with its published weights alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from tf_image_classification import network_sizes
from tf_image_classification.nets.network import Network

# keras.applications.efficientnet.IMAGENET_STDDEV_RGB: its published weights are for pixels divided by the square roots
# of these once more than the layer `normalization` does (tensorflow/tensorflow#49930).
_EFFICIENTNET_STDDEV_RGB = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class KerasBuilder:
    """Builds a network of keras.applications.

    Attributes:
        application: Keras's function, such as `keras.applications.ResNet50`.
        head: name of the layer that computes the logits.
        scaled_again: whether pixels are scaled once more behind the layer `normalization`.
    """

    application: Callable[..., keras.Model]
    head: str
    scaled_again: bool = False

    def __call__(self, *, image_size: int, outputs: Mapping[str, int], weight_decay: float) -> keras.Model:
        """Builds the model; see `Network.build`."""
        original = self.application(
            input_shape=(image_size, image_size, 3), weights=None, classes=1, classifier_activation=None
        )
        head = original.get_layer(self.head)
        trunk = keras.Model(original.input, head.input)
        names = _stable_names(trunk.operations)
        images = keras.Input((image_size, image_size, 3), dtype="float32", name="images")
        trunk = keras.models.clone_model(
            trunk,
            input_tensors=images,
            clone_function=lambda layer: _copy(layer, name=names[layer.name]),
            call_function=self._call,
        )
        logits = {
            task: _logits(trunk.output, head, self.head if len(outputs) == 1 else f"{self.head}_{task}", classes)
            for task, classes in outputs.items()
        }
        name = self.application.__name__
        model = keras.Model(images, logits if len(logits) > 1 else next(iter(logits.values())), name=name)
        _name_scales(model)
        if weight_decay:
            _regularize(model, keras.regularizers.L2(weight_decay / 2))  # Keras does not halve
        return model

    def _call(self, layer: keras.Operation, *args: Any, **kwargs: Any) -> Any:
        x = layer(*args, **kwargs)
        if self.scaled_again and isinstance(layer, keras.layers.Normalization):
            scale = [1 / math.sqrt(stddev) for stddev in _EFFICIENTNET_STDDEV_RGB]
            x = keras.layers.Rescaling(scale, name="rescaling_1")(x)
        return x


def _stable_names(layers: Iterable[keras.Operation]) -> dict[str, str]:
    """Name -> the name that a layer would have in a process that has built nothing else.

    Layers that Keras named are those called as their class, with a number that counts through the process or without:
    conv2d, conv2d_1, ... All layers of one network are numbered in a row.
    """
    numbers: dict[str, dict[str, int]] = {}
    names = {}
    for layer in layers:
        names[layer.name] = layer.name
        match = re.fullmatch(r"(.+?)(?:_(\d+))?", layer.name)
        if match and match[1].replace("_", "") == type(layer).__name__.lower():
            numbers.setdefault(match[1], {})[layer.name] = int(match[2] or 0)
    for prefix, by_name in numbers.items():
        first = min(by_name.values())
        for name, number in by_name.items():
            names[name] = f"{prefix}_{number - first}" if number > first else prefix
    return names


def _copy(layer: keras.Operation, **changes: Any) -> keras.Operation:
    return type(layer).from_config(layer.get_config() | changes)


def _logits(features: Any, head: keras.layers.Layer, name: str, classes: int) -> Any:
    """Features -> float32 [B, classes], by a layer like Keras's head: a Dense layer or a 1x1 convolution."""
    if isinstance(head, keras.layers.Dense):
        return _copy(head, name=name, units=classes, dtype="float32")(features)
    x = _copy(head, name=name, filters=classes, dtype="float32")(features)
    return keras.layers.Flatten(name=f"{name}_flatten", dtype="float32")(x)


def _name_scales(model: keras.Model) -> None:
    """Names the variables of ConvNeXt's layer scales, which Keras creates without a name and numbers."""
    for layer in model._flatten_layers():
        if type(layer).__name__ == "LayerScale":
            layer.gamma._name, layer.gamma._path = "gamma", f"{layer.name}/gamma"


def _regularize(model: keras.Model, regularizer: keras.regularizers.Regularizer) -> None:
    """Regularises the kernels of convolutions and dense layers, but not of depthwise convolutions."""
    for layer in model._flatten_layers():
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)):
            layer.kernel.regularizer = regularizer
        elif isinstance(layer, keras.layers.SeparableConv2D):
            layer.pointwise_kernel.regularizer = regularizer


def _network(
    application: Callable[..., keras.Model],
    preprocessing: str,
    default_size: int,
    num_params: int,
    num_params_without_top: int,
    *,
    head: str = "predictions",
    scaled_again: bool = False,
) -> Network:
    name = application.__name__
    return Network(
        name=name,
        builder=KerasBuilder(application=application, head=head, scaled_again=scaled_again),
        preprocessing=preprocessing,
        head_scopes=(head,),
        default_size=default_size,
        min_size=network_sizes.MIN_IMAGE_SIZE[name],
        num_params=num_params,
        num_params_without_top=num_params_without_top,
    )


def _efficientnet(
    application: Callable[..., keras.Model], default_size: int, num_params: int, num_params_without_top: int
) -> Network:
    return _network(application, "raw", default_size, num_params, num_params_without_top, scaled_again=True)


def _convnext(application: Callable[..., keras.Model], num_params: int, num_params_without_top: int) -> Network:
    size = application.__name__.removeprefix("ConvNeXt").lower()
    return _network(application, "raw", 224, num_params, num_params_without_top, head=f"convnext_{size}_head_dense")


_KERAS = keras.applications
NETWORKS = (
    _network(_KERAS.MobileNet, "tf", 224, 4_253_864, 3_228_864, head="conv_preds"),
    _network(_KERAS.MobileNetV2, "tf", 224, 3_538_984, 2_257_984),
    _network(_KERAS.MobileNetV3Small, "raw", 224, 2_554_968, 939_120, head="logits"),
    _network(_KERAS.MobileNetV3Large, "raw", 224, 5_507_432, 2_996_352, head="logits"),
    _efficientnet(_KERAS.EfficientNetB0, 224, 5_330_571, 4_049_571),
    _efficientnet(_KERAS.EfficientNetB1, 240, 7_856_239, 6_575_239),
    _efficientnet(_KERAS.EfficientNetB2, 260, 9_177_569, 7_768_569),
    _efficientnet(_KERAS.EfficientNetB3, 300, 12_320_535, 10_783_535),
    _efficientnet(_KERAS.EfficientNetB4, 380, 19_466_823, 17_673_823),
    _efficientnet(_KERAS.EfficientNetB5, 456, 30_562_527, 28_513_527),
    _efficientnet(_KERAS.EfficientNetB6, 528, 43_265_143, 40_960_143),
    _efficientnet(_KERAS.EfficientNetB7, 600, 66_658_687, 64_097_687),
    _network(_KERAS.EfficientNetV2B0, "raw", 224, 7_200_312, 5_919_312),
    _network(_KERAS.EfficientNetV2B1, "raw", 240, 8_212_124, 6_931_124),
    _network(_KERAS.EfficientNetV2B2, "raw", 260, 10_178_374, 8_769_374),
    _network(_KERAS.EfficientNetV2B3, "raw", 300, 14_467_622, 12_930_622),
    _network(_KERAS.EfficientNetV2S, "raw", 384, 21_612_360, 20_331_360),
    _network(_KERAS.EfficientNetV2M, "raw", 480, 54_431_388, 53_150_388),
    _network(_KERAS.EfficientNetV2L, "raw", 480, 119_027_848, 117_746_848),
    _convnext(_KERAS.ConvNeXtTiny, 28_589_128, 27_820_128),
    _convnext(_KERAS.ConvNeXtSmall, 50_223_688, 49_454_688),
    _convnext(_KERAS.ConvNeXtBase, 88_591_464, 87_566_464),
    _convnext(_KERAS.ConvNeXtLarge, 197_767_336, 196_230_336),
    _convnext(_KERAS.ConvNeXtXLarge, 350_196_968, 348_147_968),
    _network(_KERAS.ResNet50, "caffe", 224, 25_636_712, 23_587_712),
    _network(_KERAS.ResNet101, "caffe", 224, 44_707_176, 42_658_176),
    _network(_KERAS.ResNet152, "caffe", 224, 60_419_944, 58_370_944),
    _network(_KERAS.ResNet50V2, "tf", 224, 25_613_800, 23_564_800),
    _network(_KERAS.ResNet101V2, "tf", 224, 44_675_560, 42_626_560),
    _network(_KERAS.ResNet152V2, "tf", 224, 60_380_648, 58_331_648),
    _network(_KERAS.DenseNet121, "torch", 224, 8_062_504, 7_037_504),
    _network(_KERAS.DenseNet169, "torch", 224, 14_307_880, 12_642_880),
    _network(_KERAS.DenseNet201, "torch", 224, 20_242_984, 18_321_984),
    _network(_KERAS.InceptionV3, "tf", 299, 23_851_784, 21_802_784),
    _network(_KERAS.InceptionResNetV2, "tf", 299, 55_873_736, 54_336_736),
    _network(_KERAS.Xception, "tf", 299, 22_910_480, 20_861_480),
    _network(_KERAS.NASNetMobile, "tf", 224, 5_326_716, 4_269_716),
    _network(_KERAS.NASNetLarge, "tf", 331, 88_949_818, 84_916_818),
    _network(_KERAS.VGG16, "caffe", 224, 138_357_544, 14_714_688),
    _network(_KERAS.VGG19, "caffe", 224, 143_667_240, 20_024_384),
)
