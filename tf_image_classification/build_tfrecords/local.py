"""The engine of one machine: jobs spread over worker processes, their results in the order of the jobs.

The workers are programs of their own, which exchange pickles with this process through pipes. multiprocessing would
import the main module again in each of them, and the main module of a training is a user's script that loads
TensorFlow. loky avoids that, but adds 0.1 s to a build of 300 images that takes 0.15 s, and cannot name the images at
which a worker died.
"""

from __future__ import annotations

import collections
import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

from tf_image_classification.errors import UserError

Job = TypeVar("Job")
Result = TypeVar("Result")

_PENDING_JOBS = 4  # per worker: keeps all of them busy behind a slow one, and bounds the part files on the disk
_SERVE = "from tf_image_classification.build_tfrecords import local; local.serve()"

_Worker = subprocess.Popen[bytes]


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Pool(Protocol):
    """So many cores: this process, which works while the others start, and all but one more."""

    def submit(self, work: Callable[[Job], Result], job: Job) -> Future[Result]:
        """Has a job done, after those that were submitted before.

        Args:
            work: a module's function; it, the job and the result are pickled. The job's text names it in messages.

        Returns:
            The result; or the UserError that `work` raised, or that a worker died.
        """
        ...

    def in_order(self, work: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[tuple[Job, Result]]:
        """Has jobs done.

        Args:
            work: as for `submit`.
            jobs: taken as they are needed, in the thread of the caller.

        Yields:
            Each job with its result, in the order of `jobs`, whatever the number of workers.

        Raises:
            UserError: the first one that `work` raised, or that a worker died.
        """
        ...


@contextlib.contextmanager
def pool(workers: int) -> Iterator[Pool]:
    """A pool of so many cores, whose processes end with the block."""
    if workers == 1:
        yield _OneProcess()
        return
    idle: queue.SimpleQueue[_Worker | None] = queue.SimpleQueue()
    idle.put(None)  # this process
    # In the end the workers are killed, then no thread waits for one, then their pipes are closed.
    with contextlib.ExitStack() as stack:
        started = []
        for _ in range(workers - 1):
            started.append(_start())
            stack.callback(_close, started[-1])
        executor = ThreadPoolExecutor(workers)
        stack.callback(executor.shutdown, cancel_futures=True)
        for worker in started:
            stack.callback(worker.kill)
            idle.put(worker)
        yield _Processes(executor, idle, _PENDING_JOBS * workers)


def run_jobs(work: Callable[[Job], Result], jobs: Iterable[Job], workers: int) -> Iterator[tuple[Job, Result]]:
    """Runs jobs on so many cores, see Pool.in_order."""
    with pool(workers) as cores:
        yield from cores.in_order(work, jobs)


def done_here(work: Callable[[Job], Result], job: Job) -> Future[Result]:
    """Does a job in this thread; see Pool.submit."""
    future: Future[Result] = Future()
    try:
        future.set_result(work(job))
    except UserError as error:
        future.set_exception(error)
    return future


def serve() -> None:
    """The program of a worker: does jobs from standard input until it ends, and writes their results to standard
    output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent ends its workers
    results = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints does not get between the pickles
    while True:
        try:
            work, job = pickle.load(sys.stdin.buffer)  # noqa: S301 -- the parent process wrote it
        except EOFError:
            return
        try:
            result = work(job)
        except UserError as error:
            result = error
        pickle.dump(result, results)
        results.flush()


class _OneProcess:
    """A pool of this process, which does each job as it is submitted."""

    def submit(self, work: Callable[[Job], Result], job: Job) -> Future[Result]:
        return done_here(work, job)

    def in_order(self, work: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[tuple[Job, Result]]:
        return ((job, work(job)) for job in jobs)


@dataclass(frozen=True)
class _Processes:
    """A pool of several processes.

    Attributes:
        executor: a thread for each of them.
        idle: processes, None for this one; whoever takes a worker from it owns its pipes.
        max_pending: jobs whose results have not been taken.
    """

    executor: ThreadPoolExecutor
    idle: queue.SimpleQueue[_Worker | None]
    max_pending: int

    def submit(self, work: Callable[[Job], Result], job: Job) -> Future[Result]:
        return self.executor.submit(self._run, work, job)

    def in_order(self, work: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[tuple[Job, Result]]:
        pending: collections.deque[tuple[Job, Future[Result]]] = collections.deque()
        for job in jobs:
            pending.append((job, self.submit(work, job)))
            if len(pending) > self.max_pending:
                done, future = pending.popleft()
                yield done, future.result()
        while pending:
            done, future = pending.popleft()
            yield done, future.result()

    def _run(self, work: Callable[[Job], Result], job: Job) -> Result:
        worker = self.idle.get()
        try:
            return work(job) if worker is None else _run_in(worker, work, job)
        finally:
            self.idle.put(worker)


def _start() -> _Worker:
    # The same modules as here, wherever this package was imported from.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(os.path.abspath(folder) for folder in sys.path)}
    return subprocess.Popen(  # -P: not those of the current folder, which -c would search first
        [sys.executable, "-P", "-c", _SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )


def _close(worker: _Worker) -> None:
    worker.kill()
    with contextlib.suppress(BrokenPipeError):  # of a job that it did not take any more
        worker.communicate()


def _run_in(worker: _Worker, work: Callable[[Job], Result], job: Job) -> Result:
    """Does a job in a worker, which the calling thread must own."""
    assert worker.stdin and worker.stdout
    try:
        pickle.dump((work, job), worker.stdin)
        worker.stdin.flush()
        result: Result | UserError = pickle.load(worker.stdout)  # noqa: S301 -- our own worker wrote it
    except (BrokenPipeError, EOFError, pickle.UnpicklingError):  # UnpicklingError: it died while it wrote
        code = worker.wait()
        raise UserError(
            "A worker process died",
            received=f"{f'signal {-code}' if code < 0 else f'exit code {code}'}, while working on {job}",
            hint="If memory ran out (signal 9), give fewer --workers.",
        ) from None
    if isinstance(result, UserError):
        raise result
    return result
