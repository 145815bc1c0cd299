"""The project's pipeline on Kubeflow with everything in S3 or MinIO: killed in the middle of training, and resumed."""

from __future__ import annotations

import json
import re
import time

import pytest

from tests.standin import s3
from tests.standin.kubeflow import Kubeflow
from tf_image_classification import storage

ROOT = "s3://mlpipeline/runs"
FLAGS = {
    "batch_size": 8,
    "train_steps": 300,
    "save_checkpoints_secs": 0.3,
    "image_size": 16,
    "seed": 7,
    "learning_rate": 0.01,
}


def listed(pattern: str) -> list[str]:
    return [file.path for file in storage.walk("s3://mlpipeline") if re.search(pattern, file.path)]


@pytest.fixture
def service(monkeypatch):
    with s3.S3("mlpipeline") as service:
        monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
        for name, value in s3.environment(service.url).items():
            monkeypatch.setenv(name, value)
        yield service


@pytest.mark.slow
def test_the_pipeline_on_s3_continues_from_the_checkpoint_at_which_its_training_was_killed(
    service, tmp_path, command, image_folder
):
    s3.fill(service.url, "mlpipeline", "photos/dt=2026-11-01", image_folder)
    kubeflow = Kubeflow(tmp_path / "kubeflow")
    kubeflow.start()
    options = ["--backend", "kubeflow", "--host", kubeflow.url, "--pipeline_root", ROOT, "--augmentation", "none"]
    options += ["--train_metadata", "s3://mlpipeline/photos/dt={date}", "--champion", "s3://mlpipeline/service"]
    options += [f"--{name}={value}" for name, value in FLAGS.items()]
    try:
        started = command("submit", *options, "--run_id", "first")
        assert started.returncode == 0, started.stderr
        deadline = time.monotonic() + 300
        while not listed(r"checkpoints/.*model\.ckpt-[1-9]\d+\.index"):
            assert time.monotonic() < deadline, logs_of(kubeflow)
            time.sleep(0.2)
        (first,) = kubeflow.runs
        kubeflow.runner.cancel(first)
        kubeflow.join()
        (checkpoint,) = listed("checkpoints/[^/]*/checkpoint$")
        newest = max(map(int, re.findall(r"ckpt-(\d+)", storage.read_text(checkpoint))))
        assert 0 < newest < FLAGS["train_steps"]
        rerun = command("runs", "rerun", "first", *options[:4], "--run_id", "second", "--wait")
        assert rerun.returncode == 0, rerun.stderr + logs_of(kubeflow)
        (second,) = kubeflow.runs.keys() - {first}
    finally:
        kubeflow.stop()
    log = (kubeflow.runner.folder / "logs" / f"{second}.log").read_text()
    assert re.search(rf"Continuing from .*model.ckpt-{newest}\b", log), log[-3000:]
    (history,) = listed(r"checkpoints/.*history\.jsonl")
    steps = [json.loads(line)["step"] for line in storage.read_text(history).splitlines() if '"train"' in line]
    assert steps == list(range(steps[0], FLAGS["train_steps"] + 1, steps[0]))  # each once, none left out
    (report,) = listed("evaluation/report.html$")
    assert report.startswith(f"{ROOT}/") and "<html" in storage.read_text(report)
    pointer = json.loads(storage.read_text("s3://mlpipeline/service/champion.json"))
    assert storage.exists(f"s3://mlpipeline/service/{pointer['model']}/saved_model/saved_model.pb")
    assert service.unfinished_uploads("mlpipeline") == 0


def logs_of(kubeflow: Kubeflow) -> str:
    return "".join(log.read_text()[-20000:] for log in sorted((kubeflow.runner.folder / "logs").iterdir()))
