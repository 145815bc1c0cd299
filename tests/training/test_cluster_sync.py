"""Synchronous trainings of real processes: what they compute, agree upon, write and refuse."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.clusters import ENVIRONMENT, Cluster
from tests.training.support import evaluations, weights_at
from tf_image_classification.training import history

pytestmark = pytest.mark.slow

LIMIT = 240.0  # seconds: four processes on two busy cores take a minute
STEPS = 100


Command = Callable[..., list[str]]
Workers = Callable[..., Cluster]


@pytest.fixture(scope="module")
def command(built_data) -> Command:
    """The command line of a training of an estimator of `cluster_specs`."""

    def make(model_dir: Path, kind: str = "Plain", steps: int = STEPS, **flags: Any) -> list[str]:
        values = {
            "train_metadata": f"{built_data.folder}/train-*",
            "eval_metadata": f"{built_data.folder}/eval-*",
            "model_dir": model_dir,
            "estimator": f"tests.training.cluster_specs:{kind}",
            "image_size": 16,
            "batch_size": 16,
            "train_steps": steps,
            "learning_rate": 0.05,
            "learning_rate_decay_type": "fixed",
            "optimizer": "momentum",
            "batch_norm": "original",
            "seed": 7,
            **flags,
        }
        words = [word for name, value in values.items() if value is not None for word in (f"--{name}", str(value))]
        return [sys.executable, "-m", "tf_image_classification.train_estimator", *words]

    return make


@pytest.fixture(scope="module")
def alone(command, tmp_path_factory) -> Callable[[str], Path]:
    """The folder of the training of a kind of network in one process."""

    @functools.cache
    def train(kind: str) -> Path:
        model = tmp_path_factory.mktemp("one") / kind
        environment = os.environ | ENVIRONMENT
        answer = subprocess.run(command(model, kind), env=environment, capture_output=True, text=True, check=False)
        assert answer.returncode == 0, answer.stderr
        assert len(losses(model)) == STEPS
        return model

    return train


@pytest.fixture
def workers(tmp_path) -> Iterator[Workers]:
    """Starts workers of a command; what runs at the end of a test is killed."""
    made: list[Cluster] = []

    def start(words: list[str], count: int = 2, **env: str) -> Cluster:
        cluster = Cluster(words, tmp_path / f"logs{len(made)}", worker=count, env=env)
        made.append(cluster)
        cluster.start()
        return cluster

    yield start
    for cluster in made:
        cluster.__exit__(None, None, None)


def codes(count: int, code: int = 0) -> dict[str, int]:
    return {f"worker:{index}": code for index in range(count)}


def losses(model_dir: Path) -> dict[int, float]:
    return {entry["step"]: entry["loss"] for entry in history.read_history(str(model_dir)) if entry["kind"] == "train"}


def assert_same(left: Path, right: Path, tolerance: float = 1e-4) -> None:
    """Two trainings had the same losses at the same steps, and have the same weights, statistics among them."""
    assert list(losses(left)) == list(losses(right))
    np.testing.assert_allclose(list(losses(left).values()), list(losses(right).values()), rtol=0, atol=tolerance)
    one, other = weights_at(str(left)), weights_at(str(right))
    assert one.keys() == other.keys()
    for name in one:
        # Float32 has 7 digits, and variances are larger than one.
        np.testing.assert_allclose(one[name], other[name], rtol=1e-5, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize(
    ("kind", "flags", "reference"),
    [
        ("Plain", {}, "Plain"),
        ("Normalised", {"sync_batch_norm": True}, "Normalised"),
        ("Normalised", {}, {2: "NormalisedInParts", 4: "NormalisedInQuarters"}),
    ],
)
def test_a_hundred_steps_of_workers_are_those_of_one_process(
    workers, command, alone, tmp_path, count, kind, flags, reference
) -> None:
    cluster = workers(command(tmp_path / "workers", kind, **flags), count)
    assert cluster.wait(LIMIT) == codes(count), cluster.outputs()
    assert_same(tmp_path / "workers", alone(reference if isinstance(reference, str) else reference[count]))


def test_the_chief_alone_builds_data_and_writes(workers, command, image_folder, tmp_path) -> None:
    model = tmp_path / "model"
    raw = {"train_metadata": image_folder, "eval_metadata": None, "batch_size": 8, "num_evals": 3}
    cluster = workers(command(model, steps=12, ema_decay=0.9, export="best", **raw))
    assert cluster.wait(LIMIT) == codes(2), cluster.outputs()
    chief, other = cluster.output("worker:0"), cluster.output("worker:1")
    for line in ("Building:", "Saved checkpoint", "Evaluation at step", "Exported the model"):
        assert line in chief, line
        assert line not in other, line
    assert evaluations(str(model)) == [4, 8, 12]
    assert len(list(model.glob("events*"))) == len(list((model / "eval").glob("events*"))) == 1
    facts = json.loads((model / "export" / "model.json").read_text())
    assert facts["metrics"]["accuracy"] >= 0


def test_trainings_go_on_with_another_number_of_workers(workers, command, alone, tmp_path) -> None:
    model = tmp_path / "model"
    for count, steps in ((4, 50), (2, STEPS)):
        cluster = workers(command(model, steps=steps), count)
        assert cluster.wait(LIMIT) == codes(count), cluster.outputs()
    assert "Continuing from" in cluster.output("worker:0")
    assert_same(model, alone("Plain"))


@pytest.mark.parametrize("stopped", ["worker:0", "worker:1"])
def test_sigterm_on_one_worker_stops_all_at_a_common_checkpoint(workers, command, tmp_path, stopped) -> None:
    model = tmp_path / "model"
    words = command(model, steps=100_000, seed=None)
    cluster = workers(words)
    cluster.wait_for(lambda: len(losses(model)) > 0, LIMIT)  # each 500 steps
    cluster.kill(stopped, signal.SIGTERM)
    assert cluster.wait(60) == codes(2, 128 + signal.SIGTERM), cluster.outputs()
    stops = [re.findall(r"Stopped by SIGTERM at step (\d+)", cluster.output(task)) for task in cluster.tasks]
    ((step,), *_) = stops
    assert stops == [[step], [step]], cluster.outputs()
    newest = max(int(path.suffixes[-2].split("-")[1]) for path in model.glob("model.ckpt-*.index"))
    assert newest == int(step)
    cluster = workers([*words, "--train_steps", str(newest + 5)])
    assert cluster.wait(LIMIT) == codes(2), cluster.outputs()
    assert f"Continuing from {model}/model.ckpt-{newest}" in cluster.output("worker:0")


def test_early_stopping_ends_all_workers_at_the_same_step(workers, command, tmp_path) -> None:
    """By time, too: the clock of the chief decides when to evaluate."""
    flags = {"early_stopping_evals": 2, "learning_rate": 1e-12, "eval_throttle_secs": 0, "eval_freq": 1}
    cluster = workers(command(tmp_path / "model", steps=10_000, **flags))
    assert cluster.wait(LIMIT) == codes(2), cluster.outputs()
    ends = [
        [line for line in cluster.output(task).splitlines() if "Training ends at step" in line] for task in codes(2)
    ]
    (chiefs,), (others,) = ends
    assert chiefs.split(" I ")[1] == others.split(" I ")[1]


def test_a_second_training_in_the_folder_is_refused(workers, command, tmp_path) -> None:
    model = tmp_path / "model"
    first = workers(command(model, steps=100_000))
    first.wait_for(lambda: len(losses(model)) > 0, LIMIT)
    second = workers(command(model, steps=100_000))
    ended = second.wait(120)
    assert ended["worker:0"] == 2, second.outputs()
    assert "Another process is writing this folder" in second.output("worker:0")
    assert ended["worker:1"] == 138, second.outputs()
    assert first.codes() == dict.fromkeys(codes(2))


def test_a_worker_that_does_not_come_is_an_error(workers, command, tmp_path) -> None:
    cluster = Cluster(command(tmp_path / "model"), tmp_path / "logs", worker=2, env={"CLUSTER_JOIN_SECONDS": "15"})
    with cluster:
        cluster.start("worker:0")
        assert cluster.wait(120) == {"worker:0": 138}, cluster.outputs()
        assert "Not all tasks of the cluster were there within 15 s" in cluster.output("worker:0"), cluster.outputs()
