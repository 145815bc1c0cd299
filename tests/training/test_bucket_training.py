"""A whole training whose --model_dir is in a bucket."""

from __future__ import annotations

import json

import pytest

from tests.training.support import (
    RUN,
    downloads,
    equal,
    listed,
    names,
    refuse_uploads_later,
    train,
    weights_at,
    working_folders,
)
from tf_image_classification import storage, training_run
from tf_image_classification.checkpoints import checkpoint_file
from tf_image_classification.errors import CheckpointError, FlagError, TrainingError
from tf_image_classification.storage import mounts, paths
from tf_image_classification.training import history


@pytest.mark.slow
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
    assert list(checkpoint_file.parse(content or b"", RUN)) == [*before, "model.ckpt-5"]


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_training_continues_elsewhere_and_fetches_the_newest_checkpoint_alone(
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
        outputs = training_run.TrainOutputs(
            *(str(tmp_path / name) for name in ("model_out", "logs", "curves.html", "augmentation.html"))
        )
        flags = training_flags(model_dir=None, train_steps=steps)
        training_run.train(built_data.folder, flags, outputs, pipeline_root="gs://models/root", checkpoint_version="")
        return flags.model_dir

    folder = step(3)
    assert folder.startswith("gs://models/root/checkpoints/")
    assert step(5) == folder
    assert step(4) == f"{folder}-4"
    assert step(5) == folder
    assert sorted(names(str(tmp_path / "logs"))) == ["eval/events"] * 3 + ["events"] * 2
    assert (tmp_path / "curves.html").read_text().count(
        "<svg"
    ) == 4  # loss, the same without regularisation, learning rate, accuracy
    assert "Augmented samples" in (tmp_path / "augmentation.html").read_text()


@pytest.mark.slow
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


def test_a_bucket_that_does_not_exist_is_named_before_training(service, built_data, training_flags):
    with pytest.raises(FlagError, match=r"bucket does not exist.*gs://no-such-bucket/models\."):
        train(built_data, training_flags(model_dir="gs://no-such-bucket/models"))


@pytest.mark.slow
def test_an_upload_that_fails_for_good_ends_the_training_which_continues_in_the_local_folder(
    service, built_data, training_flags, tmp_path
):
    refuse_uploads_later(service, 3)
    with pytest.raises(TrainingError, match=rf"cannot be uploaded to {RUN}") as caught:
        train(built_data, training_flags(model_dir=RUN, train_steps=10**6, save_checkpoints_secs=1e-6))
    (kept,) = working_folders()
    newest = checkpoint_file.latest(str(kept))
    assert f"kept in {kept}, with {newest} as the newest checkpoint" in str(caught.value)
    step = int(newest.rpartition("-")[2])
    whole, goes_on = (
        training_flags(model_dir=folder, train_steps=step + 3) for folder in (str(tmp_path / "whole"), str(kept))
    )
    train(built_data, whole)
    assert train(built_data, goes_on).steps_made == 3
    assert equal(weights_at(whole.model_dir), weights_at(goes_on.model_dir))
