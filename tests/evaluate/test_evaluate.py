from __future__ import annotations

import csv
import json
import logging
import threading
import time
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.evaluate.brightness import grey_examples, grey_png, save_model, save_shard
from tf_image_classification import command_line
from tf_image_classification.data.manifest import DEFAULT_TASK, EVAL, TRAIN, Task
from tf_image_classification.errors import DataError, FlagError, UserError
from tf_image_classification.estimator_specs import EstimatorSpec
from tf_image_classification.evaluate import evaluate, evaluation_loop, served_model
from tf_image_classification.evaluate.scorers import create_scorers

LABELS = ("dark", "middle", "light")
TASKS = {DEFAULT_TASK: LABELS}
GREYS = [("a.png", grey_png(0), 0), ("b.png", grey_png(0.5), 1), ("c.png", grey_png(1), 2), ("d.png", grey_png(1), 0)]


def predictions(folder: Path) -> list[dict[str, str]]:
    with open(folder / "predictions.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_hostile_class_names_are_text_for_a_terminal_and_a_spreadsheet(tmp_path, capsys):
    labels = ("=1+1", "-1", "dog\u202e[2J")
    model = save_model(tmp_path / "model", {DEFAULT_TASK: labels})
    save_shard(tmp_path / "data", [*GREYS[:2], ("=e.png", grey_png(1), 3)], {DEFAULT_TASK: (*labels, "new\u202eed")})
    with command_line.reporting_errors():
        evaluate(model, str(tmp_path / "data"), str(tmp_path / "out"), batch_size=3)
    rows = predictions(tmp_path / "out")
    assert [row["filename"] for row in rows] == ["a.png", "b.png", "'=e.png"]
    assert [row["label"] for row in rows] == ["'=1+1", "-1", "new\u202eed"]
    printed = capsys.readouterr().err
    assert "new\\u202eed" in printed
    assert {c for c in printed if not c.isprintable()} == {"\n"}


def test_metrics_a_report_and_a_row_per_image_are_written(model_dir, tmp_path):
    save_shard(tmp_path / "data", GREYS, TASKS, rejected=1)
    found = evaluate(model_dir, str(tmp_path / "data"), str(tmp_path / "out"), batch_size=3)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "metrics.json",
        "predictions.csv",
        "report.html",
    ]
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == found
    assert (found["num_examples"], found["accuracy"], found["data_fingerprint"]) == (4, 0.75, "f1")
    assert found["confusion_matrix"] == [[1, 0, 1], [0, 1, 0], [0, 0, 1]]
    assert found["model"]["model_name"] == "brightness"
    assert found["data"] == {"source": "the/source", "images": 4, "rejected": 1}
    assert {"tf-image-classification", "numpy"} < found["versions"].keys()
    assert tf.__version__ in found["versions"].values()
    rows = predictions(tmp_path / "out")
    assert [(row["filename"], row["label"], row["predicted"]) for row in rows] == [
        ("a.png", "dark", "dark"),
        ("b.png", "middle", "middle"),
        ("c.png", "light", "light"),
        ("d.png", "dark", "light"),
    ]


def test_predictions_are_the_served_scores_to_the_last_bit(model_dir, tmp_path):
    examples = grey_examples(LABELS, 70)
    data = save_shard(tmp_path / "data", examples, TASKS)
    evaluate(model_dir, data, str(tmp_path / "out"), batch_size=32)
    rows = predictions(tmp_path / "out")
    served = tf.saved_model.load(f"{model_dir}/saved_model").signatures["serving_default"]
    for start in range(0, 70, 32):
        batch = examples[start : start + 32]
        scores = served(image_bytes=tf.constant([image for _, image, _ in batch]))["scores"].numpy()
        for row, score, (_, _, label) in zip(rows[start : start + 32], scores, batch, strict=True):
            assert np.float32(row["score"]) == score.max()
            assert np.float32(row["label_score"]) == score[label]
            assert row["predicted"] == LABELS[score.argmax()]


def test_two_evaluations_of_the_same_inputs_give_the_same_bytes(model_dir, tmp_path):
    data = save_shard(tmp_path / "data", grey_examples(LABELS, 40, noise=0.6), TASKS)
    for name in ("one", "two"):
        evaluate(model_dir, data, str(tmp_path / name), batch_size=16)
    for name in ("metrics.json", "predictions.csv", "report.html"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize(("large", "expected"), [(False, 2), (True, 1)])
def test_the_model_runs_on_two_batches_at_the_same_time_unless_they_are_large(
    large, expected, model_dir, tmp_path, monkeypatch
):
    if large:
        monkeypatch.setattr(evaluation_loop, "_MOST_BYTES_BESIDE", 1)
    data = save_shard(tmp_path / "data", grey_examples(LABELS, 40), TASKS)
    lock, running, most = threading.Lock(), 0, 0

    def signature(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.1)
        with lock:
            running -= 1
        return served.signature(image_bytes=image_bytes)

    with served_model.load(model_dir) as served:
        watched = replace(served, signature=signature)
        evaluation_loop.run(watched, data, str(tmp_path / "predictions.csv"), batch_size=8, spec=None)
    assert most == expected
    rows = (tmp_path / "predictions.csv").read_text().splitlines()[1:]
    assert [row.partition(",")[0] for row in rows] == [f"folder/image{index}.png" for index in range(40)]


def test_classes_are_matched_by_name_when_the_data_numbers_them_differently(model_dir, tmp_path):
    data = save_shard(
        tmp_path / "data", [("a.png", grey_png(0), 1), ("b.png", grey_png(1), 0)], {DEFAULT_TASK: ("light", "dark")}
    )
    assert evaluate(model_dir, data, str(tmp_path / "out"), batch_size=2)["accuracy"] == 1


def test_a_class_that_is_new_in_the_data_counts_as_mistakes_and_is_reported(model_dir, tmp_path, caplog):
    examples = [("a.png", grey_png(0), 1), ("b.png", grey_png(0), 0)]
    data = save_shard(tmp_path / "data", examples, {DEFAULT_TASK: ("brand new", "dark")})
    with caplog.at_level(logging.WARNING):
        found = evaluate(model_dir, data, str(tmp_path / "out"), batch_size=2)
    assert (found["accuracy"], found["unknown_labels"]) == (0.5, ["brand new"])
    assert "brand new" in caplog.text
    assert predictions(tmp_path / "out")[1]["label_score"] == "0.0"


def test_data_of_other_classes_altogether_is_refused(model_dir, tmp_path):
    data = save_shard(tmp_path / "data", [("a.png", grey_png(0), 0)], {DEFAULT_TASK: ("cat", "dog")})
    with pytest.raises(DataError, match=r"knows none of the data's classes.*cat, dog.*dark, middle, light"):
        evaluate(model_dir, data, str(tmp_path / "out"), batch_size=2)


@pytest.mark.parametrize(
    ("model_tasks", "data_tasks", "message"),
    [
        (
            [Task("age", LABELS), Task("mood", LABELS)],
            [Task("age", LABELS)],
            "model predicts mood, for which .* no labels",
        ),
        ([Task("price", ())], [Task("label", LABELS)], "model predicts price as a number.*dark, middle, light"),
    ],
    ids=["no labels", "classes instead of numbers"],
)
def test_data_that_does_not_fit_the_models_tasks_is_refused(model_tasks, data_tasks, message):
    with pytest.raises(DataError, match=message):
        create_scorers(model_tasks, data_tasks)


def test_a_class_id_without_a_name_is_refused_with_the_image(model_dir, tmp_path):
    data = save_shard(tmp_path / "data", [("good.png", grey_png(0), 0), ("odd.png", grey_png(0), 7)], TASKS)
    with pytest.raises(DataError, match=r"odd\.png.*Received: 7.*Expected: 0 to 2"):
        evaluate(model_dir, data, str(tmp_path / "out"), batch_size=2)


def test_images_that_cannot_be_decoded_are_named_one_by_one(model_dir, tmp_path):
    broken = [("bad1.png", b"not an image", 0), ("fine.png", grey_png(0), 0), ("bad2.png", grey_png(1)[:40], 0)]
    data = save_shard(tmp_path / "data", [*GREYS, *broken, *GREYS], TASKS)
    with pytest.raises(DataError, match=r"cannot classify bad1\.png, bad2\.png\. Received"):
        evaluate(model_dir, data, str(tmp_path / "out"), batch_size=4)


def test_a_failed_evaluation_leaves_the_previous_result_in_place_and_nothing_else(model_dir, tmp_path):
    good, bad = save_shard(tmp_path / "good", GREYS, TASKS), save_shard(tmp_path / "bad", [("x.png", b"x", 0)], TASKS)
    out = tmp_path / "results" / "out"
    evaluate(model_dir, good, str(out), batch_size=2)
    before = (out / "metrics.json").read_bytes()
    with pytest.raises(DataError):
        evaluate(model_dir, bad, str(out), batch_size=2)
    assert (out / "metrics.json").read_bytes() == before
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_a_shard_that_was_cut_off_is_refused(model_dir, tmp_path):
    data = save_shard(tmp_path / "data", GREYS, TASKS)
    shard = Path(data.shard_paths(EVAL)[0])
    shard.write_bytes(shard.read_bytes()[:-5])
    with pytest.raises(DataError, match=r"shards cannot be read.*Build the data set again"):
        evaluate(model_dir, data, str(tmp_path / "out"), batch_size=2)


def test_a_shard_with_fewer_examples_than_the_manifest_records_is_refused(model_dir, tmp_path):
    data = save_shard(tmp_path / "data", GREYS, TASKS)
    split = data.splits[EVAL]
    data = replace(data, splits={EVAL: replace(split, shards=(replace(split.shards[0], examples=5),))})
    with pytest.raises(DataError, match=r"Received: 4.*Expected: 5"):
        evaluate(model_dir, data, str(tmp_path / "out"), batch_size=2)


def test_data_without_an_evaluation_split_is_refused(model_dir, tmp_path):
    data = save_shard(tmp_path / "data", GREYS, TASKS)
    with pytest.raises(DataError, match="no evaluation examples"):
        evaluate(model_dir, replace(data, splits={TRAIN: data.splits[EVAL]}), str(tmp_path / "out"), batch_size=2)


def test_a_model_whose_scores_are_not_finite_is_refused(tmp_path):
    class Diverged(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
        def serve(self, image_bytes):
            size = tf.shape(image_bytes)[0]
            return {"scores": tf.fill([size, 3], np.nan), "classes": tf.tile([list(LABELS)], [size, 1])}

    model = Path(save_model(tmp_path / "model", TASKS))
    module = Diverged()
    tf.saved_model.save(module, str(model / "saved_model"), signatures={"serving_default": module.serve})
    with pytest.raises(DataError, match=r"scores are not finite.*a\.png, b\.png"):
        evaluate(str(model), save_shard(tmp_path / "data", GREYS, TASKS), str(tmp_path / "out"), batch_size=4)


def test_a_folder_that_is_not_a_model_is_refused_for_what_it_lacks(model_dir, tmp_path):
    data = save_shard(tmp_path / "data", GREYS, TASKS)

    def refused(folder: Path, error: type[Exception], match: str) -> None:
        with pytest.raises(error, match=match):
            evaluate(str(folder), data, str(tmp_path / "out"), batch_size=2)

    refused(tmp_path / "nowhere", FlagError, "does not exist")
    refused(tmp_path / "data", DataError, r"model\.json not found")
    (tmp_path / "model.json").write_text('{"tasks": [{"name": "label"}]}')
    refused(tmp_path, DataError, "labels_file")
    (tmp_path / "model.json").write_text((Path(model_dir) / "model.json").read_text())
    refused(tmp_path, DataError, "labels file does not exist")
    (tmp_path / "labels.txt").write_text("dark\nmiddle\nlight\n")
    refused(tmp_path, DataError, "has no SavedModel")
    (tmp_path / "saved_model").mkdir()
    (tmp_path / "saved_model" / "saved_model.pb").write_bytes(b"no graph")
    refused(tmp_path, DataError, "SavedModel cannot be loaded")


def test_a_saved_model_with_another_signature_is_refused(tmp_path):
    model = save_model(tmp_path / "model", {"age": LABELS, "mood": LABELS})
    facts = json.loads((tmp_path / "model" / "model.json").read_text())
    (tmp_path / "model" / "model.json").write_text(json.dumps({**facts, "tasks": facts["tasks"][:1]}))
    with pytest.raises(
        DataError,
        match=r"lacks the serving signature.*age_classes.*Expected: serving_default: image_bytes -> classes, scores",
    ):
        evaluate(model, save_shard(tmp_path / "data", GREYS, TASKS), str(tmp_path / "out"), batch_size=2)


def test_a_labels_file_that_does_not_match_the_saved_model_is_refused(tmp_path):
    model = save_model(tmp_path / "model", TASKS)
    (tmp_path / "model" / "labels.txt").write_text("light\nmiddle\ndark\n")
    with pytest.raises(DataError, match="class names of the SavedModel differ from those of the labels file"):
        evaluate(model, save_shard(tmp_path / "data", GREYS, TASKS), str(tmp_path / "out"), batch_size=2)


def test_several_tasks_have_metrics_columns_and_a_section_each(tmp_path):
    tasks = {"age": ("young", "old"), "shade": LABELS, "weight": ()}
    model = save_model(tmp_path / "model", tasks)
    examples = [
        ("a.png", grey_png(0), {"age": 0, "shade": 0, "weight": 0}),
        ("b.png", grey_png(1), {"age": 0, "shade": -1, "weight": 3}),
    ]
    found = evaluate(model, save_shard(tmp_path / "data", examples, tasks), str(tmp_path / "out"), batch_size=2)
    assert found["num_examples"] == 2
    assert found["tasks"]["age"]["accuracy"] == 0.5
    assert (found["tasks"]["shade"]["accuracy"], found["tasks"]["shade"]["unlabelled"]) == (1, 1)
    assert found["tasks"]["weight"]["loss"] == pytest.approx(2)
    row = predictions(tmp_path / "out")[1]
    expected = {"age_label": "young", "age_predicted": "old", "shade_label": "", "weight_label": "3.0"}
    expected["weight_predicted"] = "1.0"
    assert {name: row[name] for name in expected} == expected
    report = (tmp_path / "out" / "report.html").read_text()
    assert all(f"Task {task}" in report for task in tasks)


class Spec(EstimatorSpec):
    """Metrics of one's own; nothing else of it is used."""

    def __init__(self) -> None:
        self.keras_accuracy = keras.metrics.CategoricalAccuracy()

    def get_preproc_fn(self, is_training):
        raise AssertionError("an evaluation scores the SavedModel: it builds no preprocessing and no network")

    def get_model_fn(self, checkpoint_path):
        raise AssertionError("an evaluation scores the SavedModel: it builds no preprocessing and no network")

    def metric_ops(self, labels, predictions):
        assert self.class_dict == [{"name": DEFAULT_TASK, "depth": 3, "one-hot": True}]
        self.keras_accuracy.update_state(labels[DEFAULT_TASK], predictions[DEFAULT_TASK]["probabilities"])
        distance = tf.abs(tf.argmax(labels[DEFAULT_TASK], axis=1) - predictions[DEFAULT_TASK]["class_id"])
        return {
            "keras": self.keras_accuracy,
            "distance": distance,
            "cross_entropy": tf.nn.softmax_cross_entropy_with_logits(
                labels[DEFAULT_TASK], predictions[DEFAULT_TASK]["logits"]
            ),
        }


def test_metrics_of_a_spec_are_averaged_over_examples_or_kept_by_keras(model_dir, tmp_path):
    data = save_shard(tmp_path / "data", GREYS, TASKS)
    spec = Spec()
    for name in ("one", "two"):  # the second time it starts afresh
        found = evaluate(model_dir, data, str(tmp_path / name), batch_size=3, spec=spec)
        assert found["user_metrics"]["keras"] == pytest.approx(0.75)
        assert found["user_metrics"]["distance"] == pytest.approx(0.5)
        assert found["user_metrics"]["cross_entropy"] == pytest.approx(found["loss"], rel=1e-5)
    assert "cross_entropy" in (tmp_path / "one" / "report.html").read_text()


def test_an_invalid_value_of_metric_ops_is_refused_by_name(model_dir, tmp_path):
    class Wrong(Spec):
        def metric_ops(self, labels, predictions):
            return {"mine": tf.constant(0.5)}

    with pytest.raises(UserError, match=r"metric_ops of Wrong.*mine.*Expected: one number per example, \[3\]"):
        evaluate(
            model_dir, save_shard(tmp_path / "data", GREYS, TASKS), str(tmp_path / "out"), batch_size=3, spec=Wrong()
        )
