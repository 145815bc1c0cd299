from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.evaluate.brightness import grey_png, save_shard
from tf_image_classification.data.manifest import DEFAULT_TASK


def evaluate(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tf_image_classification.evaluate", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """A folder of grey images, one of them in the wrong class and one not an image."""
    root = tmp_path_factory.mktemp("greys")
    for name, label, level in (("a", "dark", 0), ("b", "middle", 0.5), ("c", "light", 1), ("d", "dark", 1)):
        (root / label).mkdir(exist_ok=True)
        (root / label / f"{name}.png").write_bytes(grey_png(level))
    (root / "dark" / "broken.png").write_bytes(b"not an image")
    return root


def test_a_folder_of_images_is_evaluated(model_dir, images, tmp_path):
    done = evaluate(
        "--model", model_dir, "--eval_metadata", images, "--output_dir", tmp_path / "out", "--eval_batch_size", 3
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "out" / "report.html")
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (metrics["num_examples"], metrics["accuracy"], metrics["data"]["rejected"]) == (4, 0.75, 1)
    with open(tmp_path / "out" / "predictions.csv", newline="") as file:
        assert {row["filename"]: row["predicted"] for row in csv.DictReader(file)} == {
            "dark/a.png": "dark", "middle/b.png": "middle", "light/c.png": "light", "dark/d.png": "light",
        }  # fmt: skip


def test_a_csv_is_evaluated_relative_to_the_image_root_with_the_users_metrics(model_dir, images, tmp_path):
    (tmp_path / "eval.csv").write_text("dark/a.png,dark\nlight/c.png,light\n")
    (tmp_path / "my_estimator.py").write_text(
        "import tensorflow as tf\n"
        "from tf_image_classification.estimator_specs import EstimatorSpec\n"
        "class Mine(EstimatorSpec):\n"
        "    def get_preproc_fn(self, is_training): ...\n"
        "    def get_model_fn(self, checkpoint_path): ...\n"
        "    def metric_ops(self, labels, predictions):\n"
        "        return {'ids': predictions['label']['class_id']}\n"
    )
    command = [
        sys.executable, "-m", "tf_image_classification.evaluate", "--model", model_dir, "--eval_metadata", "eval.csv",
        "--image_root", str(images), "--output_dir", "out", "--estimator", "my_estimator:Mine",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (metrics["accuracy"], metrics["user_metrics"]) == (1.0, {"ids": 1.0})


@pytest.mark.slow  # tests/evaluate/test_evaluate.py evaluates built data sets without a process each
def test_a_built_data_set_keeps_its_class_names(model_dir, tmp_path):
    save_shard(
        tmp_path / "data", [("a.png", grey_png(0), 1), ("b.png", grey_png(1), 0)], {DEFAULT_TASK: ("light", "dark")}
    )
    done = evaluate("--model", model_dir, "--eval_metadata", tmp_path / "data", "--output_dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["accuracy"] == 1


def test_wrong_calls_exit_with_2_before_tensorflow_is_imported(model_dir, images, tmp_path):
    out = ["--output_dir", tmp_path / "out"]
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "tensorflow.py").write_text("raise RuntimeError('imported')")
    paths = [str(tmp_path / "modules"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    for arguments, message in (
        (["--eval_metadata", images, *out], "--model is required"),
        (["--model", tmp_path / "none", "--eval_metadata", images, *out], "model folder does not exist"),
        (["--model", model_dir, "--eval_metadata", tmp_path / "none.csv", *out], "CSV does not exist"),
        (["--model", model_dir, "--eval_metadata", images, *out, "--eval_batch_size", 0], "--eval_batch_size"),
        (["--model", model_dir, "--eval_metadata", images, *out, "--batchsize", 1], "Unknown flag --batchsize"),
        (["--model", model_dir, "--eval_metadata", images, *out, "--split_column", "split"], "a folder has none"),
    ):
        done = evaluate(*arguments, env=environment)
        assert done.returncode == 2
        assert message in " ".join(done.stderr.split())
        assert done.stderr.count("error:") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_not_a_model_exits_with_1_and_one_paragraph(images, tmp_path):
    done = evaluate("--model", images, "--eval_metadata", images, "--output_dir", tmp_path / "out")
    assert done.returncode == 1
    assert "Not a model folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_disk_exits_with_1_and_leaves_nothing(model_dir, tmp_path):
    save_shard(
        tmp_path / "data",
        [(f"{'long' * 40}{i}.png", grey_png(0), 0) for i in range(500)],
        {DEFAULT_TASK: ("dark", "light")},
    )
    code = (
        "import resource, sys\n"
        "from tf_image_classification import command_line\n"
        "from tf_image_classification.evaluate.__main__ import _command\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n"
        "command_line.main(_command, sys.argv[1:])\n"
    )
    data, out = str(tmp_path / "data"), str(tmp_path / "results" / "out")
    arguments = ["--model", model_dir, "--eval_metadata", data, "--output_dir", out]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "The evaluation cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "results").iterdir()) == []
    answer = subprocess.run(
        [sys.executable, "-c", code.replace("60_000", "1_000"), *arguments], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 1
    assert "cannot be copied to a temporary folder" in answer.stderr and "TMPDIR" in answer.stderr
