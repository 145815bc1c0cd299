"""Asynchronous trainings by real processes on loopback: a chief, workers and parameter servers."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest

from pipelines.local import sample
from tests.training.clusters import Cluster, Restarter
from tf_image_classification import checkpoints
from tf_image_classification.cluster import EXIT_RETRYABLE

pytestmark = pytest.mark.slow
ROLES = {"chief": 1, "worker": 2, "ps": 1}
STEPS = 600  # of a training that is disturbed
LIMIT = 300  # seconds, for a training on a busy machine
LOSS_LIMIT = 120  # for what is left after a loss to end: it is noticed within 60, on a machine that is not busy


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> str:
    return sample.write(str(tmp_path_factory.mktemp("sample") / "digits"))


def command(images: str, folder: Path, **changes: object) -> list[str]:
    values = {**sample.FLAGS, "train_metadata": images, "model_dir": str(folder / "model"), "workers": 1, **changes}
    del values["min_accuracy"]
    flags = [part for name, value in values.items() for part in (f"--{name}", str(value))]
    return [sys.executable, "-m", "tf_image_classification.train_estimator", *flags]


def metrics_of(folder: Path) -> dict[str, float]:
    """Of the exported model, which has to be that of the last step."""
    return dict(json.loads((folder / "model" / "export" / "model.json").read_text())["metrics"])


def training_of(tasks: Cluster) -> bool:
    """Whether updates are being made."""
    return "Step " in tasks.output("chief:0")


def test_two_workers_and_a_parameter_server_make_exactly_the_steps_of_the_sample_and_reach_its_accuracy(
    digits, tmp_path
):
    with Cluster(command(digits, tmp_path), tmp_path / "logs", **ROLES) as tasks:
        tasks.start()
        assert set(tasks.wait(LIMIT).values()) == {0}, tasks.outputs()
    metrics = metrics_of(tmp_path)
    assert metrics["global_step"] == sample.FLAGS["train_steps"]
    assert metrics["accuracy"] >= 0.97


@pytest.mark.cluster
def test_a_training_continues_on_one_machine_from_where_a_cluster_left_it(digits, tmp_path):
    with Cluster(command(digits, tmp_path, train_steps=20, ema_decay=0.9), tmp_path / "logs", **ROLES) as tasks:
        tasks.start()
        assert set(tasks.wait(LIMIT).values()) == {0}, tasks.outputs()
    alone = command(digits, tmp_path, train_steps=30, ema_decay=0.9)
    with Cluster(alone, tmp_path / "alone", chief=1) as tasks:
        tasks.start()
        assert set(tasks.wait(LIMIT).values()) == {0}, tasks.outputs()
        assert "Continuing from" in tasks.output("chief:0")
    assert metrics_of(tmp_path)["global_step"] == 30


@pytest.mark.cluster
def test_a_killed_worker_is_missed_by_nobody_and_may_come_back(digits, tmp_path):
    with Cluster(command(digits, tmp_path, train_steps=STEPS), tmp_path / "logs", **ROLES) as tasks:
        tasks.start()
        tasks.wait_for(lambda: training_of(tasks), LIMIT)
        for _ in range(2):
            tasks.kill("worker:0")
            tasks.wait(LIMIT, "worker:0")
            tasks.start("worker:0")
        codes = tasks.wait(LIMIT)
        assert set(codes.values()) == {0}, tasks.outputs()
    assert metrics_of(tmp_path)["global_step"] == STEPS


@pytest.mark.cluster
def test_the_training_goes_on_without_a_worker(digits, tmp_path):
    with Cluster(command(digits, tmp_path, train_steps=STEPS), tmp_path / "logs", **ROLES) as tasks:
        tasks.start()
        tasks.wait_for(lambda: training_of(tasks), LIMIT)
        tasks.kill("worker:1")
        assert tasks.wait(LIMIT) == {"chief:0": 0, "worker:0": 0, "worker:1": 137, "ps:0": 0}, tasks.outputs()
    assert metrics_of(tmp_path)["global_step"] == STEPS


@pytest.mark.cluster
@pytest.mark.parametrize("lost", ["ps:0", "chief:0"])
def test_without_a_parameter_server_or_the_chief_all_end_to_be_restarted_and_continue(digits, tmp_path, lost):
    with Cluster(command(digits, tmp_path, train_steps=STEPS), tmp_path / "logs", **ROLES) as tasks:
        tasks.start()
        tasks.wait_for(lambda: training_of(tasks), LIMIT)
        tasks.kill(lost)
        codes = tasks.wait(LOSS_LIMIT)
        expected = dict.fromkeys(tasks.tasks, EXIT_RETRYABLE) | {lost: 137}
        assert codes == expected, tasks.outputs()
        if lost == "ps:0":
            assert "A parameter server is lost, and the variables on it with it" in tasks.output("chief:0")
        tasks.start()
        assert set(tasks.wait(LIMIT).values()) == {0}, tasks.outputs()
        assert "Continuing from" in tasks.output("chief:0")
    assert metrics_of(tmp_path)["global_step"] == STEPS


@pytest.mark.cluster
@pytest.mark.parametrize("stopped", ["chief:0", "worker:0", "ps:0"])
def test_sigterm_loses_no_update(digits, tmp_path, stopped):
    changes = {"train_steps": STEPS, "save_checkpoints_secs": 600}
    with Cluster(command(digits, tmp_path, **changes), tmp_path / "logs", **ROLES) as tasks:
        tasks.start()
        tasks.wait_for(lambda: training_of(tasks), LIMIT)
        tasks.kill(stopped, signal.SIGTERM)
        codes = tasks.wait(LOSS_LIMIT, stopped)
        assert codes == {stopped: 143}, tasks.outputs()
        if stopped == "worker:0":
            assert tasks.wait(LIMIT, "chief:0", "worker:1", "ps:0") == {"chief:0": 0, "worker:1": 0, "ps:0": 0}
        else:
            tasks.wait(LOSS_LIMIT)
            with checkpoints.read(str(tmp_path / "model")) as weights:
                assert len(weights)
            assert "model.ckpt-0" not in (tmp_path / "model" / "checkpoint").read_text().splitlines()[0]
            tasks.start()
            assert set(tasks.wait(LIMIT).values()) == {0}, tasks.outputs()
    assert metrics_of(tmp_path)["global_step"] == STEPS


@pytest.mark.cluster
@pytest.mark.parametrize("roles", [{"chief": 1}, {"chief": 1, "worker": 1, "ps": 1}], ids=["alone", "asynchronous"])
def test_an_evaluator_evaluates_the_last_checkpoint_into_summaries_of_its_own_and_ends(digits, tmp_path, roles):
    changes = {"train_steps": 100, "save_checkpoints_secs": 600}
    with Cluster(command(digits, tmp_path, **changes), tmp_path / "logs", **roles, evaluator=1) as tasks:
        tasks.start()
        assert set(tasks.wait(LIMIT).values()) == {0}, tasks.outputs()
        (line,) = [line for line in tasks.output("evaluator:0").splitlines() if "Evaluation at step" in line]
        of_evaluator = line.partition(" I ")[2]
        assert of_evaluator.startswith("Evaluation at step 100 ")
        assert of_evaluator in tasks.output("chief:0")
    assert len(list((tmp_path / "model" / "eval").glob("events.out.tfevents.*"))) == 2


@pytest.mark.cluster
def test_an_evaluator_ends_to_be_restarted_when_the_chief_is_lost(digits, tmp_path):
    changes = {"train_steps": 100_000, "num_epochs_per_decay": 4500.0}
    with Cluster(command(digits, tmp_path, **changes), tmp_path / "logs", chief=1, evaluator=1) as tasks:
        tasks.start()
        tasks.wait_for(lambda: "Evaluating the checkpoints" in tasks.output("evaluator:0"), LIMIT)
        tasks.kill("chief:0")
        assert tasks.wait(LOSS_LIMIT) == {"chief:0": 137, "evaluator:0": EXIT_RETRYABLE}, tasks.outputs()


@pytest.mark.cluster
def test_a_platform_that_restarts_what_ended_gets_the_training_done(digits, tmp_path):
    with Cluster(command(digits, tmp_path, train_steps=STEPS), tmp_path / "logs", **ROLES) as tasks:
        killed = []

        def kill_once() -> None:
            if not killed and training_of(tasks):
                tasks.kill("ps:0")
                killed.append("ps:0")

        exits = Restarter(tasks).run(LIMIT, kill_once)
        assert killed and exits[0].task == "ps:0"
        assert {exit_.task for exit_ in exits if exit_.code == 0} == set(tasks.tasks), exits
    assert metrics_of(tmp_path)["global_step"] == STEPS
