"""The pipeline on a set of people with two label columns: both tasks are trained, evaluated, served and reported."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow

AGES, GENDERS = {"young": 30, "adult": 120, "old": 220}, {"f": 40, "m": 210}


def picture(age: str, gender: str, random: np.random.Generator) -> Image.Image:
    """Red is the age, blue the gender."""
    pixels = random.normal((AGES[age], 0, GENDERS[gender]), 10, (16, 16, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype("uint8"))


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("people")
    random = np.random.default_rng(0)
    (folder / "images").mkdir()
    with open(folder / "people.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "age", "gender"])
        for number in range(90):
            age, gender = list(AGES)[number % 3], list(GENDERS)[number // 3 % 2]
            picture(age, gender, random).save(folder / "images" / f"{number}.png")
            writer.writerow([f"images/{number}.png", age, gender])
    command = [
        *(sys.executable, "-m", "pipelines", "run", "--runs_dir", str(folder / "runs")),
        *("--train_metadata", str(folder / "people.csv")),
        *("--image_size", "16", "--batch_size", "16", "--train_steps", "300", "--seed", "1"),
        *("--optimizer", "momentum", "--learning_rate", "0.05", "--learning_rate_decay_type", "fixed"),
    ]
    answer = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return folder / "runs" / "latest"


def test_both_tasks_are_learnt_and_measured(run_dir: Path) -> None:
    metrics = json.loads((run_dir / "evaluation" / "metrics.json").read_text())
    assert {name: len(task["per_class"]) for name, task in metrics["tasks"].items()} == {"age": 3, "gender": 2}
    assert min(task["accuracy"] for task in metrics["tasks"].values()) > 0.9


def test_the_report_has_a_section_and_the_predictions_have_columns_for_each_task(run_dir: Path) -> None:
    report = (run_dir / "evaluation" / "report.html").read_text()
    assert all(f"<h2>Task {task}</h2>" in report for task in ("age", "gender"))
    header = (run_dir / "evaluation" / "predictions.csv").read_text().splitlines()[0].split(",")
    assert {"filename", "age_label", "age_predicted", "gender_label", "gender_predicted"} <= set(header)


def test_both_tasks_are_served_with_their_class_names(run_dir: Path) -> None:
    served = tf.saved_model.load(str(run_dir / "model" / "saved_model")).signatures["serving_default"]
    image = picture("old", "f", np.random.default_rng(5))
    encoded = tf.io.encode_png(np.asarray(image))
    answer = {name: value.numpy()[0] for name, value in served(image_bytes=tf.stack([encoded])).items()}
    assert answer["age_classes"][answer["age_scores"].argmax()] == b"old"
    assert answer["gender_classes"][answer["gender_scores"].argmax()] == b"f"
    assert (run_dir / "model" / "labels.age.txt").read_text() == "adult\nold\nyoung\n"
    assert (run_dir / "model" / "labels.gender.txt").read_text() == "f\nm\n"
