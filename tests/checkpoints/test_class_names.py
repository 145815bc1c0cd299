"""The head of a warm start is matched by the names of its classes."""

from __future__ import annotations

import json
import logging
import time
import unicodedata
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tf_image_classification import checkpoints, nets
from tf_image_classification.checkpoints.class_axes import class_axes
from tf_image_classification.checkpoints.class_names import StoredClassNames, check_unchanged, parse
from tf_image_classification.errors import CheckpointError

OLD = {"label": ("blue", "green", "red")}
NEW = {"label": ("green", "red", "sky")}


def dense(classes: int, features: int = 4, *after: keras.layers.Layer, name: str = "head") -> keras.Model:
    inputs = keras.Input((features,))
    x = keras.layers.Dense(classes, name=name)(inputs)
    for layer in after:
        x = layer(x)
    return keras.Model(inputs, x)


def of_tasks(**names: str) -> keras.Model:
    """A model with a head of three classes for each task, in layers of these names; '' for a name that Keras gives."""
    inputs = keras.Input((4,))
    return keras.Model(inputs, {task: keras.layers.Dense(3, name=name or None)(inputs) for task, name in names.items()})


def save(folder: Path, model: keras.Model, names: dict[str, tuple[str, ...]]) -> str:
    """Saves a model folder as far as warm starts read it."""
    folder.mkdir()
    randomize(model)
    model.save(folder / "model.keras")
    for task, labels in names.items():
        (folder / f"{task}.txt").write_text("".join(f"{label}\n" for label in labels))
    tasks = [{"name": task, "labels_file": f"{task}.txt" if labels else None} for task, labels in names.items()]
    (folder / "model.json").write_text(json.dumps({"tasks": tasks}))
    return str(folder)


def randomize(model: keras.Model) -> None:
    random = np.random.default_rng(1)
    model.set_weights([random.uniform(0.5, 1.0, value.shape) for value in model.get_weights()])


def outputs(model: keras.Model) -> Any:
    values = np.random.default_rng(2).normal(size=(5, *model.input_shape[1:])).astype(np.float32)
    return keras.tree.map_structure(np.asarray, model(values))


def test_columns_follow_their_classes_and_new_ones_keep_their_initial_values(tmp_path):
    source, model = dense(3), dense(3)
    path = save(tmp_path / "old", source, OLD)
    initial = outputs(model)
    report = checkpoints.warm_start(model, path, None, class_names=NEW)
    np.testing.assert_array_equal(outputs(model)[:, :2], outputs(source)[:, 1:])
    np.testing.assert_array_equal(outputs(model)[:, 2], initial[:, 2])
    assert "head: 2 classes kept (2 under another id), 1 new: sky, 1 dropped: blue" in report.table().splitlines()
    assert report.loaded == ["head/kernel", "head/bias"]


@pytest.mark.parametrize("exclude", [None, "auto"])
@pytest.mark.parametrize("labels", ["red blue", "blue green red sky", "red green blue", "blue green red"])
def test_any_number_of_classes_is_matched_with_auto_and_without(exclude, labels, tmp_path):
    source, names = dense(3), tuple(labels.split())
    path = save(tmp_path / "old", source, OLD)
    model = dense(len(names))
    checkpoints.warm_start(model, path, exclude, class_names={"label": names})
    kept = [name for name in names if name in OLD["label"]]
    np.testing.assert_array_equal(
        outputs(model)[:, [names.index(name) for name in kept]],
        outputs(source)[:, [OLD["label"].index(name) for name in kept]],
    )


def test_a_kernel_with_as_many_features_as_classes_is_moved_along_the_classes(tmp_path):
    source, model = dense(3, features=3), dense(3, features=3)
    checkpoints.warm_start(model, save(tmp_path / "old", source, OLD), None, class_names=NEW)
    np.testing.assert_array_equal(outputs(model)[:, :2], outputs(source)[:, 1:])


@pytest.mark.parametrize("network", ["small", "mobilenet_v1", "vgg_16", "MobileNetV3Small"])
def test_the_heads_of_built_in_networks_are_found(network):
    size = 224 if network == "vgg_16" else 32
    model = nets.build(network, image_size=size, outputs={"color": 3, "shape": 5})
    axes = class_axes(model, {"color": 3, "shape": 5})
    assert set(axes) == set(checkpoints.head_variables(model))
    shapes = {name: tuple(variable.shape) for name, variable in nets.scoped_names(model).items()}
    assert all(shapes[name][axis] == {"color": 3, "shape": 5}[task] for name, (task, axis) in axes.items())


@pytest.mark.parametrize("classes", [3, 4])
def test_a_layer_behind_the_logits_is_moved_with_them(classes, tmp_path):
    names = {"label": ("red", "blue", "green", "sky")[:classes]}
    source, model = (
        dense(count, 4, keras.layers.BatchNormalization(name="norm"), keras.layers.Softmax(name="scores"))
        for count in (3, classes)
    )
    path = save(tmp_path / "old", source, OLD)
    report = checkpoints.warm_start(model, path, None, class_names=names)
    assert len(report.loaded) == 6
    logits = keras.Model(model.input, model.get_layer("norm").output)
    expected = keras.Model(source.input, source.get_layer("norm").output)
    np.testing.assert_array_equal(outputs(logits)[:, :3], outputs(expected)[:, [2, 0, 1]])


class Cosine(keras.layers.Layer):
    """A head of someone's own: classes first, and a scale."""

    def __init__(self, classes: int, **options: Any) -> None:
        super().__init__(**options)
        self.classes = classes

    def build(self, shape: Any) -> None:
        self.centres = self.add_weight(shape=(self.classes, shape[-1]), name="centres")
        self.scale = self.add_weight(shape=(), name="scale")

    def call(self, inputs: Any) -> Any:
        return keras.ops.matmul(inputs, keras.ops.transpose(self.centres)) * self.scale


def cosine(features: int) -> keras.Model:
    inputs = keras.Input((features,))
    return keras.Model(inputs, Cosine(3, name="cosine")(inputs))


def test_the_classes_of_another_layer_are_found_by_their_number(tmp_path):
    source, model = cosine(4), cosine(4)
    checkpoints.warm_start(model, save(tmp_path / "old", source, OLD), None, class_names=NEW)
    np.testing.assert_array_equal(outputs(model)[:, :2], outputs(source)[:, 1:])


def test_where_their_number_does_not_tell_them_the_head_is_refused_and_auto_leaves_it_out(tmp_path):
    path = save(tmp_path / "old", cosine(3), OLD)
    model = cosine(3)
    before = model.get_weights()
    with pytest.raises(
        CheckpointError, match=r"not known which values of cosine .*--checkpoint_exclude_scopes cosine\."
    ):
        checkpoints.warm_start(model, path, None, class_names=NEW)
    with pytest.raises(CheckpointError, match="leaves nothing to load"):
        checkpoints.warm_start(model, path, "auto", class_names=NEW)
    assert all(np.array_equal(one, other) for one, other in zip(before, model.get_weights(), strict=True))
    report = checkpoints.warm_start(model, path, None, class_names=OLD)  # the same classes: nothing to move
    assert len(report.loaded) == 2


class NoGraph(keras.Model):
    def __init__(self) -> None:
        super().__init__(name="mine")
        self.head = keras.layers.Dense(3, name="head")
        self.build((None, 4))

    def build(self, shape: Any) -> None:
        self.head.build(shape)
        self.built = True

    def call(self, inputs: Any) -> Any:
        return self.head(inputs)


def test_a_model_without_a_graph_is_refused_for_other_classes_unless_its_head_is_named(tmp_path, caplog):
    path = save(tmp_path / "old", dense(3), OLD)
    with pytest.raises(CheckpointError, match=r"0 blue, 1 green, 2 red.*--checkpoint_exclude_scopes"):
        checkpoints.warm_start(NoGraph(), path, None, class_names=NEW)
    assert len(checkpoints.warm_start(NoGraph(), path, None, class_names=OLD).loaded) == 2
    assert checkpoints.warm_start(NoGraph(), path, "mine/head/b", class_names=NEW).excluded == ["mine/head/bias"]
    assert "mine/head/kernel have as many columns as there are classes and are loaded as they are" in caplog.text


def test_a_head_whose_classes_are_all_new_keeps_its_initial_values(tmp_path):
    source, model = (nets.build("small", image_size=8, outputs={"label": 3}) for _ in range(2))
    before = model.get_weights()
    path = save(tmp_path / "old", source, OLD)
    report = checkpoints.warm_start(model, path, None, class_names={"label": ("cat", "dog", "fox")})
    assert report.missing == ["Small/Logits/weights", "Small/Logits/biases"]
    assert "head: 0 classes kept, 3 new: cat, dog, fox, 3 dropped: blue, green, red" in report.table()
    assert all(np.array_equal(one, other) for one, other in zip(before[-2:], model.get_weights()[-2:], strict=True))


@pytest.mark.parametrize("stored", [None, ("0", "1", "2")], ids=["no names", "numbers"])
def test_class_ids_that_are_assumed_to_mean_the_same_are_warned_of(stored, tmp_path, caplog):
    path = save(tmp_path / "old", dense(3), {"label": stored or ()})
    if stored is None:
        (tmp_path / "old" / "model.json").unlink()
    names = {"label": stored or OLD["label"]}
    caplog.set_level(logging.WARNING)
    checkpoints.warm_start(dense(3), path, None, class_names=names)
    expected = "does not name its classes" if stored is None else "knows its classes by number only"
    assert f"{expected}: its class ids are assumed to mean the same as here (0 {names['label'][0]}" in caplog.text
    assert "--checkpoint_exclude_scopes head" in caplog.text


def test_two_unicode_forms_of_a_name_are_one_class(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    assert composed != decomposed
    source, model = dense(2), dense(2)
    path = save(tmp_path / "old", source, {"label": (decomposed, "zoo")})
    checkpoints.warm_start(model, path, None, class_names={"label": ("zoo", composed)})
    np.testing.assert_array_equal(outputs(model), outputs(source)[:, ::-1])


def test_each_task_is_matched_by_its_own_classes(tmp_path):
    names = {"color": ("blue", "red", "green"), "shape": ("dot", "line", "star")}
    source, model = of_tasks(color="color", shape="shape"), of_tasks(shape="shape", color="color", size="size")
    path = save(tmp_path / "old", source, names)
    new = {"shape": names["shape"], "color": ("red", "green", "sky"), "size": ("big", "mid", "small")}
    report = checkpoints.warm_start(model, path, None, class_names=new)
    old, now = outputs(source), outputs(model)
    np.testing.assert_array_equal(now["shape"], old["shape"])
    np.testing.assert_array_equal(now["color"][:, :2], old["color"][:, 1:])
    assert report.missing == ["size/kernel", "size/bias"]
    assert "head of color: 2 classes kept (2 under another id), 1 new: sky, 1 dropped: blue" in report.table()


def test_heads_that_keras_numbered_are_not_given_to_another_task(tmp_path):
    names = {"color": ("blue", "red", "green"), "shape": ("dot", "line", "star")}
    path = save(tmp_path / "old", of_tasks(color="", shape=""), names)
    with pytest.raises(CheckpointError, match="not known which values"):
        checkpoints.warm_start(of_tasks(shape="", color=""), path, None, class_names=dict(reversed(names.items())))
    assert len(checkpoints.warm_start(of_tasks(color="", shape=""), path, None, class_names=names).loaded) == 4


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"label": ("blue", "green", "red", "sky")}, "added sky."),
        ({"label": ("blue", "red")}, "removed green; moved red from 2 to 1."),
        ({"label": ("blue", "red", "green")}, "moved red from 2 to 1, green from 1 to 2."),
        (NEW, "added sky; removed blue; moved green from 1 to 0, red from 2 to 1."),
        ({"label": ()}, "the task label, which is new; no task label."),
        ({**OLD, "size": ("big",)}, "the task size, which is new."),
    ],
)
def test_a_training_is_continued_with_its_own_classes_only(names, message):
    with pytest.raises(CheckpointError) as error:
        check_unchanged(names, OLD, "ckpt-4")
    assert f"Received: {message} Expected: label: blue, green, red. " in str(error.value)


def test_the_order_of_tasks_is_not_changed_in_a_training_and_a_single_one_may_be_called_otherwise():
    names = {"color": ("blue", "red"), "shape": ("dot", "line")}
    with pytest.raises(CheckpointError, match="Received: the tasks in the order shape, color"):
        check_unchanged(dict(reversed(names.items())), names, "ckpt-4")
    check_unchanged({"color": OLD["label"]}, OLD, "ckpt-4")


def test_names_are_stored_in_the_order_of_their_tasks():
    names = {"shape": ("dot", "é"), "age": (), "color": ("blue",)}
    assert list(parse(StoredClassNames(names).serialize().encode()).items()) == list(names.items())


def test_variables_without_an_axis_are_loaded_from_a_file_that_names_no_classes(tmp_path):
    def model() -> keras.Model:
        images = keras.Input((4,))
        return keras.Model(images, keras.layers.Dense(2)(keras.layers.Normalization(name="normalization")(images)))

    model().save(tmp_path / "model.keras")
    report = checkpoints.warm_start(model(), str(tmp_path / "model.keras"), None)
    assert "normalization/count" in report.loaded


def test_the_time_to_say_what_became_of_the_classes_is_linear():
    def seconds(count: int) -> float:
        labels = tuple(map(str, range(count)))
        started = time.process_time()
        with pytest.raises(CheckpointError, match=r"moved 0 from \d+ to 0, 1 from "):
            check_unchanged({"label": labels}, {"label": labels[::-1]}, "model.ckpt-1")
        return time.process_time() - started

    assert min(seconds(8000) / seconds(2000) for _ in range(3)) < 8


@pytest.mark.parametrize(
    "text", [b"[" * 100_000, b"{", b"[1]", b'[["label", 3]]', b'[["label", [3]]]', b"\xff", b"null"]
)
def test_class_names_that_cannot_be_read_are_one_paragraph(text):
    with pytest.raises(CheckpointError, match="class names cannot be read"):
        parse(text)
