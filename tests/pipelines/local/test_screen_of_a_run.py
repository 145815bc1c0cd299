"""What a person reads while the pipeline runs on this machine."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.pipelines.local.conftest import TINY, command, run

STEPS = ["resolve", "build-tfrecords", "train", "evaluate", "gate"]
MAX_LINES = 40


def assert_worth_reading(screen: str) -> None:
    lines = screen.splitlines()
    assert len(lines) <= MAX_LINES, screen
    assert not re.search(r"warning|executor|[{}]|\x1b", screen, re.IGNORECASE), screen
    for step in STEPS:
        assert len([line for line in lines if re.fullmatch(rf"{step} +started", line)]) == 1, screen
        assert len([line for line in lines if re.fullmatch(rf"{step} +done in [\d.]+ s", line)]) == 1, screen


@pytest.mark.slow
def test_the_sample_run_fits_on_a_screen_without_output_of_libraries(tmp_path):
    answer = run(tmp_path / "runs")
    assert answer.returncode == 0, answer.stdout
    assert_worth_reading(answer.stdout)
    assert re.search(r"^  \d\d:\d\d:\d\d I Step 100 of 400: loss ", answer.stdout, re.MULTILINE)


@pytest.mark.slow
def test_a_run_shows_its_steps_the_frameworks_lines_and_the_table(first):
    _, screen = first
    assert_worth_reading(screen)
    assert re.search(r"^  \d\d:\d\d:\d\d I \S+: [\d,]+ parameters", screen, re.MULTILINE)
    assert screen.index("Run folder: ") < screen.index("resolve") < screen.index("  accuracy")


@pytest.mark.slow
def test_a_corrupt_checkpoint_is_named_in_the_last_ten_lines_with_the_log_of_its_step(first, image_folder, tmp_path):
    runs, _ = first
    corrupt = tmp_path / "corrupt.ckpt"
    corrupt.write_bytes(b"no checkpoint at all")
    answer = run(runs, "--train_metadata", str(image_folder), *TINY, "--checkpoint_path", str(corrupt))
    assert answer.returncode == 1
    end = answer.stdout.splitlines()[-10:]
    text = " ".join(" ".join(end).split())
    assert re.search(r"train FAILED after [\d.]+ s error: The checkpoint \S+corrupt.ckpt cannot be read", text)
    assert "Run the same command again" in text
    (log,) = [line.removeprefix("  log: ") for line in end if line.startswith("  log: ")]
    assert f"The checkpoint {corrupt}" in " ".join(Path(log).read_text().split())


@pytest.mark.slow
def test_a_step_that_dies_shows_the_end_of_its_traceback(first, image_folder, tmp_path):
    runs, _ = first
    (tmp_path / "broken_estimator.py").write_text("raise RuntimeError('broken on import')\n")
    words = ["--train_metadata", str(image_folder), *TINY, "--estimator", "broken_estimator:Broken"]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{REPOSITORY}"}
    answer = subprocess.run(
        command(runs, *words), cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 1
    *_, end, log = answer.stdout.splitlines()
    assert end == "  RuntimeError: broken on import"
    assert "Traceback (most recent call last)" in Path(log.removeprefix("  log: ")).read_text()


@pytest.mark.slow
def test_a_terminal_shows_the_progress_bar_of_the_training(first, image_folder):
    runs, _ = first
    words = ["--train_metadata", str(image_folder), *TINY, "--train_steps", "8"]
    read_end, write_end = os.openpty()
    with subprocess.Popen(command(runs, *words), cwd=REPOSITORY, stdout=write_end, stderr=write_end) as process:
        os.close(write_end)
        screen = b"".join(iter(lambda: read(read_end), b"")).decode()
    os.close(read_end)
    assert process.returncode == 0, screen
    assert re.search(r"\r\x1b\[K  Training: +\d+%\|.*\| \d/8 \[", screen)
    assert re.search(r"  Training: 100%\|.*\| 8/8 \[.*\]\r\n", screen)


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # nobody has its other end any longer
        return b""
