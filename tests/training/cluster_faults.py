"""Trainings on clusters whose tasks are killed at random moments: python -m tests.training.cluster_faults --rounds 20

A stand-in for the platform restarts what ends. Each training has to end with the right step and a model that loads: a
synchronous one with the very model of an undisturbed training, one with parameter servers (--asynchronous, with an
evaluator, too) with a model that tells the classes apart. Prints a table with a row for each signal sent.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.commands import tables
from tests.training.clusters import Cluster, Exit, Restarter
from tests.training.support import command, digest, evaluations
from tf_image_classification.checkpoints import checkpoint_file
from tf_image_classification.model_folder import SAVED_MODEL

STEPS = 400
HANG_SECONDS = 120  # a job in which for so long no process ends, and none prints a line, hangs
_OPTIONS = ("--batch_size", "12", "--num_evals", "4", "--save_checkpoints_secs", "1")
SYNCHRONOUS = {"chief": 1, "worker": 2}
ASYNCHRONOUS = {"chief": 1, "worker": 2, "ps": 1, "evaluator": 1}
_PER_TRAINING = 4  # signals, at most


@dataclass(slots=True)
class Fault:
    """A signal that was sent.

    Attributes:
        training: number of the run.
        task: whom to.
        number: which signal.
        seconds: since the job's start.
        step: of the newest checkpoint, then; -1 without any.
        noticed: task -> seconds until it ended, and its exit code: the first end of each before the next signal.
    """

    training: int
    task: str
    number: signal.Signals
    seconds: float
    step: int
    noticed: dict[str, tuple[float, int]]


class Faults:
    """Sends signals to random tasks of a job at random moments; called by `Restarter.run`."""

    def __init__(
        self, cluster: Cluster, model_dir: str, dice: random.Random, numbers: list[signal.Signals], training: int
    ) -> None:
        self.sent: list[Fault] = []
        self._cluster, self._model_dir, self._dice, self._training = cluster, model_dir, dice, training
        self._numbers = numbers  # still to be sent
        self._started = time.monotonic()
        self._due = self._started
        self._after_step = -2  # the next signal waits for a checkpoint of a later step
        self._plan(-1)
        self._victim, self._starts = "", 0
        self._read: str | None = None  # the checkpoint

    def __call__(self) -> None:
        newest = newest_checkpoint(self._model_dir)
        if newest and newest != self._read:
            read_to_the_end(newest)
            self._read = newest
        now = time.monotonic()
        if self._victim and self._cluster.starts[self._victim] > self._starts:
            self._plan(step_of(newest))
            self._victim = ""
        if step_of(newest) <= self._after_step:
            self._due = now + self._dice.uniform(0.0, 4.0)
        if not self._numbers or self._victim or now < self._due:
            return
        victim = self._dice.choice(self._cluster.tasks)
        if self._cluster.code(victim) is not None:
            return
        self._victim, self._starts = victim, self._cluster.starts[victim]
        number = self._numbers.pop()
        step = step_of(newest)
        self._cluster.kill(victim, number)
        self.sent.append(Fault(self._training, victim, number, now - self._started, step, {}))

    def _plan(self, step: int) -> None:
        """Of four signals, one comes at any moment of a start, the others while steps are made."""
        is_early = self._dice.random() < 0.25
        self._after_step = -2 if is_early else step
        self._due = time.monotonic() + (self._dice.uniform(0.0, 25.0) if is_early else 0.0)


def rounds(
    count: int, seed: int, number: signal.Signals, folder: Path, data: str, roles: dict[str, int]
) -> Iterator[list[Fault]]:
    """Sends `count` signals, in as many trainings as that takes, and checks each of these.

    Args:
        count: signals.
        seed: of victims and moments; these depend on the machine's speed, too.
        number: the signal.
        folder: of models and logs; a training that has ended well leaves nothing there.
        data: a built data set.
        roles: role -> tasks of the cluster.

    Yields:
        The signals of each training, once it has ended.

    Raises:
        AssertionError: a training did not end as an undisturbed one does.
        TimeoutError: it hung.
    """
    dice = random.Random(seed)
    expected = "" if "ps" in roles else undisturbed(folder / "undisturbed", data, roles)
    training = sent = 0
    while sent < count:
        training += 1
        model_dir = str(folder / f"{training}" / "model")
        with Cluster(command(model_dir, data, STEPS, *_OPTIONS), folder / f"{training}" / "logs", **roles) as cluster:
            numbers = [number] * min(_PER_TRAINING, count - sent)
            faults = disturbed(cluster, model_dir, dice, numbers, training)
        check_training(model_dir, expected)
        shutil.rmtree(folder / f"{training}")
        sent += len(faults)
        yield faults


def undisturbed(folder: Path, data: str, roles: dict[str, int]) -> str:
    """The digest of the model that the cluster trains when nothing happens."""
    with Cluster(command(str(folder / "model"), data, STEPS, *_OPTIONS), folder / "logs", **roles) as cluster:
        cluster.start()
        codes = cluster.wait(300)
        assert set(codes.values()) == {0}, f"{codes}\n{cluster.outputs()}"
    return digest(str(folder / "model" / "export"))


def disturbed(
    cluster: Cluster, model_dir: str, dice: random.Random, numbers: list[signal.Signals], training: int
) -> list[Fault]:
    """A training that gets signals; returns those that were sent before it ended."""
    restarter = Restarter(cluster, together=training % 4 == 0)
    faults = Faults(cluster, model_dir, dice, numbers, training)
    exits = restarter.run(HANG_SECONDS, faults)
    last = {end.task: end.code for end in exits}
    # With the chief, the job has succeeded: who is killed or restarted as the chief ends is then not needed any more.
    assert last["chief:0"] == 0, f"{exits}\n{cluster.outputs()}"
    until = [fault.seconds for fault in faults.sent[1:]] + [math.inf]
    for fault, end in zip(faults.sent, until, strict=True):
        fault.noticed = noticed(fault, end, exits)
    return faults.sent


def check_training(model_dir: str, expected: str) -> None:
    """Its last step, its evaluations and its export; the model's digest, unless `expected` is ''."""
    assert step_of(newest_checkpoint(model_dir)) == STEPS
    assert evaluations(model_dir)[-1] == STEPS
    check_model(f"{model_dir}/export")
    if expected:
        assert digest(f"{model_dir}/export") == expected, "another model than that of the undisturbed training"
    else:
        metrics = dict(json.loads(Path(f"{model_dir}/export/model.json").read_text())["metrics"])
        assert metrics["global_step"] == STEPS and metrics["accuracy"] >= 0.9, metrics


def noticed(fault: Fault, until: float, exits: list[Exit]) -> dict[str, tuple[float, int]]:
    """Of `Fault`; `until` is when the next signal was sent."""
    after = [end for end in exits if fault.seconds <= end.seconds < until and end.code >= 128]
    return {end.task: (end.seconds - fault.seconds, end.code) for end in reversed(after)}


def newest_checkpoint(model_dir: str) -> str | None:
    """The prefix of the newest checkpoint, if there is one."""
    return checkpoint_file.latest(model_dir) if Path(model_dir).is_dir() else None


def step_of(checkpoint: str | None) -> int:
    """Its global step; -1 of none."""
    return int(checkpoint.rpartition("-")[2]) if checkpoint else -1


def read_to_the_end(checkpoint: str) -> None:
    """Raises tf.errors.DataLossError if a byte is missing or damaged."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(checkpoint)
    for name in reader.get_variable_to_shape_map():
        reader.get_tensor(name)


def check_model(folder: str) -> None:
    """Loads the model, and asks it about an image."""
    import numpy as np
    import tensorflow as tf

    image = tf.io.encode_png(np.full((20, 24, 3), 200, np.uint8)).numpy()
    predict = tf.saved_model.load(f"{folder}/{SAVED_MODEL}").signatures["serving_default"]
    assert predict(image_bytes=tf.constant([image]))


def table(faults: list[Fault], roles: dict[str, int]) -> str:
    """A row for each signal."""
    tasks = [f"{role}:{index}" for role, count in roles.items() for index in range(count)]
    header = ("training", "signal", "to", "after s", "at step", *(f"{task} ends" for task in tasks))
    rows = []
    for fault in faults:
        ends = [fault.noticed.get(task, (0.0, 0)) for task in tasks]
        said = [f"{code} after {seconds:.1f} s" if code else "" for seconds, code in ends]
        rows.append(
            (str(fault.training), fault.number.name, fault.task, f"{fault.seconds:.1f}", str(fault.step), *said)
        )
    return tables.table(header, rows)


def main() -> None:
    """Parses the arguments, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="signals to send")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--signal", choices=("KILL", "TERM"), default="KILL")
    parser.add_argument("--asynchronous", action="store_true", help="with a parameter server and an evaluator")
    arguments = parser.parse_args()
    roles, number = ASYNCHRONOUS if arguments.asynchronous else SYNCHRONOUS, signal.Signals[f"SIG{arguments.signal}"]
    folder = Path(tempfile.mkdtemp(prefix="cluster-faults-"))
    data = built_data(folder)
    faults: list[Fault] = []
    for sent in rounds(arguments.rounds, arguments.seed, number, folder, data, roles):
        faults += sent
        print(f"{table(sent, roles)}\n{len(faults)} of {arguments.rounds} signals sent", file=sys.stderr, flush=True)
    print(table(faults, roles))
    shutil.rmtree(folder)


def built_data(folder: Path) -> str:
    """A data set of 60 small pictures of two classes."""
    import numpy as np
    from PIL import Image

    from tf_image_classification import build_tfrecords

    dice = np.random.default_rng(1)
    for name, level in (("bright", 200), ("dark", 40)):
        (folder / "images" / name).mkdir(parents=True)
        for number in range(30):
            pixels = dice.integers(level - 30, level + 30, (20, 24, 3)).astype("uint8")
            Image.fromarray(pixels).save(folder / "images" / name / f"{number:02}.png")
    return build_tfrecords.build(str(folder / "images"), str(folder / "data"), eval_fraction=0.25, workers=1).folder


if __name__ == "__main__":
    main()
