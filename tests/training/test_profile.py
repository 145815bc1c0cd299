"""A trace of a few training steps: --profile."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from tests.training.support import RUN, equal, names, train, weights_at
from tf_image_classification import asynchronous_training, cluster, storage, train_estimator, training_hooks
from tf_image_classification import flags as flag_table
from tf_image_classification.cluster import Role
from tf_image_classification.errors import FlagError
from tf_image_classification.training.profile_hook import Profile
from tf_image_classification.training.training_folder import TrainingFolder
from tf_image_classification.training.workers import Wishes, Workers
from tf_image_classification.training_key import checkpoint_key_flags


@pytest.fixture(autouse=True)
def _quiet(caplog) -> None:
    caplog.set_level(logging.INFO)


def profiled_steps(folder: Path) -> list[int]:
    """The steps that are marked in the only trace in a folder, as TensorFlow's tools find them."""
    (file,) = folder.glob("plugins/profile/*/*.xplane.pb")
    steps = []
    for plane in xplane_pb2.XSpace.FromString(file.read_bytes()).planes:
        for line in plane.lines:
            for event in line.events:
                if plane.event_metadata[event.metadata_id].name == "train":
                    stats = {plane.stat_metadata[stat.metadata_id].name: stat for stat in event.stats}
                    if "_r" in stats:
                        steps.append(stats["step_num"].int64_value)
    return sorted(steps)


def said(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.endswith("profile_hook")]


def test_a_profile_has_five_steps_from_the_given_one_on(built_data, training_flags, caplog):
    flags = training_flags(train_steps=10, profile=4)
    train(built_data, flags)
    assert profiled_steps(Path(flags.model_dir)) == [4, 5, 6, 7, 8]
    (folder,) = Path(flags.model_dir, "plugins", "profile").iterdir()
    how = f"To open it: pip install xprof, then xprof --logdir {flags.model_dir}"
    assert said(caplog) == [f"Profile of steps 4 to 8: {folder}. {how}"]


@pytest.mark.slow
def test_a_training_with_a_profile_makes_the_same_model(built_data, training_flags, tmp_path):
    plain, profiled = str(tmp_path / "plain"), str(tmp_path / "profiled")
    train(built_data, training_flags(model_dir=plain))
    train(built_data, training_flags(model_dir=profiled, profile=2))
    assert equal(weights_at(plain), weights_at(profiled))


@pytest.mark.slow
def test_the_step_is_a_global_one_and_one_that_is_past_is_said(built_data, training_flags, caplog):
    flags = training_flags(train_steps=4)
    train(built_data, flags)
    train(built_data, training_flags(train_steps=6, profile=4))
    assert said(caplog) == ["No profile is recorded: the training goes on from step 4, past --profile 4"]
    assert not Path(flags.model_dir, "plugins").exists()
    train(built_data, training_flags(train_steps=9, profile=7))  # the first after the checkpoint, and to the end
    assert profiled_steps(Path(flags.model_dir)) == [7, 8, 9]
    train(built_data, training_flags(train_steps=9, profile=8))
    assert "Nothing to train or to profile: the checkpoint is at step 9, --train_steps is 9" in caplog.messages
    assert "The profile begins with the first step" in said(caplog)[-2]
    assert said(caplog)[-1].startswith("Profile of steps 7 to 9: ")


@pytest.mark.slow
def test_the_profile_of_a_training_in_a_bucket_is_uploaded(service, built_data, training_flags, caplog):
    train(built_data, training_flags(model_dir=RUN, profile=2))
    (file,) = [name for name in names(RUN) if name.startswith("plugins/")]
    assert file.startswith("plugins/profile/") and file.endswith(".xplane.pb")
    assert len(storage.read_bytes(f"{RUN}/{file}")) > 1000
    assert said(caplog)[-1].startswith(f"Profile of steps 2 to 6: {RUN}/{os.path.dirname(file)}. ")


def test_steps_go_on_where_another_profiler_is_running(tmp_path, caplog):
    hook = Profile(TrainingFolder(str(tmp_path), str(tmp_path)), 2)
    tf.profiler.experimental.start(str(tmp_path))
    try:
        hook.begin(0)
        for step in range(1, 9):
            hook.after_step(step, {"loss": tf.constant(1.0)})
        hook.end(8)
        hook.close()
    finally:
        tf.profiler.experimental.stop(save=False)
    assert said(caplog) == ["No profile is recorded: Another profiler is running."]


def test_what_was_recorded_before_a_training_fails_is_kept(tmp_path, caplog):
    hook = Profile(TrainingFolder(str(tmp_path), str(tmp_path)), 2)
    loss = {"loss": tf.constant(1.0)}
    hook.begin(0)
    for step in (1, 2, 3):
        hook.after_step(step, loss)
    hook.close()
    assert profiled_steps(tmp_path) == [2, 3]
    assert said(caplog)[-1].startswith("Profile of steps 2 to 3: ")


def test_a_profile_without_a_whole_step_is_not_kept(tmp_path, caplog):
    hook = Profile(TrainingFolder(str(tmp_path), str(tmp_path)), 2)
    hook.begin(0)
    hook.after_step(1, {"loss": tf.constant(1.0)})
    hook.close()
    assert not list(tmp_path.iterdir())
    assert not said(caplog)


def test_steps_that_are_not_made_are_refused(built_data, training_flags, tmp_path):
    with pytest.raises(FlagError, match=r"Invalid value for --profile.*-2"):
        training_flags(profile=-2)
    flags = training_flags(profile=7)
    with pytest.raises(FlagError, match=r"a step that the training does not make.*--profile 7, --train_steps 6"):
        train(built_data, flags)
    assert not Path(flags.model_dir).exists()


@pytest.mark.parametrize("value", [None, "", 0, "0", -1])
def test_nothing_is_recorded_by_default(training_flags, value):
    assert not training_flags(profile=value).profile


def test_the_command_refuses_such_a_step_before_it_reads_images(image_folder, tmp_path, capsys):
    arguments = ["--train_metadata", str(image_folder), "--model_dir", str(tmp_path / "model"), "--profile", "21"]
    with pytest.raises(SystemExit) as caught:
        train_estimator.main(arguments)
    assert caught.value.code == 2
    assert "--profile 21, --train_steps 20" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_parameter_servers_refuse_a_profile(built_data, training_flags):
    with pytest.raises(FlagError, match="--profile does not go together with parameter servers"):
        asynchronous_training.check_flags(training_flags(profile=2), built_data)


def test_a_worker_that_is_not_the_chief_records_nothing(training_flags, tmp_path, monkeypatch):
    addresses = {"chief": ["localhost:1"], "worker": ["localhost:2"]}
    task = {"cluster": addresses, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(task))
    workers = Workers(tf.distribute.get_strategy(), cluster.current())
    assert workers.task.role == Role.WORKER
    folder = TrainingFolder(str(tmp_path), str(tmp_path))
    made = training_hooks.of(None, training_flags(profile=2), None, folder, None, workers, Wishes(workers.task))
    assert made and not any(isinstance(hook, Profile) for hook in made)


def test_a_profile_is_no_part_of_what_a_training_is_known_by(training_flags):
    assert checkpoint_key_flags({"profile": 5}) == checkpoint_key_flags({})
    assert "profile" not in {flag.name for flag in flag_table.of_step("resolve")}
