"""A model whose outputs can be computed by hand: the brighter an image, the higher its class."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from tf_image_classification.data.manifest import EVAL, Manifest, Shard, Split, Task, write_labels

SHARPNESS = 8.0


class Brightness(tf.Module):
    """Serves each task as softmax(-SHARPNESS * (brightness * (classes - 1) - class)^2); a task without labels as the
    brightness itself."""

    def __init__(self, tasks: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self.tasks = tasks

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def serve(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        def brightness(encoded: tf.Tensor) -> tf.Tensor:
            return (
                tf.reduce_mean(tf.cast(tf.io.decode_image(encoded, channels=3, expand_animations=False), tf.float32))
                / 255
            )

        values = tf.map_fn(brightness, image_bytes, fn_output_signature=tf.float32)[:, tf.newaxis]
        answer = {}
        for name, labels in self.tasks.items():
            prefix = f"{name}_" if len(self.tasks) > 1 else ""
            if not labels:
                answer[f"{prefix}scores"] = values
                continue
            distance = values * (len(labels) - 1) - tf.range(len(labels), dtype=tf.float32)[tf.newaxis]
            answer[f"{prefix}scores"] = tf.nn.softmax(-SHARPNESS * tf.square(distance))
            answer[f"{prefix}classes"] = tf.tile(tf.constant([list(labels)]), [tf.shape(image_bytes)[0], 1])
        return answer


def save_model(folder: Path, tasks: Mapping[str, Sequence[str]], **facts: Any) -> str:
    """Writes a model folder of Brightness."""
    module = Brightness(tasks)
    tf.saved_model.save(module, str(folder / "saved_model"), signatures={"serving_default": module.serve})
    entries = []
    for name, labels in tasks.items():
        task = Task(name, tuple(labels))
        if labels:
            write_labels(str(folder / task.labels_file), labels)
        labels_file = task.labels_file if labels else None
        entries.append({"name": name, "labels_file": labels_file, "num_classes": len(labels), "one_hot": bool(labels)})
    (folder / "model.json").write_text(
        json.dumps({"tasks": entries, "image_size": 8, "model_name": "brightness", **facts})
    )
    return str(folder)


def grey_png(level: float, size: int = 4) -> bytes:
    """A PNG of one grey, 0 to 1."""
    file = io.BytesIO()
    Image.new("RGB", (size, size), (round(level * 255),) * 3).save(file, "PNG")
    return file.getvalue()


def save_shard(
    folder: Path, examples: Sequence[tuple[str, bytes, Any]], tasks: Mapping[str, Sequence[str]], **split: Any
) -> Manifest:
    """Writes one shard and its manifest; an example is (filename, image, class id, or dict of task -> class id)."""
    folder.mkdir(parents=True, exist_ok=True)
    several = len(tasks) > 1
    features = {name: f"image/class/{name}/label" if several else "image/class/label" for name in tasks}
    path = folder / "eval-00000-of-00001.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for filename, image, label in examples:
            ids = label if isinstance(label, dict) else {next(iter(tasks)): label}
            values = {"image/encoded": image, "image/filename": filename.encode()}
            feature = {
                name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value])) for name, value in values.items()
            }
            feature |= {
                features[task]: tf.train.Feature(int64_list=tf.train.Int64List(value=[index]))
                for task, index in ids.items()
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    shard = Shard(path.name, len(examples), path.stat().st_size, "00000000")
    manifest = Manifest(
        tasks=tuple(Task(name, tuple(labels), features[name]) for name, labels in tasks.items()),
        splits={EVAL: Split(shards=(shard,), images=len(examples), **split)},
        sources={EVAL: "the/source"},
        fingerprint="f1",
        folder=str(folder),
    )
    manifest.write(str(folder))
    return manifest


def grey_examples(labels: Sequence[str], count: int, seed: int = 0, noise: float = 0.3) -> list[tuple[str, bytes, int]]:
    """Greys around each class's brightness: the more noise (1: the distance between classes), the more mistakes."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, len(labels), count)
    levels = np.clip((ids + rng.normal(0, noise, count)) / (len(labels) - 1), 0, 1)
    return [
        (f"folder/image{index}.png", grey_png(level), int(label))
        for index, (label, level) in enumerate(zip(ids, levels, strict=True))
    ]
