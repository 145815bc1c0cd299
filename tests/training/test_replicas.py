"""Several replicas compute what one does."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest


def run(*names: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.training.replicas", *names]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def short() -> dict[str, Any]:
    """Trainings of a few updates, in one process."""
    return run("head", "unfinished", "micro_batches", "overflow", "readings", "prefetched")


def assert_equal(left: dict[str, Any], right: dict[str, Any], tolerance: float) -> None:
    np.testing.assert_allclose(left["losses"], right["losses"], rtol=0, atol=tolerance)
    for one, other in zip(left["weights"], right["weights"], strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance)


@pytest.mark.slow
def test_two_replicas_update_average_and_re_estimate_as_one(short) -> None:
    one, two = short["head"]["one"], short["head"]["two"]
    assert one["images"] == two["images"] == 16
    for name in ("losses", "weights", "averages"):
        for left, right in zip(one[name], two[name], strict=True):
            np.testing.assert_allclose(right, left, rtol=1e-4, atol=1e-6, err_msg=name)
    assert not np.allclose(one["weights"][0], one["averages"][0])
    # The kernel's variance is unbiased, N / (N - 1), with the N values of a replica: 64 of 4x4 positions, not 128.
    (mean, variance), (mean_of_two, variance_of_two) = one["statistics"], two["statistics"]
    np.testing.assert_allclose(mean_of_two, mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.array(variance_of_two) * 63 / 64, np.array(variance) * 127 / 128, rtol=1e-3)


@pytest.mark.parametrize("name", ["four", "two on two"])
def test_micro_batches_make_the_clipped_update_of_one_batch_of_all_their_images(short, name) -> None:
    assert_equal(short["micro_batches"][name], short["micro_batches"]["one"], 1e-5)


def test_replicas_and_micro_batches_finish_the_images_that_the_host_left(short) -> None:
    assert_equal(short["unfinished"]["two"], short["unfinished"]["one"], 1e-5)


def test_an_overflow_in_any_replica_skips_the_update(short) -> None:
    assert not short["overflow"]["changed"]
    assert short["overflow"]["scale"] == 0.5


def test_values_of_several_steps_that_are_read_together_are_those_that_are_read_one_by_one(short) -> None:
    assert len(short["readings"]["together"]) == 3
    assert short["readings"]["together"] == short["readings"]["one by one"]


@pytest.mark.parametrize(
    ("name", "devices", "images"),
    [("one", ["CPU:1"], [[*range(8)]]), ("two", ["CPU:0", "CPU:1"], [[*range(4)], [*range(4, 8)]])],
)
def test_each_replica_gets_its_part_on_its_device_and_the_next_batch_is_made_meanwhile(
    short, name, devices, images
) -> None:
    assert short["prefetched"][name]["devices"] == devices
    assert short["prefetched"][name]["images"] == images
    assert short["prefetched"][name]["made"] >= 16


def test_the_replicas_have_the_same_moving_statistics(short) -> None:
    assert len(short["overflow"]["moving"]) == 4
    for first, second in short["overflow"]["moving"]:
        assert first == second


@pytest.mark.slow
def test_each_replica_draws_a_dropout_of_its_own() -> None:
    outcomes = run("dropout")["dropout"]
    for losses in outcomes.values():  # XLA draws other numbers
        one, two, four, again = losses
        assert len({round(loss, 4) for loss in (one, two, four)}) == 3  # the mean of equal losses would be the same
        assert again == four


@pytest.mark.slow
def test_synchronized_batch_normalisation_normalises_a_micro_batch_over_the_replicas() -> None:
    outcomes = run("synchronized_micro_batches")["synchronized_micro_batches"]
    assert_equal(outcomes["two"], outcomes["one"], 1e-5)


@pytest.mark.slow
def test_replicas_that_xla_compiles_make_the_updates_of_those_that_it_does_not() -> None:
    outcomes = run("compiled")["compiled"]
    assert_equal(outcomes["compiled"], outcomes["plain"], 1e-5)


@pytest.mark.slow
def test_a_hundred_steps_on_two_and_four_replicas_are_those_of_one_device() -> None:
    outcomes = run("hundred_steps")["hundred_steps"]
    for replicas in (2, 4):
        assert_equal(outcomes[f"plain {replicas}"], outcomes["plain 1"], 1e-4)
        assert_equal(outcomes[f"synchronized {replicas}"], outcomes["synchronized 1"], 1e-4)
        assert_equal(outcomes[f"normalised {replicas}"], outcomes[f"per part {replicas}"], 1e-4)
    with pytest.raises(AssertionError):  # what a replica normalises by is another batch
        assert_equal(outcomes["normalised 2"], outcomes["synchronized 1"], 1e-4)
