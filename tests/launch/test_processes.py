"""A cluster as processes of this machine: what they are told, how their ends count, and that none is left behind."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tf_image_classification.errors import ServiceError, TrainingError
from tf_image_classification.launch import processes
from tf_image_classification.launch.job import ClusterShape, Job
from tf_image_classification.launch.processes import LocalProcesses

COUNTS = {"chief": 1, "worker": 2, "ps": 1, "evaluator": 1}

# What each task executes first. `times("role")` counts how often a task of the role has been started.
PRELUDE = """
import json, os, pathlib, signal, sys, time
config = json.loads(os.environ["TF_CONFIG"])
role, index = config["task"]["type"], config["task"]["index"]
folder = pathlib.Path(sys.argv[1])
(folder / f"{role}{index}.json").write_text(json.dumps(config["cluster"]))
def times(task):
    here = folder / f"{task}.times"
    here.write_text(here.read_text() + "x" if here.exists() else "x")
    return len(here.read_text())
"""


def job(folder: Path, script: str, **shape: object) -> Job:
    command = ["python", "-c", PRELUDE + script, str(folder)]
    return Job("training", command, ClusterShape(**{"replicas": 2, "image": "train:1", **shape}), str(folder))


def is_running(folder: Path) -> bool:
    return any(
        str(folder) in process.info["cmdline"]
        for process in psutil.process_iter(["cmdline"])
        if process.info["cmdline"]
    )


def test_each_task_finds_itself_and_the_others_on_loopback(tmp_path, capfd):
    script = "print('08:01:02 I Training' if role == 'worker' else 'bar', os.environ['TF_NUM_INTRAOP_THREADS'])"
    LocalProcesses().run(job(tmp_path, script + "\nif role == 'ps': time.sleep(600)", parameter_servers=1, evaluator=1))
    seen = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    assert sorted(seen) == ["chief0", "evaluator0", "ps0", "worker0", "worker1"]
    cluster = seen["chief0"]
    assert all(other == cluster for other in seen.values())
    assert {role: len(addresses) for role, addresses in cluster.items()} == COUNTS
    assert len({address for addresses in cluster.values() for address in addresses}) == 5
    lines = capfd.readouterr().out.splitlines()
    assert "bar 1" in lines
    assert "08:01:02 I worker 1: Training 1" in lines  # still a record, and says whose
    assert not is_running(tmp_path)


@pytest.mark.parametrize("loss", ["sys.exit(138)", "os.kill(os.getpid(), 9)"])
def test_all_tasks_start_again_when_one_is_lost(tmp_path, loss):
    script = f"""
if role == "worker" and times("worker") == 1: {loss}
if role == "chief" and times("chief") == 1: sys.exit(138)
"""
    LocalProcesses().run(job(tmp_path, script))
    assert [(tmp_path / f"{role}.times").read_text() for role in ("chief", "worker")] == ["xx", "xx"]


def test_a_task_that_does_not_notice_a_loss_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "_AFTER_LOSS_SECS", 0.2)
    script = """
if role == "worker" and times("worker") == 1: sys.exit(138)
if role == "chief" and times("chief") == 1:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)
"""
    LocalProcesses(grace_secs=0.5).run(job(tmp_path, script))
    assert (tmp_path / "chief.times").read_text() == "xx"


def test_a_cluster_that_is_always_lost_ends(tmp_path):
    with pytest.raises(TrainingError, match=r"lost 2 times in a row.*ended by SIGKILL"):
        LocalProcesses(restarts=1).run(job(tmp_path, "os.kill(os.getpid(), 9)"))


def test_the_error_of_a_worker_is_the_error_of_the_job(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "_AFTER_ERROR_SECS", 0.2)
    script = """
if role == "worker":
    print("Traceback", "error: Bad data.", "Received: a.png.", sep=chr(10), file=sys.stderr)
    sys.exit(2)
time.sleep(600)
"""
    with pytest.raises(TrainingError, match=r"worker 0 ended with exit code 2. Received: Bad data. Received: a.png."):
        LocalProcesses().run(job(tmp_path, script))
    assert not is_running(tmp_path)


def test_a_chief_that_has_reported_its_error_ends_the_job_with_its_exit_code(tmp_path):
    with pytest.raises(SystemExit) as ended:
        LocalProcesses().run(job(tmp_path, "sys.exit(2)"))
    assert ended.value.code == 2


def test_a_port_that_is_taken_meanwhile_is_replaced(tmp_path):
    script = "sys.exit(0 if times(role) > 1 else 1)"
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        free = iter([[taken, taken + 1], processes.free_ports(2)])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(processes, "free_ports", lambda count: next(free))
            LocalProcesses().run(job(tmp_path, script))
            free = iter([[taken, taken + 1]])
            with pytest.raises(ServiceError, match=rf"take the ports of the tasks. Received: 127.0.0.1:{taken}"):
                LocalProcesses(restarts=0).run(job(tmp_path, "sys.exit(1)"))


LAUNCH = """
import sys
from tests.launch.test_processes import *
LocalProcesses().run(job(Path(sys.argv[1]), sys.argv[2]))
"""


def launched(folder: Path, script: str) -> subprocess.Popen:
    """A process that runs a job, all tasks of which have started."""
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCH, str(folder), script + "\n(folder / f'{role}.up').touch()\ntime.sleep(600)"]
    )
    while len(list(folder.glob("*.up"))) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_all_tasks_which_may_save_what_they_have(tmp_path, number):
    save = """
def save(*_):
    (folder / f"{role}.saved").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
"""
    process = launched(tmp_path, save)
    process.send_signal(number)
    assert process.wait(timeout=60) == 128 + number
    assert sorted(path.stem for path in tmp_path.glob("*.saved")) == ["chief", "worker"]
    assert not is_running(tmp_path)


# Elsewhere nothing ends a process with the one that started it; docs/distributed.md promises it of Linux alone.
@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG of Linux's prctl")
def test_no_task_outlives_the_process_that_started_it(tmp_path):
    process = launched(tmp_path, "signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while is_running(tmp_path):
        assert time.monotonic() < deadline
        time.sleep(0.05)
