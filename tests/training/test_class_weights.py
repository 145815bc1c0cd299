"""--class_weights: what the weights are, what they do to the loss, and what they do for a rare class."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.test_own_estimator import Counting
from tests.training.support import train
from tf_image_classification import build_tfrecords, built_in_estimator, dataset
from tf_image_classification.data.manifest import Manifest, Split, Task
from tf_image_classification.errors import DataError, FlagError
from tf_image_classification.flags import Flags
from tf_image_classification.training.class_weights import balanced, class_weights

BALANCED = Flags(class_weights="balanced", label_smoothing=0.0)


def test_all_classes_count_the_same_and_an_example_one_on_average():
    counts = [200, 10, 50]
    weights = balanced(counts)
    assert weights == pytest.approx((260 / 600, 260 / 30, 260 / 150))
    totals = [count * weight for count, weight in zip(counts, weights, strict=True)]
    assert totals == pytest.approx([260 / 3] * 3)


def test_a_class_without_examples_has_no_weight_and_changes_none():
    assert balanced([30, 0, 10]) == (*balanced([30, 10])[:1], 0.0, *balanced([30, 10])[1:])


def data_of(**counts: dict[str, int]) -> Manifest:
    """A data set with this number of examples by task and class; of a task without classes, numbers."""
    tasks = tuple(Task(name, tuple(classes), f"image/class/{name}/label") for name, classes in counts.items())
    return Manifest(tasks, {"train": Split(class_counts=counts)})


def spec_for(data: Manifest, flags: Flags = BALANCED, base: type = Counting):
    spec = base()
    spec.flags = flags
    spec.set_default_class_dict(data.tasks)
    spec.class_weights = class_weights(spec, dataset.with_tasks(data, spec.class_dict), flags)
    return spec


def test_each_task_has_weights_of_its_own_and_a_regression_has_none():
    spec = spec_for(data_of(age={}, breed={"pug": 10, "saluki": 30}, color={"black": 20, "white": 20}))
    assert spec.class_weights == {"breed": (2.0, pytest.approx(2 / 3)), "color": (1.0, 1.0)}


def test_the_weights_are_found_under_the_specs_own_name_of_the_task():
    spec = Counting()
    spec.class_dict = [{"name": "breed", "depth": 2, "one-hot": True}]
    data = dataset.with_tasks(data_of(label={"pug": 10, "saluki": 30}), spec.class_dict)
    assert class_weights(spec, data, BALANCED) == {"breed": (2.0, pytest.approx(2 / 3))}


def test_without_the_flag_there_are_none():
    spec = spec_for(data_of(label={"pug": 10, "saluki": 30}), Flags(class_weights=None))
    assert spec.class_weights is None


def test_a_data_set_without_counts_of_its_classes_is_refused():
    data = data_of(label={"pug": 10, "saluki": 30})
    uncounted = dataclasses.replace(data, splits={"train": Split()})
    with pytest.raises(DataError, match="number of examples of each class of label"):
        spec_for(uncounted)


def test_a_regression_alone_is_refused():
    with pytest.raises(FlagError, match="a regression of age"):
        spec_for(data_of(age={}))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_an_examples_cross_entropy_is_multiplied_by_the_weight_of_its_label(smoothing):
    """Labels of mixup weigh as their shares do; smoothing changes the target, and not the weight."""
    data = data_of(age={}, breed={"pug": 10, "saluki": 30})
    spec = spec_for(data, Flags(class_weights="balanced", label_smoothing=smoothing))
    label = np.array([[1, 0], [0, 1], [0.25, 0.75]], np.float32)
    logit = np.array([[2, 0], [1, 3], [0, 0]], np.float32)
    age, predicted = np.array([1, 2, 3], np.float32), np.array([[1], [2], [0]], np.float32)
    target = label * (1 - smoothing) + smoothing / 2
    losses = -np.sum(target * np.log(np.exp(logit) / np.exp(logit).sum(-1, keepdims=True)), -1)
    weights = np.array([2, 2 / 3, 0.25 * 2 + 0.75 * 2 / 3])
    loss = spec.loss_fn(
        {"age": tf.constant(age), "breed": tf.constant(label)},
        {"age": tf.constant(predicted), "breed": tf.constant(logit)},
    )
    assert float(loss) == pytest.approx(np.mean(weights * losses) + 3.0, rel=1e-6)


class Ignores(Counting):
    def loss_fn(self, labels, logits):
        return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(labels["label"], logits["label"]))


class Reads(Counting):
    def loss_fn(self, labels, logits):
        return self.weighted(tf.nn.softmax_cross_entropy_with_logits(labels["label"], logits["label"]), labels)

    @tf.function
    def weighted(self, losses, labels):
        return tf.reduce_mean(losses * tf.linalg.matvec(labels["label"], self.class_weights["label"]))


class Extends(Counting):
    def loss_fn(self, labels, logits):
        return 2.0 * super().loss_fn(labels, logits)


@pytest.mark.parametrize(
    ("base", "warned"),
    [
        (Counting, False),
        (built_in_estimator.BuiltInEstimator, False),
        (Ignores, True),
        (Reads, False),
        (Extends, False),
    ],
)
def test_a_loss_fn_that_ignores_the_weights_is_warned_of(base, warned, caplog):
    spec_for(data_of(label={"pug": 10, "saluki": 30}), base=base)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert ["loss_fn of Ignores does not use self.class_weights" in message for message in warnings] == [True] * warned


def _write_images(folder: Path, counts: dict[str, int], seed: int) -> None:
    """Grey images whose brightness, not quite that of the other class, is all that tells the class."""
    from PIL import Image

    random = np.random.default_rng(seed)
    for name, mean in (("common", 110), ("rare", 170)):
        (folder / name).mkdir(parents=True)
        for number in range(counts[name]):
            pixels = random.normal(random.normal(mean, 30), 10, (8, 8, 3)).clip(0, 255)
            Image.fromarray(pixels.astype("uint8")).save(folder / name / f"{number:03}.png")


@pytest.fixture(scope="module")
def imbalanced_data(tmp_path_factory) -> Manifest:
    """20 images of one class for each of the other; as many of both to evaluate on."""
    folder = tmp_path_factory.mktemp("imbalanced")
    _write_images(folder / "train", {"common": 600, "rare": 30}, seed=1)
    _write_images(folder / "eval", {"common": 200, "rare": 200}, seed=2)
    return build_tfrecords.build(
        str(folder / "train"), str(folder / "data"), eval_metadata=str(folder / "eval"), workers=1
    )


@pytest.mark.slow
def test_balanced_weights_raise_the_macro_recall_of_classes_of_twenty_to_one(imbalanced_data, training_flags, tmp_path):
    recalls: dict[str | None, list[float]] = {None: [], "balanced": []}
    for weights, of_weights in recalls.items():
        for seed in (1, 2, 3):
            flags = training_flags(
                model_dir=str(tmp_path / f"{weights}-{seed}"),
                image_size=8,
                batch_size=64,
                train_steps=200,
                eval_freq=100,
                optimizer="adam",
                opt_epsilon=1e-7,
                seed=seed,
                class_weights=weights,
            )
            # Of two classes with as many images each, the share of right answers is the mean of their recalls.
            of_weights.append(train(imbalanced_data, flags, Counting()).metrics["right"])
    assert min(recalls["balanced"]) > max(recalls[None]) + 0.2  # measured: 0.86 and 0.53
