"""The built-in networks' names and smallest images: what flags and command lines know of them without Keras."""

from __future__ import annotations

from tf_image_classification.errors import FlagError

# The built-in networks -> the smallest height and width, in pixels, that leave a feature map for their logits.
MIN_IMAGE_SIZE = {
    "small": 8,
    "inception_v1": 32,
    "inception_v2": 32,
    "inception_v3": 75,
    "inception_v4": 75,
    "inception_resnet_v2": 75,
    "mobilenet_v1": 32,
    "mobilenet_v2": 32,
    "resnet_v1_50": 32,
    "resnet_v1_101": 32,
    "resnet_v1_152": 32,
    "resnet_v2_50": 32,
    "resnet_v2_101": 32,
    "resnet_v2_152": 32,
    "vgg_16": 224,  # fc6 needs a 7x7 map after five halvings
    "vgg_19": 224,
    # keras.applications: what Keras accepts.
    "MobileNet": 32,
    "MobileNetV2": 32,
    "MobileNetV3Small": 32,
    "MobileNetV3Large": 32,
    "EfficientNetB0": 32,
    "EfficientNetB1": 32,
    "EfficientNetB2": 32,
    "EfficientNetB3": 32,
    "EfficientNetB4": 32,
    "EfficientNetB5": 32,
    "EfficientNetB6": 32,
    "EfficientNetB7": 32,
    "EfficientNetV2B0": 32,
    "EfficientNetV2B1": 32,
    "EfficientNetV2B2": 32,
    "EfficientNetV2B3": 32,
    "EfficientNetV2S": 32,
    "EfficientNetV2M": 32,
    "EfficientNetV2L": 32,
    "ConvNeXtTiny": 32,
    "ConvNeXtSmall": 32,
    "ConvNeXtBase": 32,
    "ConvNeXtLarge": 32,
    "ConvNeXtXLarge": 32,
    "ResNet50": 32,
    "ResNet101": 32,
    "ResNet152": 32,
    "ResNet50V2": 32,
    "ResNet101V2": 32,
    "ResNet152V2": 32,
    "DenseNet121": 32,
    "DenseNet169": 32,
    "DenseNet201": 32,
    "InceptionV3": 75,
    "InceptionResNetV2": 75,
    "Xception": 71,
    "NASNetMobile": 32,
    "NASNetLarge": 32,
    "VGG16": 32,
    "VGG19": 32,
}


def check_image_size(model_name: str, image_size: int) -> None:
    """Checks that images are large enough for a built-in network.

    Raises:
        FlagError: they are not.
    """
    min_image_size = MIN_IMAGE_SIZE[model_name]
    if image_size < min_image_size:
        raise FlagError(
            f"--image_size is too small for {model_name}",
            received=image_size,
            expected=f"{min_image_size} pixels or more",
        )
