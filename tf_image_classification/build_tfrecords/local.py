"""The engine of one machine: jobs spread over worker processes, their answers in the order of the jobs.

The workers are programs of their own that talk in lines of JSON. multiprocessing would import the main module again in
each of them, and the main module of a training is a user's script that loads TensorFlow.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import queue
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from tf_image_classification import errors
from tf_image_classification.build_tfrecords.worker import Answer, Job, run
from tf_image_classification.errors import UserError

_JOBS_AHEAD = 4  # per worker: keeps all of them busy behind a slow one, and bounds what waits on the disk
_SERVE = "from tf_image_classification.build_tfrecords import worker; worker.serve()"

Worker = subprocess.Popen[str]


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_jobs(jobs: Iterable[Job], workers: int) -> Iterator[tuple[Job, Answer]]:
    """Runs jobs on so many cores: in this process, which works while the others start, and in all but one more.

    Yields:
        Each job with its answer, in the order of `jobs`, whatever the number of workers.

    Raises:
        UserError: the first error that a worker answered with, or that a worker died.
    """
    answers = ((job, run(job)) for job in jobs) if workers == 1 else _run_in_processes(jobs, workers)
    for job, answer in answers:
        if "error" in answer:
            raise getattr(errors, answer["kind"])(**answer["error"])
        yield job, answer


def _run_in_processes(jobs: Iterable[Job], workers: int) -> Iterator[tuple[Job, Answer]]:
    idle: queue.SimpleQueue[Worker | None] = queue.SimpleQueue()
    idle.put(None)  # this process
    pending: collections.deque[tuple[Job, Future[Answer]]] = collections.deque()
    with (
        contextlib.ExitStack() as stack
    ):  # in the end: the workers are killed, then nobody waits for one, then their pipes are closed
        started = []
        for _ in range(workers - 1):
            started.append(_start())
            stack.callback(_close, started[-1])
        executor = ThreadPoolExecutor(workers)
        stack.callback(executor.shutdown, cancel_futures=True)
        for worker in started:
            stack.callback(worker.kill)
            idle.put(worker)
        for job in jobs:
            pending.append((job, executor.submit(_do, idle, job)))
            if len(pending) > _JOBS_AHEAD * workers:
                done, future = pending.popleft()
                yield done, future.result()
        while pending:
            done, future = pending.popleft()
            yield done, future.result()


def _start() -> Worker:
    # The same modules as here, wherever this package was imported from.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(os.path.abspath(folder) for folder in sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", _SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )


def _close(worker: Worker) -> None:
    worker.kill()
    with contextlib.suppress(BrokenPipeError):  # of a job that it did not take any more
        worker.communicate()


def _do(idle: queue.SimpleQueue[Worker | None], job: Job) -> Answer:
    worker = idle.get()
    try:
        return run(job) if worker is None else _ask(worker, job)
    finally:
        idle.put(worker)


def _ask(worker: Worker, job: Job) -> Answer:
    assert worker.stdin and worker.stdout
    line = ""
    with contextlib.suppress(BrokenPipeError):
        worker.stdin.write(json.dumps(job) + "\n")
        worker.stdin.flush()
        line = worker.stdout.readline()
    if not line.endswith("\n"):
        code = worker.wait()
        ended = f"signal {-code}" if code < 0 else f"exit code {code}"
        at = (
            job["records"]
            if "records" in job
            else f"{job['entries'][0][0]} and the {len(job['entries']) - 1} images after it"
        )
        raise UserError(
            "A worker process died",
            received=f"{ended}, while working on {at}",
            hint="If memory ran out (signal 9), give fewer --workers.",
        )
    answer: Answer = json.loads(line)
    return answer
