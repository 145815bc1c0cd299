"""What reaches the training: the original's own example data, its order, its labels, all of its files."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from tests.packaged import ESTIMATOR
from tests.parity.support import NumberSpec, make_flags, numbered_data
from tf_image_classification import build_tfrecords, built_in_estimator, dataset, train_estimator
from tf_image_classification.data import sources
from tf_image_classification.data.manifest import Manifest
from tf_image_classification.data.sources import ReadOptions
from tf_image_classification.errors import FlagError


@pytest.mark.parametrize("kind", ["TFRecords", "CSV"])
def test_24_data_of_the_originals_example_trains(kind: str, mini_mnist: Path, tmp_path: Path) -> None:
    if kind == "TFRecords":  # gzip, image_bytes and a float class_id
        train, evaluation = (
            str(mini_mnist / f"dataset/tf_records/{split}-*.tfrecord.gz") for split in ("train", "eval")
        )
    else:
        train, evaluation = (str(tmp_path / f"{split}.csv") for split in ("train", "eval"))
        for name, path in (("trainset", train), ("evalset", evaluation)):
            Path(path).write_text("URIs,labels\n" + (mini_mnist / f"dataset/{name}_local.csv").read_text())
    data = build_tfrecords.build(
        train, str(tmp_path / "data"), eval_metadata=evaluation, options=ReadOptions(image_root=str(mini_mnist))
    )
    assert {name: split.examples for name, split in data.splits.items()} == {"train": 418, "eval": 182}
    (task,) = data.tasks
    assert len(task.labels) == 10
    flags = make_flags(model_dir=str(tmp_path / "model"), train_steps=2, batch_size=32, image_size=28)
    outcome = train_estimator.train_and_evaluate(built_in_estimator.BuiltInEstimator(), data, flags)
    assert 0 < outcome.metrics["loss"] < 10


class RecordingSpec(NumberSpec):
    """Notes the number of every image that a loss is computed of."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def loss_fn(self, labels: Any, logits: Any) -> tf.Tensor:
        note = tf.py_function(
            lambda values: self.seen.extend(round(float(value)) for value in values), [logits["label"][:, 0]], []
        )
        with tf.control_dependencies([note]):
            return tf.identity(super().loss_fn(labels, logits))


def seen(data: Manifest, model_dir: Path, *, debug: bool) -> list[int]:
    """The numbers of the images of 20 steps of 4, in order; those of the evaluations at the end are left out."""
    flags = make_flags(
        model_dir=str(model_dir),
        train_steps=20,
        batch_size=4,
        image_size=4,
        debug=debug,
        optimizer="sgd",
        learning_rate=1e-30,
    )
    spec = RecordingSpec()
    train_estimator.train_and_evaluate(spec, data, flags)
    return spec.seen[: 20 * 4]


@pytest.mark.slow
def test_24_data_has_the_same_order_in_debug_mode_only_and_as_many_examples_as_train_steps_and_batch_size_give(
    tmp_path: Path,
) -> None:
    data = numbered_data(tmp_path, train=23, evaluation=4)
    orders = {
        name: seen(data, tmp_path / name, debug=name.startswith("debug"))
        for name in ("debug 1", "debug 2", "one", "two")
    }
    assert orders["debug 1"] == orders["debug 2"] == [number % 23 for number in range(80)]
    assert orders["one"] != orders["two"]
    for order in orders.values():
        assert len(order) == 20 * 4
        assert set(Counter(order).values()) == {3, 4}  # three epochs of 23 images, and 11 of the fourth


def test_24_data_has_the_same_label_ids_in_training_and_evaluation_whatever_the_csvs_begin_with(tmp_path: Path) -> None:
    from PIL import Image

    names = ["cat", "dog", "emu"]
    for split, order in (("train", names), ("eval", names[::-1])):
        lines = []
        for number, name in enumerate(order * 4):
            Image.new("RGB", (4, 4), (names.index(name), 0, 0)).save(tmp_path / f"{split}{number}.png")
            lines.append(f"{split}{number}.png,{name}\n")
        (tmp_path / f"{split}.csv").write_text("".join(lines))
    data = build_tfrecords.build(
        str(tmp_path / "train.csv"), str(tmp_path / "data"), eval_metadata=str(tmp_path / "eval.csv"), workers=1
    )
    for split in ("train", "eval"):
        for batch in dataset.evaluation_examples(data, split, 1):
            red = int(tf.io.decode_image(batch["image_bytes"][0])[0, 0, 0])
            assert int(batch["labels"]["label"][0]) == red


def test_24_data_that_is_mixed_or_matches_nothing_is_an_error(tmp_path: Path) -> None:
    data = numbered_data(tmp_path, train=2, evaluation=2)
    (tmp_path / "images.csv").write_text("a.png,cat\n")
    with pytest.raises(FlagError, match="mixes images with TFRecords"):
        sources.expand(f"{data.shard_paths('train')[0]},{tmp_path / 'images.csv'}")
    with pytest.raises(FlagError, match=r"do not exist.*nothing-\*"):
        sources.expand(str(tmp_path / "nothing-*"))


SCRIPT = f"""{ESTIMATOR}
if __name__ == "__main__":
    from tf_image_classification import train_estimator
    train_estimator.run(MeanColour)
"""


@pytest.mark.slow
def test_24_data_of_every_shard_is_used_by_the_documented_command_with_its_unquoted_globs(
    built_data: Manifest, tmp_path: Path
) -> None:
    (tmp_path / "my_estimator.py").write_text(SCRIPT)
    folder = tmp_path / "tfrecords"
    folder.mkdir()
    for split in ("train", "eval"):
        for number, path in enumerate(built_data.shard_paths(split) * 2):
            (folder / f"{split}-{number}.tfrecord").write_bytes(Path(path).read_bytes())
    command = (
        f"{sys.executable} my_estimator.py --batch_size 4 --train_steps 3 "
        "--train_metadata tfrecords/train* --eval_metadata tfrecords/eval* "
        "--model_dir ./models --eval_freq 10 --eval_throttle_secs 30 --learning_rate 0.00001 --image_size 8"
    )
    answer = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert (
        f"{2 * built_data.splits['train'].examples} training and {2 * built_data.splits['eval'].examples} evaluation"
        in answer.stderr
    )
    assert (tmp_path / "models" / "export" / "saved_model").is_dir()
