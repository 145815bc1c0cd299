"""A build as processes: what it needs, and what happens when one of them dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from tests.build_tfrecords.support import command, fail, pictures, print_and_answer
from tf_image_classification.build_tfrecords import local
from tf_image_classification.data import manifest
from tf_image_classification.errors import DataError


def test_a_killed_build_leaves_nothing_that_looks_finished_and_can_be_run_again(tmp_path):
    root = pictures(tmp_path / "photos", {"cat": 300, "dog": 300})
    slow = Image.effect_noise((1000, 1000), 50)
    for number in range(10):  # enough work to be killed in the middle of it
        slow.save(root / "cat" / f"slow-{number}.bmp")
    arguments = ("--train_metadata", root, "--output_dir", tmp_path / "data", "--workers", 2)
    words = [sys.executable, "-m", "tf_image_classification.build_tfrecords", *map(str, arguments)]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL, start_new_session=True)
    while not list(tmp_path.glob(".data.partial-*/.train-0")):
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "data").exists()
    assert command(*arguments).returncode == 0
    assert manifest.read(str(tmp_path / "data")).splits["train"].rejected == 0
    assert sorted(os.listdir(tmp_path)) == ["data", "photos"]


def test_a_worker_that_dies_is_a_clear_error(tmp_path):
    root = pictures(tmp_path / "photos", {"cat": 200, "dog": 200})
    code = (
        "import threading, time, os, signal\n"
        "from tf_image_classification.build_tfrecords import local, builder\n"
        "started, start = [], local._start\n"
        "def remembered():\n"
        "    started.append(start()); return started[-1]\n"
        "local._start = remembered\n"
        "def kill():\n"
        "    while not started: time.sleep(0.001)\n"
        "    os.kill(started[0].pid, signal.SIGKILL)\n"
        "threading.Thread(target=kill).start()\n"
        f"builder.build({str(root)!r}, {str(tmp_path / 'data')!r}, workers=2)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "A worker process died. Received: signal 9, while working on" in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["photos"]


def test_workers_import_nothing_from_the_current_folder_that_the_command_does_not(tmp_path):
    root = pictures(tmp_path / "photos", {"cat": 200, "dog": 200})
    (tmp_path / "pickle.py").write_text("raise SystemExit('not the standard library')\n")
    done = subprocess.run(
        [
            *(sys.executable, "-P", "-m", "tf_image_classification.build_tfrecords", "--train_metadata", root),
            *("--output_dir", tmp_path / "data", "--workers", "2"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    root = pictures(tmp_path / "photos", {"cat": 2, "dog": 2})
    peaks = []
    for count in (2_000, 20_000):
        for number in range(count):  # links: quick to make
            for label in ("cat", "dog"):
                path = root / label / f"link-{number}.png"
                if not path.is_symlink():
                    path.symlink_to(f"{number % 2:04}.png")
        code = (
            "import resource, sys\n"
            "from tf_image_classification.build_tfrecords import build\n"
            f"build({str(root)!r}, {str(tmp_path / 'data')!r}, workers=2)\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
        )
        peaks.append(
            int(subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout)
        )
    assert peaks[1] < 1.1 * peaks[0]


def test_building_imports_neither_tensorflow_nor_plotting(tmp_path):
    root = pictures(tmp_path / "photos", {"cat": 20, "dog": 20})
    code = (
        "import sys\n"
        "from tf_image_classification import build_tfrecords\n"
        f"build_tfrecords.build({str(root)!r}, {str(tmp_path / 'data')!r})\n"
        "sys.exit(', '.join({'tensorflow', 'keras', 'matplotlib', 'kfp'} & sys.modules.keys()) or None)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_error_arrives_from_another_process_with_all_its_parts():
    errors = []
    for job in ("one", "two", "three", "four"):  # whichever process takes it
        with pytest.raises(DataError) as raised:
            list(local.run_jobs(fail, [job] * 8, workers=2))
        errors.append(raised.value)
    assert {(error.problem, error.expected) for error in errors} == {("It failed", "something else")}
    assert [error.received for error in errors] == ["one", "two", "three", "four"]
    assert all(str(error).endswith(error.hint) for error in errors)


def test_results_are_in_the_order_of_the_jobs_whatever_the_jobs_print():
    jobs = [str(number) for number in range(2000)]
    results = [result for _, result in local.run_jobs(print_and_answer, jobs, workers=3)]
    assert [job for job, _ in results] == jobs
    assert len({process for _, process in results}) > 1
