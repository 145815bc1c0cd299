"""The files that `--checkpoint_path imagenet` stands for: names, addresses and hashes, as keras.applications has them.

Known without Keras, so that a pipeline's resolve step can check and identify them.
"""

from __future__ import annotations

from typing import NamedTuple

from tf_image_classification.errors import FlagError

IMAGENET = "imagenet"  # value of --checkpoint_path
_KERAS = "tensorflow/keras-applications"
_EFFICIENTNET = "keras-applications"


class PublishedFile(NamedTuple):
    """The published weights of a network, trained on ImageNet's 1000 classes, with its head ("top").

    Attributes:
        name: of the file, in Keras's cache too.
        url: where Keras downloads it from.
        file_hash: SHA-256 (64 digits) or MD5 (32) of the content; '' where Keras states none.
    """

    name: str
    url: str
    file_hash: str

    @property
    def hash_algorithm(self) -> str:
        """Name of the algorithm of `file_hash` in hashlib."""
        return "sha256" if len(self.file_hash) == 64 else "md5"

    @property
    def version(self) -> str:
        """Identifies the content."""
        return f"{self.name} {self.hash_algorithm}:{self.file_hash}" if self.file_hash else self.name


def _file(folder: str, name: str, file_hash: str = "", *, published_as: str = "") -> PublishedFile:
    return PublishedFile(name, f"https://storage.googleapis.com/{folder}/{published_as or name}", file_hash)


# --model_name -> what its function in keras/src/applications asks `get_file` for with its top (Keras 3.15).
FILES: dict[str, PublishedFile] = {
    "MobileNet": _file(f"{_KERAS}/mobilenet", "mobilenet_1_0_224_tf.h5"),
    "MobileNetV2": _file(f"{_KERAS}/mobilenet_v2", "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5"),
    "MobileNetV3Small": _file(
        f"{_KERAS}/mobilenet_v3", "weights_mobilenet_v3_small_224_1.0_float.h5", "8768d4c2e7dee89b9d02b2d03d65d862"
    ),
    "MobileNetV3Large": _file(
        f"{_KERAS}/mobilenet_v3", "weights_mobilenet_v3_large_224_1.0_float.h5", "59e551e166be033d707958cf9e29a6a7"
    ),
    "EfficientNetB0": _file(_EFFICIENTNET, "efficientnetb0.h5", "902e53a9f72be733fc0bcb005b3ebbac"),
    "EfficientNetB1": _file(_EFFICIENTNET, "efficientnetb1.h5", "1d254153d4ab51201f1646940f018540"),
    "EfficientNetB2": _file(_EFFICIENTNET, "efficientnetb2.h5", "b15cce36ff4dcbd00b6dd88e7857a6ad"),
    "EfficientNetB3": _file(_EFFICIENTNET, "efficientnetb3.h5", "ffd1fdc53d0ce67064dc6a9c7960ede0"),
    "EfficientNetB4": _file(_EFFICIENTNET, "efficientnetb4.h5", "18c95ad55216b8f92d7e70b3a046e2fc"),
    "EfficientNetB5": _file(_EFFICIENTNET, "efficientnetb5.h5", "ace28f2a6363774853a83a0b21b9421a"),
    "EfficientNetB6": _file(_EFFICIENTNET, "efficientnetb6.h5", "165f6e37dce68623721b423839de8be5"),
    "EfficientNetB7": _file(_EFFICIENTNET, "efficientnetb7.h5", "8c03f828fec3ef71311cd463b6759d99"),
    "EfficientNetV2B0": _file(f"{_KERAS}/efficientnet_v2", "efficientnetv2-b0.h5", "21ecbf6da12460d5c40bb2f29ceb2188"),
    "EfficientNetV2B1": _file(f"{_KERAS}/efficientnet_v2", "efficientnetv2-b1.h5", "069f0534ff22adf035c89e2d9547a9dc"),
    "EfficientNetV2B2": _file(f"{_KERAS}/efficientnet_v2", "efficientnetv2-b2.h5", "424e49f28180edbde1e94797771950a7"),
    "EfficientNetV2B3": _file(f"{_KERAS}/efficientnet_v2", "efficientnetv2-b3.h5", "1f1fc43bd98a6e4fd8fdfd551e02c7a0"),
    "EfficientNetV2S": _file(f"{_KERAS}/efficientnet_v2", "efficientnetv2-s.h5", "e1d88a8495beba45748fedd0cecbe016"),
    "EfficientNetV2M": _file(f"{_KERAS}/efficientnet_v2", "efficientnetv2-m.h5", "a3bf6aa3276309f4fc6a34aa114c95cd"),
    "EfficientNetV2L": _file(f"{_KERAS}/efficientnet_v2", "efficientnetv2-l.h5", "27e6d408b53c7ebc868fefa357689935"),
    "ConvNeXtTiny": _file(
        f"{_KERAS}/convnext", "convnext_tiny.h5", "8ae6e78ce2933352b1ef4008e6dd2f17bc40771563877d156bc6426c7cf503ff"
    ),
    "ConvNeXtSmall": _file(
        f"{_KERAS}/convnext", "convnext_small.h5", "ce1277d8f1ee5a0ef0e171469089c18f5233860ceaf9b168049cb9263fd7483c"
    ),
    "ConvNeXtBase": _file(
        f"{_KERAS}/convnext", "convnext_base.h5", "52cbb006d3dadd03f6e095a8ca1aca47aecdd75acb4bc74bce1f5c695d0086e6"
    ),
    "ConvNeXtLarge": _file(
        f"{_KERAS}/convnext", "convnext_large.h5", "070c5ed9ed289581e477741d3b34beffa920db8cf590899d6d2c67fba2a198a6"
    ),
    "ConvNeXtXLarge": _file(
        f"{_KERAS}/convnext", "convnext_xlarge.h5", "c1f5ccab661354fc3a79a10fa99af82f0fbf10ec65cb894a3ae0815f17a889ee"
    ),
    "ResNet50": _file(
        f"{_KERAS}/resnet", "resnet50_weights_tf_dim_ordering_tf_kernels.h5", "2cb95161c43110f7111970584f804107"
    ),
    "ResNet101": _file(
        f"{_KERAS}/resnet", "resnet101_weights_tf_dim_ordering_tf_kernels.h5", "f1aeb4b969a6efcfb50fad2f0c20cfc5"
    ),
    "ResNet152": _file(
        f"{_KERAS}/resnet", "resnet152_weights_tf_dim_ordering_tf_kernels.h5", "100835be76be38e30d865e96f2aaae62"
    ),
    "ResNet50V2": _file(
        f"{_KERAS}/resnet", "resnet50v2_weights_tf_dim_ordering_tf_kernels.h5", "3ef43a0b657b3be2300d5770ece849e0"
    ),
    "ResNet101V2": _file(
        f"{_KERAS}/resnet", "resnet101v2_weights_tf_dim_ordering_tf_kernels.h5", "6343647c601c52e1368623803854d971"
    ),
    "ResNet152V2": _file(
        f"{_KERAS}/resnet", "resnet152v2_weights_tf_dim_ordering_tf_kernels.h5", "a49b44d1979771252814e80f8ec446f9"
    ),
    "DenseNet121": _file(
        f"{_KERAS}/densenet", "densenet121_weights_tf_dim_ordering_tf_kernels.h5", "9d60b8095a5708f2dcce2bca79d332c7"
    ),
    "DenseNet169": _file(
        f"{_KERAS}/densenet", "densenet169_weights_tf_dim_ordering_tf_kernels.h5", "d699b8f76981ab1b30698df4c175e90b"
    ),
    "DenseNet201": _file(
        f"{_KERAS}/densenet", "densenet201_weights_tf_dim_ordering_tf_kernels.h5", "1ceb130c1ea1b78c3bf6114dbdfd8807"
    ),
    "InceptionV3": _file(
        f"{_KERAS}/inception_v3",
        "inception_v3_weights_tf_dim_ordering_tf_kernels.h5",
        "9a0d58056eeedaa3f26cb7ebd46da564",
    ),
    "InceptionResNetV2": _file(
        f"{_KERAS}/inception_resnet_v2",
        "inception_resnet_v2_weights_tf_dim_ordering_tf_kernels.h5",
        "e693bd0210a403b3192acc6073ad2e96",
    ),
    "Xception": _file(
        f"{_KERAS}/xception", "xception_weights_tf_dim_ordering_tf_kernels.h5", "0a58e3b7378bc2990ea3b43d5981f1f6"
    ),
    "NASNetMobile": _file(
        f"{_KERAS}/nasnet", "nasnet_mobile.h5", "020fb642bf7360b370c678b08e0adf61", published_as="NASNet-mobile.h5"
    ),
    "NASNetLarge": _file(
        f"{_KERAS}/nasnet", "nasnet_large.h5", "11577c9a518f0070763c2b964a382f17", published_as="NASNet-large.h5"
    ),
    "VGG16": _file(
        f"{_KERAS}/vgg16", "vgg16_weights_tf_dim_ordering_tf_kernels.h5", "64373286793e3c8b2b4e3219cbf3544b"
    ),
    "VGG19": _file(
        f"{_KERAS}/vgg19", "vgg19_weights_tf_dim_ordering_tf_kernels.h5", "cbe5617147190e668d6c5d5026f83318"
    ),
}


def file_of(model_name: str | None) -> PublishedFile:
    """The published weights of a built-in network.

    Args:
        model_name: None for a network that is not built in, an --estimator's.

    Raises:
        FlagError: nothing is published for it in Keras's format.
    """
    if model_name in FILES:
        return FILES[model_name]
    raise FlagError(
        f"--checkpoint_path {IMAGENET} stands for the published weights of a network of keras.applications",
        received="an --estimator" if model_name is None else f"--model_name {model_name}",
        expected="a --model_name such as MobileNetV3Small, EfficientNetV2B0 or ResNet50, or the path of a checkpoint",
        hint="docs/checkpoints.md lists the networks, and where the checkpoints of slim's are.",
    )
