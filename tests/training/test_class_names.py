"""A model is bound to the names of its classes: they are renamed, added, removed and reordered between trainings."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.training.support import RUN, digest, names, train
from tf_image_classification import build_tfrecords, checkpoints, storage
from tf_image_classification import flags as flag_table
from tf_image_classification.data.manifest import Manifest
from tf_image_classification.errors import CheckpointError
from tf_image_classification.promotion import champion, resolve

COLORS = {"blue": (40, 60, 220), "green": (30, 180, 60), "red": (220, 40, 40), "white": (240, 240, 240)}
HEAD = {"trainable_scopes": "Small/Logits", "learning_rate": 1e-30, "train_steps": 1}  # leaves all as it was loaded
# What becomes of blue, green and red: (the images' classes, the names of those that stay)
CHANGES = {
    "renamed": (("sky", "green", "red"), ("green", "red")),
    "added": (("blue", "dark", "green", "red"), ("blue", "green", "red")),
    "removed": (("blue", "red"), ("blue", "red")),
    "reordered": (("red", "blue", "green"), ("blue", "green", "red")),
}
SEEN_AS = {"sky": "blue", "dark": "white"}  # the images of a class of another name


def pictures(color: str, count: int) -> list[np.ndarray]:
    random = np.random.default_rng(list(COLORS).index(color))
    return [
        np.clip(np.array(COLORS[color]) + random.integers(-30, 30, (16, 16, 3)), 0, 255).astype(np.uint8)
        for _ in range(count)
    ]


def write_folder(folder: Path, classes: Sequence[str], count: int = 12) -> Path:
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number, pixels in enumerate(pictures(SEEN_AS.get(name, name), count)):
            Image.fromarray(pixels).save(folder / name / f"{number:02}.png")
    return folder


def write_csv(folder: Path, classes: Sequence[str]) -> Path:
    write_folder(folder, classes)
    lines = [f"{path.relative_to(folder)},{path.parent.name}" for path in sorted(folder.rglob("*.png"))]
    (folder / "images.csv").write_text("\n".join(lines) + "\n")
    return folder / "images.csv"


def build(folder: Path, classes: Sequence[str], source: str = "labels file") -> Manifest:
    """Images of these classes; a folder and a CSV give them ids in alphabetical order, a labels file in theirs."""
    images = write_csv(folder / "images", classes) if source == "csv" else write_folder(folder / "images", classes)
    labels_file = None
    if source != "folder" and source != "csv":
        labels_file = folder / "classes.txt"
        labels_file.write_text("".join(f"{name}\n" for name in classes))
    return build_tfrecords.build(
        str(images),
        str(folder / "data"),
        eval_fraction=0.3,
        workers=1,
        labels_file=str(labels_file) if labels_file else None,
    )


class Trained(NamedTuple):
    """A training of blue, green and red that tells them apart."""

    model_dir: str
    export_dir: str
    data: Manifest


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    data = build(folder, ("blue", "green", "red"))
    result = train(data, make_flags(folder / "model", train_steps=30, optimizer="adam", learning_rate=0.01))
    return Trained(result.model_dir, result.export_dir, data)


def make_flags(model_dir: Path | str, **changes):
    values = {
        "model_dir": str(model_dir),
        "model_name": "small",
        "image_size": 16,
        "batch_size": 8,
        "learning_rate_decay_type": "fixed",
        "opt_epsilon": 1e-7,
        "seed": 7,
    }
    return flag_table.validate(values | changes, [flag.name for flag in flag_table.of_command(flag_table.TRAIN)])


def classes_of(export_dir: str) -> tuple[str, ...]:
    return tuple(Path(export_dir, "labels.txt").read_text().split())


def logits(export_dir: str, colors: Sequence[str]) -> dict[str, np.ndarray]:
    """Class -> its logit for each picture of some colours, by the exported Keras model."""
    images = np.stack([picture for color in colors for picture in pictures(color, 12)])
    model = keras.saving.load_model(Path(export_dir, "model.keras"))
    values = np.asarray(model(images.astype(np.float32) / 127.5 - 1.0, training=False))
    return dict(zip(classes_of(export_dir), values.T, strict=True))


def accuracy(logits_by_class: Mapping[str, np.ndarray], classes: Sequence[str]) -> float:
    """Accuracy among some classes, of pictures that are 12 of each of them in turn."""
    predicted = np.argmax([logits_by_class[name] for name in classes], axis=0)
    return float(np.mean(predicted == np.repeat(np.arange(len(classes)), 12)))


def promoted(trained: Trained, folder: Path, images: Path) -> str:
    """What --checkpoint_path champion is resolved to, with the training's model in service, for other images."""
    model = champion.promote(str(folder), trained.export_dir, compared_with="", reason="", run="")
    values = {"train_metadata": str(images), "champion": str(folder), "checkpoint_path": "champion"}
    return resolve.resolve(flag_table.for_step("resolve", values), model).checkpoint


FAST = {("folder", "renamed"), ("csv", "removed"), ("labels file", "reordered"), ("champion", "added")}


@pytest.mark.parametrize(
    ("source", "change"),
    [
        pytest.param(source, change, marks=[] if (source, change) in FAST else pytest.mark.slow)
        for source in ("folder", "csv", "labels file", "champion", "training folder")
        for change in CHANGES
        if (source, change) not in (("folder", "reordered"), ("csv", "reordered"))  # their ids are alphabetical
    ],
)
def test_the_classes_that_stayed_are_told_apart_as_before(source, change, trained, tmp_path, caplog):
    classes, stayed = CHANGES[change]
    data = build(tmp_path, classes, source)
    start = trained.export_dir
    if source == "champion":
        start = promoted(trained, tmp_path / "champion", tmp_path / "images")
        assert start.startswith(str(tmp_path / "champion"))
    elif source == "training folder":
        start = trained.model_dir
    caplog.set_level(logging.INFO)
    exported = train(data, make_flags(tmp_path / "model", checkpoint_path=start, **HEAD)).export_dir
    before, after = logits(trained.export_dir, stayed), logits(exported, stayed)
    assert accuracy(before, stayed) == accuracy(after, stayed) == 1.0
    if source != "training folder":  # its moving averages are not those of the model that it exported
        for name in stayed:
            np.testing.assert_allclose(after[name], before[name], rtol=1e-5, atol=1e-5)
    assert classes_of(exported) == data.tasks[0].labels
    gone, come = set(COLORS) - {"white"} - set(classes), set(classes) - {"blue", "green", "red"}
    line = next(text for text in caplog.text.splitlines() if text.strip().startswith("head: "))
    assert f"{len(stayed)} classes kept" in line
    assert all(f"1 new: {name}" in line for name in come) and all(f"1 dropped: {name}" in line for name in gone)
    recorded = json.loads(Path(exported, "model.json").read_text())["warm_start"]["classes"]["label"]
    assert recorded == {"kept": len(stayed), "new": sorted(come), "dropped": sorted(gone)}


def test_a_head_that_is_excluded_is_not_loaded(trained, tmp_path, caplog):
    data = build(tmp_path, CHANGES["renamed"][0])
    flags = make_flags(
        tmp_path / "model", checkpoint_path=trained.export_dir, checkpoint_exclude_scopes="Small/Logits", **HEAD
    )
    warm_start = json.loads(Path(train(data, flags).export_dir, "model.json").read_text())["warm_start"]
    assert warm_start["not_loaded"] == ["Small/Logits/biases", "Small/Logits/weights"]
    assert warm_start["classes"] == {}


@pytest.mark.parametrize(
    ("change", "received"),
    [
        ("renamed", r"added sky; removed blue\."),
        ("added", r"added dark; moved green from 1 to 2, red from 2 to 3\."),
        ("removed", r"removed green; moved red from 2 to 1\."),
        ("reordered", r"moved red from 2 to 0, blue from 0 to 1, green from 1 to 2\."),
    ],
)
@pytest.mark.parametrize("steps", [30, 40], ids=["nothing to train", "more steps"])
def test_a_training_is_not_continued_with_other_classes(change, received, steps, trained, tmp_path):
    data, before = build(tmp_path, CHANGES[change][0]), digest(trained.export_dir)
    flags = make_flags(trained.model_dir, train_steps=steps, optimizer="adam", learning_rate=0.01)
    with pytest.raises(CheckpointError, match=f"other classes.*{received} Expected: label: blue, green, red.*another"):
        train(data, flags)
    assert digest(trained.export_dir) == before
    assert json.loads(Path(trained.export_dir, "model.json").read_text())["tasks"][0]["num_classes"] == 3


@pytest.mark.slow
def test_a_training_in_a_bucket_is_not_continued_with_other_classes_but_started_from(service, tmp_path, caplog):
    train(build(tmp_path / "one", ("blue", "red")), make_flags(RUN, train_steps=2))
    other = build(tmp_path / "other", ("red", "blue"))
    before = names(RUN)
    with pytest.raises(CheckpointError, match=rf"{RUN}/model.ckpt-2 .*moved red from 1 to 0, blue from 0 to 1"):
        train(other, make_flags(RUN, train_steps=4))
    assert names(RUN) == before
    with checkpoints.read(RUN) as weights:
        assert weights.class_names == {"label": ("blue", "red")}
    caplog.set_level(logging.INFO)
    train(other, make_flags(tmp_path / "model", checkpoint_path=f"{RUN}/export", **HEAD))
    assert "head: 2 classes kept (2 under another id)" in caplog.text


def test_a_bucket_has_no_checkpoint_without_class_names_at_any_moment(service, tmp_path, monkeypatch):
    upload = storage.upload
    seen = []

    def checking(source: str, target: str) -> None:
        if target.endswith(".index"):
            reader = tf.train.load_checkpoint(source.removesuffix(".index"))
            seen.append(reader.has_tensor(checkpoints.class_names.StoredClassNames.KEY))
        upload(source, target)

    monkeypatch.setattr(storage, "upload", checking)
    train(build(tmp_path, ("blue", "red")), make_flags(RUN, train_steps=2))
    assert seen and all(seen)


@pytest.mark.slow
def test_each_of_several_tasks_keeps_its_classes(tmp_path, caplog):
    images = write_folder(tmp_path / "images", ("blue", "green", "red"))

    def build_tasks(name: str, colors: Mapping[str, str]) -> Manifest:
        lines = ["path,color,warm"]
        for path in sorted(images.rglob("*.png")):
            warm = "yes" if path.parent.name == "red" else "no"
            lines.append(f"{path.relative_to(images)},{colors[path.parent.name]},{warm}")
        (images / f"{name}.csv").write_text("\n".join(lines) + "\n")
        return build_tfrecords.build(str(images / f"{name}.csv"), str(tmp_path / name), eval_fraction=0.3, workers=1)

    one = build_tasks("one", {"blue": "blue", "green": "green", "red": "red"})
    two = build_tasks("two", {"blue": "sky", "green": "green", "red": "red"})
    first = train(one, make_flags(tmp_path / "first", train_steps=20, optimizer="adam", learning_rate=0.01))
    with pytest.raises(CheckpointError, match="color: added sky; removed blue; moved green from 1 to 0"):
        train(two, make_flags(tmp_path / "first", train_steps=20, optimizer="adam", learning_rate=0.01))
    caplog.set_level(logging.INFO)
    second = train(two, make_flags(tmp_path / "second", checkpoint_path=first.export_dir, **HEAD))
    assert "head of color: 2 classes kept (2 under another id), 1 new: sky, 1 dropped: blue" in caplog.text
    assert "head of warm: 2 classes kept" in caplog.text
    pixels = np.stack(pictures("green", 12)).astype(np.float32) / 127.5 - 1.0
    before, after = (
        keras.saving.load_model(Path(result.export_dir, "model.keras"))(pixels, training=False)
        for result in (first, second)
    )
    np.testing.assert_allclose(after["color"][:, :2], before["color"][:, 1:], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(after["warm"], before["warm"], rtol=1e-5, atol=1e-5)
