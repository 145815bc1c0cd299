"""Images of classes that the model does not know are mistakes, whatever the form of the data."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from tests.build_tfrecords.records import write
from tests.conftest import SHARED_CASES
from tests.evaluate.brightness import grey_png, save_model, save_shard
from tests.evaluate.test_command import evaluate as command
from tf_image_classification import build_tfrecords
from tf_image_classification.build_tfrecords import ReadOptions, prepare
from tf_image_classification.data import manifest
from tf_image_classification.data.manifest import DEFAULT_TASK, Task
from tf_image_classification.errors import DataError
from tf_image_classification.evaluate import evaluate
from tf_image_classification.evaluate.served_model import read_tasks

KNOWN = ("dark", "middle", "light")
LEVELS = {"dark": 0.0, "middle": 0.5, "light": 1.0, "owl": 0.0}
CASES = SHARED_CASES / "tfrecord"


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two greys of each class that the model knows and three owls: as a folder, a CSV, TFRecords and a data set."""
    root = tmp_path_factory.mktemp("greys")
    names = [f"{name}/{index}.png" for name in LEVELS for index in range(3 if name == "owl" else 2)]
    labels = [name.partition("/")[0] for name in names]
    for name, label in zip(names, labels, strict=True):
        (root / "folder" / label).mkdir(parents=True, exist_ok=True)
        (root / "folder" / name).write_bytes(grey_png(LEVELS[label]))
    lines = [f"folder/{name},{label}" for name, label in zip(names, labels, strict=True)]
    (root / "images.csv").write_text("\n".join(lines))
    ids = {"owl": 0, "light": 1, "middle": 2, "dark": 3}  # not in the model's order
    examples = [
        {
            "image/encoded": grey_png(LEVELS[label]),
            "image/filename": name.encode(),
            "image/class/label": ids[label],
            "image/class/text": label.encode(),
        }
        for name, label in zip(names, labels, strict=True)
    ]
    records = write(root / "eval.tfrecord", examples)
    build_tfrecords.build(str(root / "folder"), str(root / "data"), eval_metadata=str(root / "folder"))
    folder, table = str(root / "folder"), str(root / "images.csv")
    return {"folder": folder, "CSV": table, "TFRecords": records, "data set": str(root / "data")}


def data_of(form: str, forms: dict[str, str], model_dir: str, tmp_path: Path) -> manifest.Manifest:
    """What the evaluate command evaluates."""
    if form == "data set":
        return manifest.read(forms[form])
    return prepare.prepare_evaluation(forms[form], read_tasks(model_dir), cache_dir=str(tmp_path / "cache"), workers=1)


@pytest.mark.parametrize("form", ["folder", "CSV", "TFRecords", "data set"])
def test_the_same_images_have_the_same_metrics_in_every_form(model_dir, forms, tmp_path, caplog, form):
    data = data_of(form, forms, model_dir, tmp_path)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        found = evaluate(model_dir, data, str(tmp_path / "out"), batch_size=4)
    assert (found["num_examples"], found["data"]["rejected"]) == (9, 0)
    assert found["accuracy"] == pytest.approx(6 / 9)
    assert found["known_class_accuracy"] == 1.0
    assert found["unknown_class_examples"] == {"owl": 3}
    assert found["labels"] == [*KNOWN, "owl"]
    assert found["confusion_matrix"] == [[2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0], [3, 0, 0, 0]]
    assert found["loss"] == pytest.approx(3 * 87.3365 / 9, rel=1e-3)  # the smallest score, as none is worse
    assert found["top_5_accuracy"] == pytest.approx(6 / 9)
    assert {row["name"]: row["recall"] for row in found["per_class"]}["owl"] == 0.0
    assert [curve["name"] for curve in found["curves"]] == list(KNOWN)
    assert "3 of 9 evaluation images are of classes that the model does not know (owl 3)" in caplog.text
    report = (tmp_path / "out" / "report.html").read_text()
    assert "does not know 1 of the data's classes; their 3 images count as mistakes: owl (3)" in report


def test_a_model_that_knows_the_class_is_compared_on_the_same_images(model_dir, forms, tmp_path):
    newer = save_model(tmp_path / "newer", {DEFAULT_TASK: (*KNOWN, "owl")})
    data = manifest.read(forms["data set"])
    champion = evaluate(model_dir, data, str(tmp_path / "champion"), batch_size=4)
    challenger = evaluate(newer, data, str(tmp_path / "challenger"), batch_size=4)
    assert champion["num_examples"] == challenger["num_examples"] == 9
    assert challenger["unknown_class_examples"] == {}
    assert "known_class_accuracy" not in challenger


def test_a_class_without_examples_is_no_unknown_class(model_dir, tmp_path, caplog):
    examples = [("a.png", grey_png(0), 0), ("b.png", grey_png(1), 2)]
    data = save_shard(tmp_path / "data", examples, {DEFAULT_TASK: ("dark", "phantom", "light")})
    found = evaluate(model_dir, data, str(tmp_path / "out"), batch_size=2)
    assert (found["labels"], found["unknown_class_examples"]) == (list(KNOWN), {})
    assert "does not know" not in caplog.text


def test_images_of_unknown_classes_alone_are_refused_before_they_are_read(model_dir, tmp_path):
    (tmp_path / "folder" / "owl").mkdir(parents=True)
    (tmp_path / "folder" / "owl" / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"knows none of the data's classes.*Received: owl\. Expected: dark, middle"):
        prepare.prepare_evaluation(str(tmp_path / "folder"), read_tasks(model_dir), cache_dir=str(tmp_path / "cache"))


def nameless(tmp_path: Path, ids: list[int], **names: str) -> str:
    image, label = names.get("image", "image/encoded"), names.get("label", "image/class/label")
    levels = {0: 0.0, 1: 0.5, 2: 1.0}
    examples = [{image: grey_png(levels.get(index, 0.0)), label: index} for index in ids]
    return write(tmp_path / "nameless.tfrecord", examples)


@pytest.mark.slow
def test_ids_without_names_are_announced_with_the_models_names(model_dir, tmp_path):
    call = ["--model", model_dir, "--eval_metadata", nameless(tmp_path, [0, 1, 2]), "--output_dir", tmp_path / "out"]
    done = command(*call)
    assert done.returncode == 0, done.stderr
    words = " ".join(done.stderr.split())
    assert "taken for positions in the model's classes, counted from 0: 0 = dark, 1 = middle, 2 = light" in words
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("ids", "problem"),
    [
        (
            [0, 1],
            r"do not name their classes.*2 in image/class/label: 0, 1\. Expected: 3, as the model's classes: dark",
        ),
        ([1, 2, 3], r"image/class/label 3.*class id from 0 to 2.*ids start at 1"),
        ([0, 1, 2, 7], r"image/class/label 7.*class id from 0 to 2"),
    ],
)
def test_ids_without_names_that_are_not_as_many_as_the_models_classes_are_refused(model_dir, tmp_path, ids, problem):
    with pytest.raises(DataError, match=problem):
        prepare.prepare_evaluation(nameless(tmp_path, ids), read_tasks(model_dir), cache_dir=str(tmp_path / "cache"))


@pytest.mark.slow
def test_fewer_ids_are_accepted_with_the_flag(model_dir, tmp_path):
    call = ["--model", model_dir, "--eval_metadata", nameless(tmp_path, [0, 1]), "--output_dir", tmp_path / "out"]
    assert command(*call, "--allow_missing_classes").returncode == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert [row["support"] for row in metrics["per_class"]] == [1, 1, 0]


def test_records_under_names_of_others_are_evaluated(model_dir, tmp_path):
    path = nameless(tmp_path, [0, 1, 2], image="image", label="label")
    names = ["--image_feature", "image", "--label_feature", "label"]
    done = command("--model", model_dir, "--eval_metadata", path, "--output_dir", tmp_path / "out", *names)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (("--label_feature", "label"), "--label_feature has no effect"),
        (("--max_side", 64), "--max_side does not reduce images in TFRecords"),
    ],
)
def test_what_takes_no_effect_beside_a_data_set_is_refused(given, problem, model_dir, forms, tmp_path):
    call = ["--model", model_dir, "--eval_metadata", forms["data set"], "--output_dir", tmp_path / "out"]
    done = command(*call, *given)
    assert done.returncode == 2
    assert problem in " ".join(done.stderr.split())


@pytest.mark.skipif(not CASES.exists(), reason="the shared cases are not here")
def test_the_shared_ids_without_names_are_mapped_in_words(tmp_path, caplog):
    tasks = (Task("label", ("blue", "green", "red")),)
    path = str(CASES / "ids_without_names" / "eval.tfrecord")
    build_tfrecords.build_eval(path, str(tmp_path / "data"), tasks, options=ReadOptions())
    assert "counted from 0: 0 = blue, 1 = green, 2 = red" in caplog.text
