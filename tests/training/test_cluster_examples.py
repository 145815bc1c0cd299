"""Which examples the workers of a cluster train on, before and after a stop."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.test_dataset import write
from tests.training import logged_examples
from tests.training.clusters import ENVIRONMENT, Cluster

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

LIMIT = 240.0  # seconds: four processes on two busy cores take a minute
BATCH, EXAMPLES = 12, 50


@pytest.fixture(scope="module")
def metadata(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("shards")
    write(folder, "train", range(EXAMPLES), 5)
    write(folder, "eval", range(100, 112), 1)
    (folder / "labels.txt").write_text("a\nb\nc\n")
    return {
        "train_metadata": f"{folder}/train-*",
        "eval_metadata": f"{folder}/eval-*",
        "labels_file": f"{folder}/labels.txt",
    }


def command(metadata: dict[str, str], model: Path, steps: int, streams: int, seed: int | None = 7) -> list[str]:
    flags = metadata | {
        "model_dir": str(model),
        "estimator": "tests.training.logged_examples:Logging",
        "image_size": "16",
        "batch_size": str(BATCH),
        "train_steps": str(steps),
        "batch_norm": "original",
        "shard_streams": str(streams),
    }
    flags |= {"seed": str(seed)} if seed is not None else {}
    words = [word for name, value in flags.items() for word in (f"--{name}", value)]
    return [sys.executable, "-m", "tf_image_classification.train_estimator", *words]


def train_on(count: int, words: list[str], folder: Path, steps: int) -> list[list[tuple[int, int]]]:
    """Trains `steps` steps with as many workers.

    Returns:
        What each worker has decoded for them: index of the example since step 0, and its number.
    """
    log = folder / "examples"
    log.mkdir(parents=True)
    environment = {logged_examples.FOLDER: str(log)}
    if count == 1:
        subprocess.run(words, env=os.environ | ENVIRONMENT | environment, check=True)
    else:
        with Cluster(words, folder / "logs", worker=count, env=environment) as cluster:
            cluster.start()
            assert cluster.wait(LIMIT) == dict.fromkeys(cluster.tasks, 0), cluster.outputs()
    lines = [file.read_text().splitlines() for file in log.iterdir()]
    each = steps * BATCH // count
    # Before it trains, the chief decodes the samples of augmentation.html.
    assert sorted(map(len, lines))[:-1] == [each] * (count - 1)
    return [[tuple(map(int, line.split())) for line in of_worker[-each:]] for of_worker in lines]


@pytest.mark.parametrize("streams", [1, 4])
def test_four_workers_stop_at_step_50_and_two_go_on_with_the_same_examples_each_once_per_epoch(
    metadata, tmp_path, streams
):
    (whole,) = train_on(1, command(metadata, tmp_path / "one", 100, streams), tmp_path / "alone", 100)
    four = train_on(4, command(metadata, tmp_path / "model", 50, streams), tmp_path / "four", 50)
    two = train_on(2, command(metadata, tmp_path / "model", 100, streams), tmp_path / "two", 50)
    whole.sort()
    assert sorted(itertools.chain(*four, *two)) == whole
    assert_once_per_epoch(whole)


def test_two_workers_without_a_seed_share_out_each_epoch(metadata, tmp_path):
    """They take the chief's: with seeds of their own, some examples would come twice, and some never."""
    words = command(metadata, tmp_path / "model", 25, 1, seed=None)
    assert_once_per_epoch(sorted(itertools.chain(*train_on(2, words, tmp_path / "two", 25))))


def assert_once_per_epoch(examples: list[tuple[int, int]]) -> None:
    """Of examples in their order, from the first one on, in whole epochs."""
    assert [index for index, _ in examples] == list(range(len(examples)))
    for begin in range(0, len(examples), EXAMPLES):
        epoch = Counter(number for _, number in examples[begin : begin + EXAMPLES])
        assert epoch == Counter(range(EXAMPLES))
