from __future__ import annotations

import threading

from tf_image_classification.training.background import BackgroundWorker


def test_requests_during_a_run_make_one_more_run_after_it():
    started, proceed, runs = threading.Event(), threading.Event(), []

    def work() -> None:
        runs.append(threading.current_thread())
        started.set()
        proceed.wait(10)

    worker = BackgroundWorker(work)
    worker.request()
    assert started.wait(10)
    for _ in range(5):
        worker.request()
    proceed.set()
    worker.wait()
    assert len(runs) == 2
    assert threading.current_thread() not in runs


def test_a_request_after_all_are_served_is_served_too():
    runs = []
    worker = BackgroundWorker(lambda: runs.append(1))
    for count in (1, 2):
        worker.request()
        worker.wait()
        assert len(runs) == count


def test_after_an_error_nothing_runs_any_more_and_the_owner_finds_it():
    runs = []

    def work() -> None:
        runs.append(1)
        raise OSError("no space")

    worker = BackgroundWorker(work)
    for _ in range(2):
        worker.request()
        worker.wait()
    assert str(worker.error) == "no space"
    assert len(runs) == 1
