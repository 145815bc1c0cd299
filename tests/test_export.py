from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tf_image_classification import built_in_estimator, evaluate, export, nets, preprocessing, slim_preprocessing
from tf_image_classification import flags as flag_table
from tf_image_classification.data import manifest
from tf_image_classification.data.manifest import Task

TASKS = [Task("label", ("cat", "dog", "eel"))]


def picture(number: int, kind: str) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 255, (30 + number, 40, 3)).astype("uint8")
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(1)
    return nets.build("small", image_size=24, outputs={"label": 3}, weight_decay=0.0)


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    spec = built_in_estimator.BuiltInEstimator()
    spec.flags = flag_table.validate({}, [flag.name for flag in flag_table.of_command(flag_table.TRAIN)])
    folder = tmp_path_factory.mktemp("export") / "model"
    export.export(model, spec, TASKS, str(folder), {"note": "x"}, 24)
    return folder


def test_the_served_model_is_the_keras_model_behind_the_evaluation_preprocessing(exported, model):
    images = [picture(number, "PNG" if number % 2 else "JPEG") for number in range(6)]
    answer = tf.saved_model.load(str(exported / "saved_model")).signatures["serving_default"](
        image_bytes=tf.constant(images)
    )
    batch = tf.stack([slim_preprocessing.unit(preprocessing.decode(image), 24, 24) for image in images])
    expected = tf.nn.softmax(model(batch, training=False))
    np.testing.assert_allclose(answer["scores"], expected, atol=1e-6)  # the graph fuses what runs apart here
    assert answer["classes"].numpy().tolist() == [[b"cat", b"dog", b"eel"]] * 6


def test_the_digest_depends_on_weights_classes_and_image_size_alone(model, exported):
    def other_digest(model=model, tasks=TASKS, image_size=24):
        return export.digest(model, tasks, image_size)

    copy = nets.build("small", image_size=24, outputs={"label": 3}, weight_decay=0.0)
    assert other_digest(copy) != other_digest()
    copy.set_weights(model.get_weights())
    assert other_digest(copy) == other_digest() == json.loads((exported / "model.json").read_text())["digest"]
    assert other_digest(tasks=[Task("label", ("cat", "eel", "dog"))]) != other_digest()
    assert other_digest(image_size=32) != other_digest()


def test_a_batch_of_any_size_is_answered(exported):
    serve = tf.saved_model.load(str(exported / "saved_model")).signatures["serving_default"]
    for size in (1, 3, 7):
        assert serve(image_bytes=tf.constant([picture(1, "PNG")] * size, tf.string))["scores"].shape == (size, 3)


def test_the_saved_model_loads_without_keras_and_holds_each_variable_once(exported, model):
    program = (
        "import sys, tensorflow as tf\n"
        f"loaded = tf.saved_model.load({str(exported / 'saved_model')!r})\n"
        "assert not any(name.startswith('tf_image_classification') for name in sys.modules)\n"
        "print(sum(int(tf.size(v)) for v in loaded.model_variables))\n"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd="/")
    assert answer.returncode == 0, answer.stderr
    # Counters of random state are variables too, and not parameters.
    assert int(answer.stdout) == sum(int(tf.size(variable.value)) for variable in model.variables)
    size = sum(file.stat().st_size for file in (exported / "saved_model" / "variables").iterdir())
    assert size < 1.5 * 4 * model.count_params()


def test_the_keras_model_loads_and_agrees(exported, model):
    loaded = keras.saving.load_model(exported / "model.keras")
    images = tf.random.stateless_uniform([2, 24, 24, 3], [1, 2])
    np.testing.assert_array_equal(loaded(images, training=False), model(images, training=False))


def test_model_json_has_tasks_versions_and_the_facts_given(exported):
    facts = json.loads((exported / "model.json").read_text())
    assert facts["tasks"] == [{"name": "label", "labels_file": "labels.txt", "num_classes": 3, "one_hot": True}]
    assert facts["image_size"] == 24
    assert facts["note"] == "x"
    assert facts["versions"]["keras"] == keras.__version__
    assert (exported / "labels.txt").read_text() == "cat\ndog\neel\n"


def test_several_tasks_are_served_under_their_names(tmp_path):
    model = nets.build("small", image_size=16, outputs={"age": 2, "kind": 3}, weight_decay=0.0)
    spec = built_in_estimator.BuiltInEstimator()
    spec.flags = flag_table.validate({}, [flag.name for flag in flag_table.of_command(flag_table.TRAIN)])
    tasks = [Task("age", ("old", "young")), Task("kind", ("a", "b", "c"))]
    export.export(model, spec, tasks, str(tmp_path / "model"), {}, 16)
    answer = tf.saved_model.load(str(tmp_path / "model" / "saved_model")).signatures["serving_default"](
        image_bytes=[picture(0, "PNG")]
    )
    assert set(answer) == {"age_scores", "age_classes", "kind_scores", "kind_classes"}
    assert answer["kind_classes"].numpy().tolist() == [[b"a", b"b", b"c"]]
    assert {file.name for file in (tmp_path / "model").glob("labels*")} == {"labels.age.txt", "labels.kind.txt"}


def test_the_served_scores_are_evaluates_own_bit_for_bit_at_equal_batches(built_data, training_flags, tmp_path):
    from tf_image_classification import train_estimator

    trained = train_estimator.train_and_evaluate(
        built_in_estimator.BuiltInEstimator(), built_data, training_flags(train_steps=20)
    )
    evaluate.evaluate(trained.export_dir, built_data, str(tmp_path / "evaluation"), batch_size=4)
    with open(tmp_path / "evaluation" / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == built_data.splits[manifest.EVAL].examples
    serve = tf.saved_model.load(os.path.join(trained.export_dir, "saved_model")).signatures["serving_default"]
    source = built_data.sources[manifest.TRAIN]
    for begin in range(0, len(rows), 4):
        part = rows[begin : begin + 4]
        answer = serve(
            image_bytes=tf.constant([tf.io.read_file(os.path.join(source, row["filename"])).numpy() for row in part])
        )
        best = tf.argmax(answer["scores"], 1).numpy()
        for index, row in enumerate(part):
            assert answer["classes"].numpy()[index, best[index]].decode() == row["predicted"]
            assert np.float32(row["score"]) == answer["scores"].numpy()[index, best[index]]
