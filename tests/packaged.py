"""Wheels with an estimator, made in a moment: without setuptools, and byte for byte the same for the same text."""

from __future__ import annotations

import zipfile
from pathlib import Path

ESTIMATOR = """
import keras, tensorflow as tf
from tf_image_classification.estimator_specs import EstimatorSpec

class MeanColour(EstimatorSpec):
    def get_preproc_fn(self, is_training):
        return lambda image, width, height: tf.image.resize(tf.cast(image, tf.float32) / 255.0, (height, width))
    def get_model_fn(self, checkpoint_path):
        def model_fn(params):
            images = keras.Input((params.image_size, params.image_size, 3))
            features = keras.layers.GlobalAveragePooling2D()(images)
            return keras.Model(images, keras.layers.Dense(params.num_classes)(features))
        return model_fn
    def metric_ops(self, labels, predictions):
        return {"surely right": tf.reduce_max(labels["label"] * predictions["label"]["probabilities"], -1) > 0.5}
"""


def wheel(path: Path, module: str, text: str) -> Path:
    """A wheel of one module; one that is there is replaced."""
    info = f"{path.name.split('-')[0]}-1.dist-info"
    files = {
        f"{module}.py": text,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {path.name.split('-')[0]}\nVersion: 1\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return path
