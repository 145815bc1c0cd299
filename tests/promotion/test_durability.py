"""Promotions and written folders under concurrency, SIGKILL and power cuts: see `durability`, which runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.promotion.durability import FILES

BUSY, BEATEN = "Another process is writing this folder", "Another model was promoted since this run began"


@pytest.fixture
def folder():
    """In memory if possible: thousands of syncs take minutes on a disk."""
    memory = "/dev/shm"  # noqa: S108 - the folder in it has a random name
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder, "run")


def run(command: str, folder, *arguments) -> object:
    folder.mkdir()
    words = [sys.executable, "-m", "tests.promotion.durability", command, str(folder), *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(params=[10, pytest.param(300, marks=pytest.mark.slow)])
def rounds(request) -> int:
    return request.param


@pytest.mark.parametrize("processes", [2, 3])
def test_of_different_models_promoted_at_once_one_is_in_service_and_the_others_learn_of_it(folder, rounds, processes):
    outcomes = run("promotions", folder, rounds, processes, "different")
    assert outcomes == {", ".join([BEATEN] * (processes - 1) + ["done"]): rounds}


@pytest.mark.parametrize("processes", [2, 3])
def test_a_model_promoted_by_several_processes_at_once_is_in_service_whole(folder, rounds, processes):
    outcomes = run("promotions", folder, rounds, processes, "same")
    assert outcomes == {", ".join(["done"] * processes): rounds}


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("rounds", [3, pytest.param(300, marks=pytest.mark.slow)])
def test_of_builds_into_one_folder_at_once_one_is_done_and_the_others_say_why_not(folder, rounds, processes):
    outcomes = run("builds", folder, rounds, processes)
    assert isinstance(outcomes, dict)
    assert sum(outcomes.values()) == rounds
    for outcome in outcomes:
        problems = outcome.split(", ")
        assert "done" in problems
        assert {*problems} <= {"done", BUSY}


@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("what", "calls"), [("promotion", 37), ("first", 41), ("exchange", 13), ("renames", 17), ("new", 13)]
)
def test_a_writer_killed_at_any_change_or_sync_leaves_one_whole_folder_and_the_next_one_ends(folder, what, calls, step):
    assert run("kills", folder, what, step) >= calls // step


def test_a_model_is_on_disk_before_its_folder_appears_and_its_folder_before_the_pointer_is(folder):
    calls = [tuple(call) for call in run("record", folder)]
    (staging,) = {path.split("/")[2] for _, path in calls if path.startswith("service/models/.new.partial-")}
    folder, model = f"service/models/{staging}", "service/models/new"
    (pointer,) = {path for _, path in calls if path.startswith("service/.champion.json.partial-")}
    for name in ("model.json", *(f"saved_model/{number}" for number in range(FILES))):
        expected = [
            ("open", f"{folder}/{name}"),
            ("fsync", f"{folder}/{name}"),
            ("fsync", f"{folder}/{name}".rpartition("/")[0]),
            ("fsync", folder),
            ("rename", model),
            ("fsync", "service/models"),
            ("open", pointer),
            ("fsync", pointer),
            ("replace", "service/champion.json"),
            ("fsync", "service"),
        ]
        expected = list(dict.fromkeys(expected))  # model.json's folder is the model's
        assert [call for call in calls if call in expected and call != ("fsync", "service")] == expected[:-1]
    assert calls.index(("fsync", "service")) < calls.index(("open", f"{folder}/model.json"))  # the folder of models/
    assert calls[-2:] == [("fsync", "service"), ("unlink", "service/.champion.json.lock")]
