"""The training command with --model_dir in a bucket, killed and stopped."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.standin import bucket as standin
from tests.standin.bucket_rules import Rules
from tests.training.support import RUN, command, digest, listed, names, refuse_uploads_later
from tf_image_classification import storage
from tf_image_classification.storage import gcs_client


@pytest.mark.slow
def test_the_command_trains_with_everything_in_a_bucket(data, tmp_path):
    first = subprocess.run(command("gs://models/first", data, 2), capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stderr
    assert first.stdout.strip() == "gs://models/first/export"
    assert " W " not in first.stderr  # for example of AutoGraph, about what it cannot convert
    more = ["--checkpoint_path", "gs://models/first/export", "--trainable_scopes", "Small/Logits"]
    remote = subprocess.run(command(RUN, data, 4, *more), capture_output=True, text=True, check=False)
    assert remote.returncode == 0, remote.stderr
    local = subprocess.run(
        command(str(tmp_path / "model"), data, 4, *more), capture_output=True, text=True, check=False
    )
    assert digest(f"{RUN}/export") == digest(str(tmp_path / "model" / "export"))
    assert not [path for path in Path(tempfile.gettempdir()).iterdir() if path.name.startswith("tfic-")], local.stderr


@pytest.mark.slow
def test_a_training_that_is_killed_at_any_moment_continues_elsewhere_bit_identically(service, data, tmp_path):
    more = ["--save_checkpoints_secs", "1e-6", "--eval_throttle_secs", "1"]
    whole = subprocess.run(command(str(tmp_path / "whole"), data, 120), capture_output=True, text=True, check=False)
    assert whole.returncode == 0, whole.stderr
    # While a checkpoint is uploaded, when its files are there but not listed, when it is listed, and while old ones are
    # removed.
    for number, moment in enumerate(
        [r"ckpt-\d+\.data", r"ckpt-\d+\.index", r"run/checkpoint", r"ckpt.*removed", "eval/events"]
    ):
        seen = len(service.changes)
        process = subprocess.Popen(command(RUN, data, 120, *more), stderr=subprocess.DEVNULL)

        def times(moment: str = moment, seen: int = seen) -> int:
            changes = [change.path + ("" if change.crc32c else " removed") for change in service.changes[seen:]]
            return sum(re.search(moment, path) is not None for path in changes)

        while process.poll() is None and times() < 2 + number:
            time.sleep(0.001)
        assert process.poll() is None, "it ended before it could be killed"
        process.kill()
        process.wait()
        shutil.rmtree(tempfile.gettempdir())  # nothing local outlives the machine
        os.mkdir(tempfile.gettempdir())
        assert listed(RUN)
    last = subprocess.run(command(RUN, data, 120), capture_output=True, text=True, check=False)
    assert last.returncode == 0, last.stderr
    assert "Continuing from" in last.stderr
    assert digest(f"{RUN}/export") == digest(str(tmp_path / "whole" / "export"))
    assert len([name for name in names(RUN) if name.startswith("model.ckpt") and name.endswith(".index")]) <= 5


@pytest.mark.slow
def test_sigterm_uploads_a_checkpoint_before_the_process_ends(service, data):
    process = subprocess.Popen(command(RUN, data, 1_000_000), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "Step 100 " in line:
            break
    process.send_signal(signal.SIGTERM)
    errors = process.stderr.read()
    assert process.wait(timeout=60) == 128 + signal.SIGTERM, errors
    step = int(listed(RUN)[-1].rpartition("-")[2])
    assert step >= 100
    assert f"Stopped by SIGTERM at step {step}" in errors


@pytest.mark.slow
def test_the_command_reports_in_a_paragraph_that_the_bucket_can_no_longer_be_written(service, data):
    refuse_uploads_later(service, 1)
    more = ["--save_checkpoints_secs", "1e-6"]
    answer = subprocess.run(command(RUN, data, 10**6, *more), capture_output=True, text=True, check=False, timeout=120)
    assert answer.returncode == 1
    message = " ".join(answer.stderr.partition("error: ")[2].split())
    assert message.startswith(f"The training's files cannot be uploaded to {RUN}.")
    assert re.search(r"kept in \S+, with \S+model\.ckpt-\d+ as the newest", message)
    assert "Traceback" not in answer.stderr


@pytest.mark.slow
def test_every_request_of_every_command_and_step_names_the_billing_project(service, data, image_folder, monkeypatch):
    from components.register.component import register
    from components.resolve.component import resolve

    standin.fill(service.url, "models", "photos", image_folder)
    monkeypatch.setenv(gcs_client.BILLING_VARIABLE, "")
    service.rules = Rules(payers=("payer",))
    package = f"{sys.executable} -m tf_image_classification"
    build = f"{package}.build_tfrecords --train_metadata gs://models/photos --output_dir gs://models/built".split()
    evaluate = f"{package}.evaluate --model {RUN}/export --eval_metadata {data} --output_dir gs://models/e".split()
    for words in (build, command(RUN, "gs://models/built", 2), evaluate):
        refused = subprocess.run(words, capture_output=True, text=True, check=False)
        assert refused.returncode != 0
        assert "--billing_project" in refused.stderr
        done = subprocess.run([*words, "--billing_project", "payer"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    flags = {"champion": "gs://models/service", "billing_project": "payer"}
    resolved = resolve.python_func(train_metadata="gs://models/built", model_name="small", **flags)
    assert resolved[0] == "gs://models/built"
    artifacts = {
        "model": SimpleNamespace(path=f"{RUN}/export", uri=f"{RUN}/export"),
        "evaluation": SimpleNamespace(path="gs://models/e"),
        "registered": SimpleNamespace(path=f"{tempfile.gettempdir()}/registered", metadata={}),
    }
    register.python_func(**artifacts, in_service="", reason="accuracy is 0.9", run="run-1", **flags)
    assert storage.exists("gs://models/service/champion.json")
