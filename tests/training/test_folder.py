"""A training whose --model_dir is in a bucket."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
import tensorflow as tf

from tests.standin import bucket as standin
from tests.standin.faults import Fault
from tests.test_train_estimator import equal, train, weights_at
from tf_image_classification import storage, training_run
from tf_image_classification.checkpoints import state
from tf_image_classification.errors import CheckpointError, FlagError, TrainingError
from tf_image_classification.storage import mounts, paths
from tf_image_classification.training import folder as training_folder
from tf_image_classification.training import history

RUN = "gs://models/run"


@pytest.fixture
def service(monkeypatch, tmp_path) -> Iterator[standin.Buckets]:
    """An empty bucket `models`, and an own place for temporary folders."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with standin.Buckets("models") as service:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", service.url)
        yield service


def names(folder: str) -> list[str]:
    return [re.sub(r"events.*", "events", file.path.removeprefix(f"{folder}/")) for file in storage.walk(folder)]


def listed(folder: str) -> list[str]:
    return list(state.parse(storage.read_text(f"{folder}/checkpoint"), folder))


def downloads(service: standin.Buckets) -> list[str]:
    return [
        match[1] for request in service.requests if (match := re.search(r"/o/([^?]+)\?.*alt=media", unquote(request)))
    ]


def working_folders() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob("tfic-training-*"))


class Publisher:
    """A training in RUN as far as its folder is concerned: its state is one number."""

    def __init__(self, folder: training_folder.TrainingFolder) -> None:
        self.value = tf.Variable(0)
        self.folder = folder
        self.manager = tf.train.CheckpointManager(
            tf.train.Checkpoint(value=self.value),
            folder.local,
            max_to_keep=training_folder.CHECKPOINTS_KEPT,
            checkpoint_name=training_folder.CHECKPOINT_NAME,
        )

    def restore(self) -> int:
        """Takes over where the folder's last training was."""
        newest = self.manager.latest_checkpoint
        self.folder.fetch(newest)
        self.manager.checkpoint.restore(newest).assert_consumed()
        self.folder.claim()
        return int(self.value)

    def save(self, step: int) -> None:
        self.value.assign(step)
        self.folder.publish_checkpoint(self.manager.save(checkpoint_number=step))


def test_a_bucket_that_is_mounted_is_followed_in_the_same_way_and_keeps_its_checkpoints(
    service, built_data, training_flags, tmp_path, monkeypatch
):
    """As in a container of Vertex AI: a mount can be read, but knows no conditions, so that nothing is written through
    it."""
    train(built_data, training_flags(model_dir=RUN, train_steps=3))
    before = listed(RUN)
    mount = tmp_path / "gcs"
    for file in storage.walk("gs://models"):
        copy = mount / file.path.removeprefix("gs://")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(storage.read_bytes(file.path))
    (tmp_path / "mounts").write_text(f"gcsfuse {mount} fuse.gcsfuse rw 0 0\n")
    monkeypatch.setattr(paths, "GCS_MOUNT", f"{mount}/")
    monkeypatch.setattr(mounts, "TABLE", str(tmp_path / "mounts"))
    there = sorted(path for path in mount.rglob("*") if path.is_file())
    service.requests.clear()
    resumed = train(built_data, training_flags(model_dir=RUN, train_steps=5))
    assert resumed.steps_made == 2
    assert sorted(path for path in mount.rglob("*") if path.is_file()) == there
    assert not [name for name in downloads(service) if ".data-" in name]  # read through the mount
    content, _ = storage.read_version(f"{RUN}/checkpoint")
    assert list(state.parse((content or b"").decode(), RUN)) == [*before, "model.ckpt-5"]


def test_a_training_in_a_bucket_equals_one_on_disk_and_leaves_the_same_files(
    service, built_data, training_flags, tmp_path
):
    options = {"eval_throttle_secs": 0, "train_steps": 7}
    local = train(built_data, training_flags(model_dir=str(tmp_path / "model"), **options))
    remote = train(built_data, training_flags(model_dir=RUN, **options))
    assert remote.model_dir == RUN
    assert remote.export_dir == f"{RUN}/export"
    assert remote.metrics == local.metrics
    assert equal(weights_at(RUN), weights_at(local.model_dir))
    assert sorted(names(RUN)) == sorted(names(local.model_dir))
    assert listed(RUN) == listed(local.model_dir)
    assert history.read_history(RUN) == history.read_history(local.model_dir)
    facts = [
        json.loads(storage.read_text(storage.join(outcome.export_dir, "model.json"))) for outcome in (local, remote)
    ]
    assert facts[0]["digest"] == facts[1]["digest"]
    assert facts[1]["flags"]["model_dir"] == RUN
    assert not working_folders()


def test_a_training_goes_on_elsewhere_and_fetches_the_newest_checkpoint_alone(
    service, built_data, training_flags, tmp_path
):
    whole = train(built_data, training_flags(model_dir=str(tmp_path / "whole"), train_steps=9))
    train(built_data, training_flags(model_dir=RUN, train_steps=5, eval_throttle_secs=0))
    service.requests.clear()
    outcome = train(built_data, training_flags(model_dir=RUN, train_steps=9))
    fetched = {name for name in downloads(service) if "ckpt" in name}
    assert fetched == {"run/model.ckpt-5.data-00000-of-00001", "run/model.ckpt-5.index"}
    assert outcome.steps_made == 4
    assert equal(weights_at(RUN), weights_at(whole.model_dir))
    assert [entry["step"] for entry in history.read_history(RUN) if entry["kind"] == "train"] == list(range(1, 10))


@pytest.mark.slow
def test_a_resumed_training_still_records_its_warm_start_with_its_version(
    service, built_data, training_flags, tmp_path
):
    first = train(built_data, training_flags(model_dir=str(tmp_path / "first"), train_steps=1))
    for steps in (2, 4):
        outcome = train(
            built_data,
            training_flags(model_dir=RUN, train_steps=steps, checkpoint_path=first.export_dir),
            checkpoint_version="v1",
        )
    warm_start = json.loads(storage.read_text(f"{outcome.export_dir}/model.json"))["warm_start"]
    assert (warm_start["checkpoint"], warm_start["version"]) == (first.export_dir, "v1")


@pytest.mark.slow
def test_the_pipeline_step_keeps_its_checkpoints_in_the_bucket_and_hands_on_curves_and_summaries(
    service, built_data, training_flags, tmp_path
):
    def step(steps: int) -> str:
        outputs = training_run.Outputs(*(str(tmp_path / name) for name in ("model_out", "logs", "curves.html")))
        flags = training_flags(model_dir=None, train_steps=steps)
        training_run.train(built_data.folder, flags, outputs, pipeline_root="gs://models/root", checkpoint_version="")
        return flags.model_dir

    folder = step(3)
    assert folder.startswith("gs://models/root/checkpoints/")
    assert step(5) == folder
    assert step(4) == f"{folder}-4"
    assert step(5) == folder
    assert sorted(names(str(tmp_path / "logs"))) == ["eval/events"] * 3 + ["events"] * 2
    assert (tmp_path / "curves.html").read_text().count("<svg") == 3


def test_a_damaged_newest_checkpoint_in_a_bucket_is_passed_over_for_the_one_before(
    service, built_data, training_flags, caplog
):
    flags = training_flags(model_dir=RUN, eval_throttle_secs=0, train_steps=3)
    train(built_data, flags)
    newest = f"{RUN}/model.ckpt-3.data-00000-of-00001"
    content = storage.read_bytes(newest)
    for damaged in (content[: len(content) // 2], None):
        if damaged is None:
            storage.delete(newest)
        else:
            storage.write_bytes(newest, damaged)
        caplog.clear()
        assert train(built_data, flags).steps_made == 1
        assert f"damaged checkpoint {RUN}/model.ckpt-3" in caplog.text
        assert storage.read_bytes(newest) == content


def test_checkpoints_in_a_bucket_that_are_all_damaged_are_an_error_not_a_new_start(service, built_data, training_flags):
    flags = training_flags(model_dir=RUN, train_steps=2)
    train(built_data, flags)
    for step in (0, 2):
        storage.write_bytes(f"{RUN}/model.ckpt-{step}.data-00000-of-00001", b"")
    with pytest.raises(CheckpointError, match=rf"No checkpoint in {RUN} can be read"):
        train(built_data, flags)
    storage.write_bytes(f"{RUN}/checkpoint", b"nonsense")
    with pytest.raises(CheckpointError, match=rf"{RUN}/checkpoint names no checkpoint"):
        train(built_data, flags)


def test_the_newest_five_checkpoints_stay_and_what_a_killed_training_left_goes(service):
    storage.write_bytes(f"{RUN}/model.ckpt-3.data-00000-of-00001", b"never listed")
    storage.write_bytes(f"{RUN}/notes.txt", b"not ours")
    with training_folder.open_folder(RUN) as folder:
        training = Publisher(folder)
        for step in range(5, 13):
            training.save(step)
            folder.finish()
    assert listed(RUN) == [f"model.ckpt-{step}" for step in range(8, 13)]
    files = [f"model.ckpt-{step}.{kind}" for step in range(8, 13) for kind in ("data-00000-of-00001", "index")]
    assert sorted(names(RUN)) == sorted(["checkpoint", "notes.txt", *files])


def test_whatever_is_listed_is_there_at_every_moment(service):
    with training_folder.open_folder(RUN) as folder:
        training = Publisher(folder)
        for step in range(8):
            training.save(step)
            folder.finish()
    there: set[str] = set()
    for change in service.changes:
        if change.crc32c:
            there.add(change.path)
        else:
            there.discard(change.path)
        if change.path == f"{RUN}/checkpoint":
            newest = max(int(re.search(r"-(\d+)", path)[1]) for path in there if path.endswith(".index"))
            assert {f"{RUN}/model.ckpt-{newest}.index", f"{RUN}/model.ckpt-{newest}.data-00000-of-00001"} <= there


def test_training_does_not_wait_for_uploads_and_the_newest_checkpoint_gets_there(service):
    service.faults.append(Fault("stalled", "POST", "upload", seconds=1.0))
    with training_folder.open_folder(RUN) as folder:
        training = Publisher(folder)
        for step in range(20):
            training.save(step)
        assert f"{RUN}/checkpoint" not in [change.path for change in service.changes]
    assert listed(RUN)[-1] == "model.ckpt-19"


def test_of_two_trainings_that_start_afresh_the_second_to_save_stops(service):
    with (
        pytest.raises(TrainingError, match=rf"Another training has taken over {RUN}"),
        training_folder.open_folder(RUN) as lost,
    ):
        with training_folder.open_folder(RUN) as winner:
            Publisher(winner).save(1)
        Publisher(lost).save(2)
    assert listed(RUN) == ["model.ckpt-1"]
    assert not working_folders()


def test_a_training_that_another_one_goes_on_from_stops_at_its_next_checkpoint(service):
    with pytest.raises(TrainingError, match="Another training has taken over"), training_folder.open_folder(RUN) as old:
        lost = Publisher(old)
        lost.save(5)
        old.finish()
        with training_folder.open_folder(RUN) as new:
            training = Publisher(new)
            assert training.restore() == 5
            before = len(service.changes)
            lost.save(6)
            old._worker.wait()
            assert len(service.changes) == before  # it has seen that it is no longer alone, and written nothing
            training.save(7)
    assert listed(RUN) == ["model.ckpt-5", "model.ckpt-7"]


def test_two_trainings_that_go_on_from_the_same_checkpoint_at_once_do_not_both(service):
    with training_folder.open_folder(RUN) as folder:
        Publisher(folder).save(5)
    with (
        training_folder.open_folder(RUN) as one,
        pytest.raises(TrainingError, match="Another training"),
        training_folder.open_folder(RUN) as two,
    ):
        first, second = Publisher(one), Publisher(two)
        first.restore()
        second.restore()


def test_a_bucket_that_does_not_exist_is_named_before_training(service, built_data, training_flags):
    with pytest.raises(FlagError, match=r"bucket of --model_dir does not exist.*gs://no-such-bucket/models"):
        train(built_data, training_flags(model_dir="gs://no-such-bucket/models"))


def refuse_uploads_later(service: standin.Buckets, changes: int) -> None:
    """Takes the right to write away once RUN's list of checkpoints has changed so many times."""

    def watch() -> None:
        while [change.path for change in list(service.changes)].count(f"{RUN}/checkpoint") < changes:
            time.sleep(0.001)
        service.faults.append(Fault("refused", "POST", "upload", times=10**6, code=403))

    threading.Thread(target=watch, daemon=True).start()


@pytest.mark.slow
def test_an_upload_that_fails_for_good_ends_the_training_and_the_local_folder_goes_on(
    service, built_data, training_flags, tmp_path
):
    refuse_uploads_later(service, 3)
    with pytest.raises(TrainingError, match=rf"cannot be uploaded to {RUN}") as caught:
        train(built_data, training_flags(model_dir=RUN, train_steps=10**6, save_checkpoints_secs=1e-6))
    (kept,) = working_folders()
    newest = state.latest(str(kept))
    assert f"kept in {kept}, with {newest} as the newest checkpoint" in str(caught.value)
    step = int(newest.rpartition("-")[2])
    whole, goes_on = (
        training_flags(model_dir=folder, train_steps=step + 3) for folder in (str(tmp_path / "whole"), str(kept))
    )
    train(built_data, whole)
    assert train(built_data, goes_on).steps_made == 3
    assert equal(weights_at(whole.model_dir), weights_at(goes_on.model_dir))


# The command


def command(model_dir: str, data: str, steps: int, *more: str) -> list[str]:
    return [
        *(
            sys.executable,
            "-m",
            "tf_image_classification.train_estimator",
            "--train_metadata",
            data,
            "--model_dir",
            model_dir,
        ),
        *("--image_size", "16", "--batch_size", "8", "--seed", "7", "--train_steps", str(steps), *more),
    ]


def digest(export: str) -> str:
    return json.loads(storage.read_text(f"{export}/model.json"))["digest"]


@pytest.fixture
def data(service, built_data) -> str:
    """The built data set in the bucket."""
    standin.fill(service.url, "models", "data", Path(built_data.folder))
    return "gs://models/data"


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
def test_a_training_that_is_killed_at_any_moment_goes_on_elsewhere_bit_identically(service, data, tmp_path):
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
            made = [change.path + ("" if change.crc32c else " removed") for change in service.changes[seen:]]
            return sum(re.search(moment, path) is not None for path in made)

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
def test_the_command_says_in_a_paragraph_that_the_bucket_can_no_longer_be_written(service, data):
    refuse_uploads_later(service, 1)
    more = ["--save_checkpoints_secs", "1e-6"]
    answer = subprocess.run(command(RUN, data, 10**6, *more), capture_output=True, text=True, check=False, timeout=120)
    assert answer.returncode == 1
    message = " ".join(answer.stderr.partition("error: ")[2].split())
    assert message.startswith(f"The training's files cannot be uploaded to {RUN}.")
    assert re.search(r"kept in \S+, with \S+model\.ckpt-\d+ as the newest", message)
    assert "Traceback" not in answer.stderr
