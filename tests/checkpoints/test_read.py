"""Any kind of checkpoint is read by name, and each way in which one can be broken is an error."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_image_classification import checkpoints, nets
from tf_image_classification.errors import CheckpointError


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    return nets.build("small", image_size=8, outputs={"label": 3})


@pytest.fixture(scope="module")
def values(model: keras.Model) -> dict[str, np.ndarray]:
    return {name: variable.numpy() for name, variable in nets.scoped_names(model).items()}


def save_slim(values: dict[str, np.ndarray], prefix: Path, version: int) -> str:
    """Saves a slim checkpoint, as TensorFlow 1 wrote them: variables by name, and what else training left in the
    file."""
    extras = {
        "global_step": np.int64(7),
        "Small/mean_rgb": np.zeros(3, np.float32),
        "Small/Logits/weights/Momentum": np.ones((1, 1, 48, 3), np.float32),
        "Small/Logits/weights/ExponentialMovingAverage": np.ones((1, 1, 48, 3), np.float32),
    }
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = {
            name: tf.compat.v1.get_variable(name.replace("/", "_"), initializer=tf.constant(value))
            for name, value in {**values, **extras}.items()
        }
        session.run(tf.compat.v1.global_variables_initializer())
        saver = tf.compat.v1.train.Saver(variables, write_version=version)
        return str(saver.save(session, str(prefix), write_meta_graph=version == 2, write_state=version == 2))


@pytest.fixture(scope="module")
def saved(
    tmp_path_factory: pytest.TempPathFactory, model: keras.Model, values: dict[str, np.ndarray]
) -> dict[str, str]:
    """The same weights in every kind of checkpoint."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for name in ("v1", "v2", "training", "exported", "whole", "alone"):
        (folder / name).mkdir()
    optimizer = keras.optimizers.Adam(0.1)
    optimizer.build(model.trainable_variables)
    state = checkpoints.training_checkpoint(model, optimizer, tf.Variable(3, dtype=tf.int64))
    tf.train.CheckpointManager(state, str(folder / "training"), 5, checkpoint_name="model.ckpt").save(
        checkpoint_number=3
    )
    model.save(folder / "exported" / "model.keras")
    shutil.copytree(folder / "exported", folder / "whole" / "export")
    model.save_weights(folder / "small.weights.h5")
    v2 = save_slim(values, folder / "v2" / "small.ckpt", version=2)
    v1 = save_slim(values, folder / "v1" / "small.ckpt", version=1)
    shutil.copy(v1, folder / "alone")
    return {
        "V1 file": v1,
        "V2 prefix": v2,
        "V2 index file": v2 + ".index",
        "V2 data file": v2 + ".data-00000-of-00001",
        "V2 meta file": v2 + ".meta",
        "folder of V2 checkpoints": str(folder / "v2"),
        "folder with a slash": f"{folder / 'v2'}/",
        "folder with one V1 file": str(folder / "alone"),
        "training prefix": str(folder / "training" / "model.ckpt-3"),
        "training folder": str(folder / "training"),
        "TF2 object checkpoint": tf.train.Checkpoint(model=model).save(str(folder / "object" / "ckpt")),
        ".keras": str(folder / "exported" / "model.keras"),
        ".weights.h5": str(folder / "small.weights.h5"),
        "model folder": str(folder / "exported"),
        "training folder with only an export": str(folder / "whole"),
    }


KINDS = [
    "V1 file", "V2 prefix", "V2 index file", "V2 data file", "V2 meta file", "folder of V2 checkpoints",
    "folder with a slash", "folder with one V1 file", "training prefix", "training folder", "TF2 object checkpoint",
    ".keras", ".weights.h5", "model folder",
    "training folder with only an export",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_checkpoint_gives_the_same_weights(
    kind: str, saved: dict[str, str], values: dict[str, np.ndarray]
) -> None:
    fresh = nets.build("small", image_size=8, outputs={"label": 3})
    report = checkpoints.warm_start(fresh, saved[kind], None)
    assert report.loaded == list(values)
    assert not report.missing and not report.excluded
    for name, variable in nets.scoped_names(fresh).items():
        np.testing.assert_array_equal(variable.numpy(), values[name])


@pytest.mark.parametrize("kind", ["V1 file", "V2 prefix"])
def test_what_training_left_in_a_slim_checkpoint_is_ignored(kind: str, saved: dict[str, str]) -> None:
    report = checkpoints.warm_start(nets.build("small", image_size=8, outputs={"label": 3}), saved[kind], None)
    assert sorted(report.unused) == [
        "Small/Logits/weights/ExponentialMovingAverage",
        "Small/Logits/weights/Momentum",
        "Small/mean_rgb",
        "global_step",
    ]


def test_training_checkpoints_list_their_weights_by_slim_name(
    saved: dict[str, str], values: dict[str, np.ndarray]
) -> None:
    with checkpoints.read(saved["training folder"]) as weights:
        assert weights.kind == "training checkpoint"
        assert set(weights) == set(values)
        assert weights.shapes["Small/Logits/weights"] == (1, 1, 48, 3)
        with pytest.raises(KeyError):
            weights["Small/Logits/nothing"]


def test_weights_that_keras_2_saved_are_read_by_variable_path(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file["head/head/kernel:0"] = np.full((4, 2), 3.0, np.float32)
        file["head/head/bias:0"] = np.full(2, 4.0, np.float32)
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2, name="head")(inputs))
    assert checkpoints.warm_start(model, str(tmp_path / "old.h5"), None).loaded == ["head/kernel", "head/bias"]
    np.testing.assert_array_equal(model.get_layer("head").bias, [4, 4])


def test_the_newest_checkpoint_of_a_folder_is_taken_also_after_it_was_moved(tmp_path: Path) -> None:
    variable = tf.Variable(0.0)
    saver = tf.compat.v1.train.Saver({"Net/weights": variable})
    (tmp_path / "before").mkdir()
    for step in (1, 2):
        variable.assign(step)
        saver.save(None, str(tmp_path / "before" / "model.ckpt"), global_step=step)
    state = (tmp_path / "before" / "checkpoint").read_text()
    (tmp_path / "before" / "checkpoint").write_text(state.replace('"model', f'"{tmp_path}/before/model'))
    shutil.move(tmp_path / "before", tmp_path / "after")
    with checkpoints.read(str(tmp_path / "after")) as weights:
        assert weights["Net/weights"] == 2.0


def test_a_path_that_does_not_exist_is_an_error_that_names_the_checkpoints_of_its_folder(saved: dict[str, str]) -> None:
    with (
        pytest.raises(
            CheckpointError, match=r"Checkpoint not found.*inception.ckpt.*The same folder has .*v2/small\.ckpt"
        ),
        checkpoints.read(str(Path(saved["V2 prefix"]).with_name("inception.ckpt"))),
    ):
        pass


def fails(path: Path, match: str) -> None:
    with pytest.raises(CheckpointError, match=match), checkpoints.read(str(path)) as weights:
        list(weights.values())


def test_a_folder_without_a_checkpoint_is_an_error(tmp_path: Path) -> None:
    fails(tmp_path, "has no checkpoint")


def test_a_folder_with_several_checkpoints_and_no_newest_is_an_error_that_lists_them(
    tmp_path: Path, saved: dict[str, str]
) -> None:
    for name in ("one.ckpt", "two.ckpt"):
        shutil.copy(saved["V1 file"], tmp_path / name)
    fails(tmp_path, r"several checkpoints.*one\.ckpt, two\.ckpt")


@pytest.fixture
def v2_folder(tmp_path: Path, saved: dict[str, str]) -> Path:
    return Path(shutil.copytree(saved["folder of V2 checkpoints"], tmp_path / "v2"))


@pytest.mark.parametrize("missing", [".index", ".data-00000-of-00001"])
def test_a_half_written_newest_checkpoint_is_an_error_and_not_passed_over(v2_folder: Path, missing: str) -> None:
    shutil.copy(v2_folder / "small.ckpt.index", v2_folder / "older.ckpt.index")
    shutil.copy(v2_folder / "small.ckpt.data-00000-of-00001", v2_folder / "older.ckpt.data-00000-of-00001")
    (v2_folder / f"small.ckpt{missing}").unlink()
    fails(v2_folder, "not complete")
    fails(v2_folder / "small.ckpt", "not complete")


@pytest.mark.parametrize("name", ["small.ckpt.index", "small.ckpt.data-00000-of-00001"])
@pytest.mark.parametrize("damage", ["cut", "overwritten", "emptied"])
def test_a_damaged_v2_checkpoint_is_an_error(v2_folder: Path, name: str, damage: str) -> None:
    file = v2_folder / name
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle:] = {"cut": b"", "overwritten": bytes(len(content) - middle), "emptied": b""}[damage]
    file.write_bytes(b"" if damage == "emptied" else content)
    fails(v2_folder, "damaged")


@pytest.mark.parametrize("kind", ["V1 file", ".keras", ".weights.h5"])
def test_a_damaged_file_is_an_error(kind: str, saved: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / Path(saved[kind]).name
    content = Path(saved[kind]).read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"not a checkpoint" * 100):
        file.write_bytes(damaged)
        fails(file, "damaged")


def test_a_keras_file_of_unknown_layers_is_read_without_running_them(saved: dict[str, str], tmp_path: Path) -> None:
    with zipfile.ZipFile(saved[".keras"]) as source, zipfile.ZipFile(tmp_path / "evil.keras", "w") as target:
        target.writestr("config.json", json.dumps({"module": "os", "class_name": "system", "config": "exit 1"}))
        target.writestr("model.weights.h5", source.read("model.weights.h5"))
    with checkpoints.read(str(tmp_path / "evil.keras")) as weights:
        assert weights["Small.Logits/vars/1"].shape == (3,)
