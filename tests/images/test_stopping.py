"""A training container that is stopped saves its state first."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.images.test_containers import TINY, containers_of, pipeline, start_until_training

pytestmark = pytest.mark.slow

STEPS = 2000


def test_a_training_container_that_docker_stops_saves_a_checkpoint_and_the_rerun_goes_on_from_it(
    built, in_docker, image_folder, tmp_path
):
    runs = tmp_path / "runs"
    words = [*in_docker, "--runs_dir", str(runs), "--train_metadata", str(image_folder), *TINY]
    words += ["--train_steps", str(STEPS), "--save_checkpoints_secs", "100000"]
    process, lines = start_until_training(words)
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if re.search(r"[Ss]tep \d", line):
            break
    (container,) = containers_of(runs)
    with subprocess.Popen(["docker", "wait", container], stdout=subprocess.PIPE, text=True) as waiting:
        subprocess.run(["docker", "stop", container], check=True, capture_output=True)
        code, _ = waiting.communicate()
    rest, _ = process.communicate()
    output = "".join(lines) + rest
    assert code.strip() == "143", output
    stopped = re.search(r"Stopped by SIGTERM at step (\d+)", output)
    assert stopped and 0 < int(stopped[1]) < STEPS, output
    assert process.returncode == 1
    answer = pipeline(*words)
    assert answer.returncode == 0, answer.stdout
    log = (runs / "latest" / "logs" / "train.log").read_text()
    assert re.search(rf"Continuing from \S+-{stopped[1]}\b", log), log
