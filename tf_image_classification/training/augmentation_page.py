"""augmentation.html: some training images of a data set beside what the augmentation makes of them."""

from __future__ import annotations

import base64
import dataclasses
import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_image_classification import augmentation, dataset, pages, preprocessing, storage
from tf_image_classification.data.manifest import TRAIN, Manifest, Task
from tf_image_classification.training.training_folder import AUGMENTATION_FILE, TrainingFolder

if TYPE_CHECKING:
    from tf_image_classification.estimator_specs import EstimatorSpec

_log = logging.getLogger(__name__)

_IMAGES, _VARIANTS, _MIXED_BATCHES = 8, 6, 3
_CANDIDATES = 64  # examples among which images of different classes are looked for
_MAX_SIDE = 224  # pixels of an image on the page
_SMALL_SIDE = 96  # smaller images are shown with hard pixels
# Colours that tell how pixels are normalised, and one that checks it.
_PROBES = ((0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (40, 120, 200))
_MIN_SHARE = 0.005  # of a label that is named
_MAX_PROBE_ERROR = 1e-3  # of the range of normalised values


class _Row(NamedTuple):
    label: str
    original: str  # JPEGs in base64
    variants: list[str]


def write(spec: EstimatorSpec, data: Manifest, folder: TrainingFolder, seed: int) -> None:
    """Writes the page into a training's folder.

    Args:
        spec: with its `flags`.
        data: whose first training shard is read.
        seed: of the training's data; decides the random changes.
    """
    storage.write_text(os.path.join(folder.local, AUGMENTATION_FILE), render(spec, data, seed))
    _log.info("Augmented samples: %s", storage.join(folder.path, AUGMENTATION_FILE))


def render(spec: EstimatorSpec, data: Manifest, seed: int) -> str:
    """The page; of a spec that reads batches of its own, only a note."""
    flags = spec.flags
    rows: list[_Row] = []
    mixed: list[list[dict[str, str]]] = []
    is_stretched = False
    if not spec.has_own_input:
        encoded, labels = _examples(data)
        inverse = _denormalizer(spec.get_preproc_fn(False), flags.image_size)
        is_stretched = inverse is None
        inputs = _inputs(spec, encoded, seed)  # [image, variant, h, w, 3]
        jpegs = [[_jpeg(pixels) for pixels in _pixels(variants, inverse)] for variants in inputs]
        originals = map(_thumbnail, encoded)
        rows = [_Row(*row) for row in zip(labels, originals, jpegs, strict=True)]
        mix_fn = augmentation.mixer(flags)
        if mix_fn is not None and len(rows) > 1:
            batches = [
                mix_fn(inputs[:, 0], {"shares": tf.eye(len(rows))}, _seed(seed, i)) for i in range(_MIXED_BATCHES)
            ]
            mixed = [_mixed(_pixels(images, inverse), shares["shares"].numpy(), labels) for images, shares in batches]
    return pages.template("tf_image_classification.training", AUGMENTATION_FILE).render(
        words=augmentation.in_words(flags, spec.training_crop(flags.augmentation)),
        rows=rows,
        mixed=mixed,
        image_size=flags.image_size,
        is_small=flags.image_size < _SMALL_SIDE,
        is_stretched=is_stretched,
    )


def _examples(data: Manifest) -> tuple[list[bytes], list[str]]:
    """Encoded images of as many classes as there are in the first examples, and their labels in words."""
    split = data.splits[TRAIN]
    first = dataclasses.replace(split, shards=split.shards[:1])  # the others may be in a bucket
    data = dataclasses.replace(data, splits={TRAIN: first})
    (batch,) = dataset.evaluation_examples(data, TRAIN, _CANDIDATES).take(1)
    labels = {name: values.numpy() for name, values in batch["labels"].items()}
    number = len(batch["image_bytes"])
    words = [_words({name: values[i] for name, values in labels.items()}, data.tasks) for i in range(number)]
    seen: Counter[str] = Counter()
    repeats = []  # how many of its class are before it
    for label in words:
        repeats.append(seen[label])
        seen[label] += 1
    chosen = sorted(range(number), key=lambda i: (repeats[i], words[i]))[:_IMAGES]
    encoded = batch["image_bytes"].numpy()
    return [encoded[i] for i in chosen], [words[i] for i in chosen]


def _words(labels: Mapping[str, Any], tasks: Sequence[Task]) -> str:
    def text(task: Task) -> str:
        value = labels[task.name]
        if not task.labels:
            return f"{value:g}"
        return task.labels[value] if 0 <= value < len(task.labels) else "no label"

    if len(tasks) == 1 and tasks[0].labels:
        return text(tasks[0])
    return ", ".join(f"{task.name}: {text(task)}" for task in tasks)


def _inputs(spec: EstimatorSpec, encoded: Sequence[bytes], seed: int) -> np.ndarray:
    """What the network gets, float32 [image, variant, h, w, 3], at most `_MAX_SIDE` pixels wide and high."""
    size = spec.flags.image_size
    decode_fn, preproc_fn = spec.training_image_fns(spec.flags.augmentation)

    def prepare(encoded: tf.Tensor, element_seed: tf.Tensor) -> tf.Tensor:
        image = dataset.training_image(encoded, size, element_seed, decode_fn, preproc_fn)
        shown = min(size, _MAX_SIDE)
        return image if shown == size else tf.image.resize(image, [shown, shown], "area")

    repeated = [image for image in encoded for _ in range(_VARIANTS)]
    seeds = tf.stack([_seed(seed, index) for index in range(len(repeated))])
    # In tf.data, as in training: run eagerly, random ops without a seed would take numbers from the global generator.
    images = tf.data.Dataset.from_tensor_slices((repeated, seeds)).map(prepare).batch(len(repeated))
    (batch,) = dataset.without_autotuning(images)
    return batch.numpy().reshape(len(encoded), _VARIANTS, *batch.shape[1:])


def _denormalizer(preproc_fn: preprocessing.PreprocFn, size: int) -> Callable[[np.ndarray], np.ndarray] | None:
    """The inverse of a normalisation that is linear in the colours of a pixel; None if it is not.

    It is found by what the preprocessing makes of images of one colour.
    """
    filled = [tf.fill([size, size, 3], 1) * tf.constant(colour) for colour in _PROBES]
    seen = [np.asarray(preproc_fn(tf.cast(image, tf.uint8), size, size))[size // 2, size // 2] for image in filled]
    black, *primaries, check = np.array(seen, "float64")
    matrix = (np.stack(primaries) - black) / 255.0
    expected = np.array(_PROBES[-1]) @ matrix + black
    scale = np.abs(matrix).max() * 255.0
    if not np.all(np.abs(check - expected) <= _MAX_PROBE_ERROR * scale) or np.linalg.matrix_rank(matrix) < 3:
        return None
    inverse = np.linalg.inv(matrix)
    return lambda values: (values - black) @ inverse


def _pixels(inputs: np.ndarray, inverse: Callable[[np.ndarray], np.ndarray] | None) -> np.ndarray:
    """Network inputs float32 [B, h, w, 3] -> uint8 [B, h, w, 3]."""
    values = np.asarray(inputs, "float64")
    if inverse is None:
        low, high = (limit(values, axis=(1, 2, 3), keepdims=True) for limit in (np.min, np.max))
        values = (values - low) / np.maximum(high - low, 1e-6) * 255.0
    else:
        values = inverse(values)
    return np.clip(np.round(values), 0, 255).astype("uint8")


def _mixed(pixels: np.ndarray, shares: np.ndarray, labels: Sequence[str]) -> list[dict[str, str]]:
    """The images of a mixed batch; `shares` [B, B] has those of each image's sources."""
    images = []
    for image, row in zip(pixels, shares, strict=True):
        by_label = {label: sum(row[i] for i, other in enumerate(labels) if other == label) for label in labels}
        sources = sorted(by_label.items(), key=lambda source: -source[1])
        parts = [f"{share:.0%} {label}" for label, share in sources if share >= _MIN_SHARE]
        images.append({"jpeg": _jpeg(image), "label": " + ".join(parts)})
    return images


def _thumbnail(encoded: bytes) -> str:
    image = preprocessing.decode(tf.constant(encoded))
    scale = min(1.0, _MAX_SIDE / max(image.shape[:2]))
    size = [max(1, round(side * scale)) for side in image.shape[:2]]
    return _jpeg(tf.cast(tf.round(tf.image.resize(image, size, "area")), tf.uint8))


def _jpeg(pixels: np.ndarray | tf.Tensor) -> str:
    return base64.b64encode(tf.io.encode_jpeg(pixels, quality=90, chroma_downsampling=False).numpy()).decode()


def _seed(seed: int, index: int) -> tf.Tensor:
    return tf.constant([seed, index], tf.int64)
