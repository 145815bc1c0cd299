from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.packaged import ESTIMATOR, wheel
from tests.pipelines.local.conftest import TINY, command, run


def executed(output: str) -> list[str]:
    """The steps that ran, in order; those that came from the cache did not."""
    return re.findall(r"^([a-z-]+) +done in .*$", output, re.MULTILINE)


def cached(output: str) -> list[str]:
    return re.findall(r"^([a-z-]+) +cached$", output, re.MULTILINE)


def test_a_run_leaves_data_model_and_evaluation_and_prints_where(first):
    runs, output = first
    latest = runs / "latest"
    assert executed(output) == ["resolve", "build-tfrecords", "train", "evaluate", "gate"]
    assert (latest / "data" / "manifest.json").is_file()
    assert (latest / "model" / "saved_model").is_dir()
    assert (latest / "evaluation" / "report.html").is_file()
    metrics = json.loads((latest / "evaluation" / "metrics.json").read_text())
    assert (
        metrics["num_examples"]
        == json.loads((latest / "data" / "manifest.json").read_text())["splits"]["eval"]["examples"]
    )
    assert re.search(r"accuracy +\d\.\d{4}", output)
    for path in (latest.resolve() / "evaluation" / "report.html", latest.resolve() / "model"):
        assert str(path) in output


def test_the_run_folder_holds_what_each_step_and_kfp_printed(first):
    runs, _ = first
    logs = runs / "latest" / "logs"
    steps = ["resolve", "build-tfrecords", "train", "evaluate", "gate"]
    assert {path.name for path in logs.iterdir()} == {"kfp.log", *(f"{step}.log" for step in steps)}
    for step in steps:
        assert "Got executor_input:\n{\n" in (logs / f"{step}.log").read_text()
    assert "finished with status" in (logs / "kfp.log").read_text()
    assert "Saved checkpoint" in (logs / "train.log").read_text()
    assert "gate: passed" in (logs / "gate.log").read_text()


def test_the_second_run_of_the_same_inputs_does_nothing_again(first, image_folder):
    runs, _ = first
    before = (runs / "latest").resolve()
    answer = run(runs, "--train_metadata", str(image_folder), *TINY)
    assert answer.returncode == 0, answer.stdout
    assert executed(answer.stdout) == ["resolve", "gate"]
    assert cached(answer.stdout) == ["build-tfrecords", "train", "evaluate"]
    assert (runs / "latest").resolve() != before
    assert (runs / "latest" / "model" / "model.json").read_bytes() == (before / "model" / "model.json").read_bytes()


def test_verbose_shows_what_the_steps_and_kfp_print_and_logs_it_too(first, image_folder):
    runs, _ = first
    answer = run(runs, "--train_metadata", str(image_folder), *TINY, "--verbose")
    assert answer.returncode == 0, answer.stdout
    assert "Got executor_input:" in answer.stdout and '"parameterValues": {' in answer.stdout
    assert "Running pipeline: " in answer.stdout
    assert "Got executor_input:" in (runs / "latest" / "logs" / "gate.log").read_text()


@pytest.mark.slow
def test_more_steps_train_on_from_the_checkpoint_without_building_again(first, image_folder):
    runs, _ = first
    changed = [*TINY]
    changed[changed.index("--train_steps") + 1] = "6"
    answer = run(runs, "--train_metadata", str(image_folder), *changed)
    assert executed(answer.stdout) == ["resolve", "train", "evaluate", "gate"]
    assert re.search(r"Continuing from .*model\.ckpt-4", answer.stdout)


@pytest.mark.slow
def test_the_model_in_service_stays_until_it_is_beaten(first, image_folder, tmp_path):
    runs, _ = first
    data, service = ["--train_metadata", str(image_folder)], ["--champion", str(tmp_path / "service")]
    answer = run(runs, *data, *TINY, *service)
    assert executed(answer.stdout) == ["resolve", "gate", "register"]
    pointer = (tmp_path / "service" / "champion.json").read_text()
    assert re.search(r"in service +\S*service/models/", answer.stdout)
    answer = run(runs, *data, *TINY, *service, "--min_improvement", "1", "--train_steps", "5")
    assert answer.returncode == 0
    assert executed(answer.stdout) == ["resolve", "train", "evaluate", "gate"]
    assert "that of the model in service" in answer.stdout and "FAILED" in answer.stdout
    assert (tmp_path / "service" / "champion.json").read_text() == pointer


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "source"])
def test_a_replaced_wheel_or_an_edited_estimator_is_trained_and_evaluated_anew(
    kind, image_folder, tmp_path, monkeypatch
):
    runs, package = tmp_path / "runs", tmp_path / "mean_colour-1-py3-none-any.whl"
    module = tmp_path / "source" / "mean_colour.py"
    module.parent.mkdir()
    words = ["--train_metadata", str(image_folder), *TINY, "--estimator", "mean_colour:MeanColour"]
    if kind == "wheel":
        words += ["--packages", str(package)]
    else:
        monkeypatch.setenv("PYTHONPATH", str(module.parent) + os.pathsep + os.environ.get("PYTHONPATH", ""))

    def run_with(text: str) -> tuple[list[str], dict]:
        if kind == "wheel":
            wheel(package, "mean_colour", text)
        else:
            module.write_text(text)
        answer = run(runs, *words)
        assert answer.returncode == 0, answer.stdout
        assert "Nothing to train" not in answer.stdout
        return executed(answer.stdout), json.loads((runs / "latest" / "model" / "model.json").read_text())

    _, before = run_with(ESTIMATOR)
    assert run_with(ESTIMATOR) == (["resolve", "gate"], before)
    steps, after = run_with(ESTIMATOR.replace("/ 255.0", "/ 128.0"))
    assert steps == ["resolve", "train", "evaluate", "gate"]
    assert after["digest"] != before["digest"]
    entry = "packages" if kind == "wheel" else "estimator_source"
    assert after[entry] and after[entry] != before[entry]
    assert len(list((runs / "checkpoints").iterdir())) == 2


@pytest.mark.slow
def test_a_failed_step_shows_its_error_in_one_paragraph_and_the_run_exits_with_1(tmp_path, image_folder):
    answer = run(tmp_path / "runs", "--train_metadata", str(image_folder), *TINY, "--trainable_scopes", "Nothing")
    assert answer.returncode == 1
    assert "No variables to optimize" in answer.stdout
    assert "Run the same command again" in " ".join(answer.stdout.split())
    assert not (tmp_path / "runs" / "latest").exists()


def test_a_model_of_vertex_is_not_promoted_from_here(tmp_path):
    answer = run(tmp_path, "--champion", "projects/p/locations/l/models/m")
    assert answer.returncode == 2 and "keeps the model in service in a folder" in answer.stdout
    assert not list(tmp_path.iterdir())


def test_a_bad_flag_is_refused_before_anything_starts(tmp_path):
    answer = run(tmp_path / "runs", "--train_steps", "0")
    assert answer.returncode == 2
    assert "--train_steps" in answer.stdout
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_sigterm_reaches_the_step_which_saves_and_the_next_run_continues(tmp_path):
    runs = tmp_path / "runs"
    flags = ["--train_steps", "300", "--save_checkpoints_secs", "600"]
    process = subprocess.Popen(
        command(runs, *flags),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "Step 100 of" in line:
            process.send_signal(signal.SIGTERM)
    assert process.wait() == 1, "".join(lines)
    assert "Stopped by SIGTERM" in "".join(lines)
    answer = run(runs, *flags)
    assert answer.returncode == 0, answer.stdout
    assert re.search(r"Continuing from .*model\.ckpt-1\d\d", answer.stdout)


@pytest.mark.slow
def test_the_sample_reaches_its_accuracy_and_fine_tunes(tmp_path):
    runs = tmp_path / "runs"
    answer = run(runs)
    assert answer.returncode == 0, answer.stdout
    metrics = json.loads((runs / "latest" / "evaluation" / "metrics.json").read_text())
    assert metrics["num_examples"] >= 300
    assert metrics["accuracy"] >= 0.97
    tuned = run(
        runs,
        *("--checkpoint_path", str(runs / "latest" / "model"), "--checkpoint_exclude_scopes", "Small/Logits"),
        *("--trainable_scopes", "Small/Logits", "--train_steps", "20"),
    )
    assert tuned.returncode == 0, tuned.stdout
    assert executed(tuned.stdout) == ["resolve", "train", "evaluate", "gate"]
    facts = json.loads((runs / "latest" / "model" / "model.json").read_text())
    assert facts["metrics"]["global_step"] == 20  # a flag given at its default wins over the sample's, too
    assert re.search(r"Small/Logits .*-", tuned.stdout)
    assert json.loads((runs / "latest" / "evaluation" / "metrics.json").read_text())["accuracy"] >= 0.8


@pytest.mark.slow
def test_a_run_that_is_killed_in_every_step_ends_complete_and_does_no_finished_step_again(tmp_path):
    runs = tmp_path / "runs"
    flags = ["--save_checkpoints_secs", "0.5", "--train_steps", "150"]
    first = kill_when(runs, flags, "build-tfrecords +started", delay=0.2)
    interrupted = kill_when(runs, flags, r"Saved checkpoint .*model\.ckpt-[1-9]")
    killed = kill_when(runs, flags, "evaluate +started", delay=1)
    assert "Continuing from" in killed
    assert "evaluate" not in executed(killed)
    answer = run(runs, *flags)
    assert answer.returncode == 0, answer.stdout
    done = [step for output in (first, interrupted, killed, answer.stdout) for step in executed(output)]
    assert done.count("build-tfrecords") == 1
    assert done.count("train") == 1
    assert executed(answer.stdout) == ["resolve", "evaluate", "gate"]
    manifest = json.loads((runs / "latest" / "data" / "manifest.json").read_text())
    assert sum(split["examples"] for split in manifest["splits"].values()) == 1797
    assert not list(runs.glob("**/.*.partial-*"))

    whole = run(tmp_path / "whole", *flags)
    assert whole.returncode == 0, whole.stdout
    predictions = [
        (folder / "latest" / "evaluation" / "predictions.csv").read_bytes() for folder in (runs, tmp_path / "whole")
    ]
    assert predictions[0] == predictions[1]


def kill_when(runs: Path, flags: list[str], pattern: str, delay: float = 0.0) -> str:
    """Starts a run in a process group of its own and kills the group `delay` seconds after a line matches; returns the
    output."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command(runs, *flags, "--verbose"),
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if re.search(pattern, line):
            time.sleep(delay)
            os.killpg(process.pid, signal.SIGKILL)
            break
    lines += process.stdout
    assert process.wait() == -signal.SIGKILL, "".join(lines)
    return "".join(lines)
