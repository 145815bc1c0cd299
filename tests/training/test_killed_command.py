"""The command of a fine-tuning with every option that has a state, killed with SIGKILL and given again."""

from __future__ import annotations

import subprocess
import time

import pytest

from tests.training.support import command, digest, evaluations, train
from tf_image_classification.checkpoints import checkpoint_file

STEPS = 60
OPTIONS = [
    *("--recipe", "finetune", "--batch_norm", "auto", "--ema_decay", "0.9", "--mixup", "0.2", "--cutmix", "1"),
    *("--augmentation", "randaugment", "--class_weights", "balanced", "--clip_norm", "1", "--num_evals", "6"),
]


def step_of_newest(model_dir: str) -> int:
    path = checkpoint_file.latest(model_dir)
    return int(path.rpartition("-")[2]) if path else 0


@pytest.mark.slow
def test_a_fine_tuning_that_is_killed_in_every_stage_ends_bit_identical(built_data, training_flags, tmp_path):
    trained = train(built_data, training_flags(train_steps=3))
    options = [*OPTIONS, "--checkpoint_path", trained.export_dir, "--checkpoint_exclude_scopes", "auto"]
    whole, killed = str(tmp_path / "whole"), str(tmp_path / "killed")
    done = subprocess.run(
        command(whole, built_data.folder, STEPS, *options), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    saving = [*options, "--save_checkpoints_secs", "1e-6"]
    for moment in (7, 25, 47):  # the head alone, warm-up, and the descent of the learning rate
        process = subprocess.Popen(command(killed, built_data.folder, STEPS, *saving), stderr=subprocess.DEVNULL)
        while process.poll() is None and step_of_newest(killed) < moment:
            time.sleep(0.001)
        assert process.poll() is None, "it ended before it could be killed"
        process.kill()
        process.wait()
    last = subprocess.run(
        command(killed, built_data.folder, STEPS, *options), capture_output=True, text=True, check=False
    )
    assert last.returncode == 0, last.stderr
    assert "Continuing from" in last.stderr
    assert digest(f"{killed}/export") == digest(f"{whole}/export")
    assert evaluations(killed) == evaluations(whole) == [10, 20, 30, 40, 50, 60]
