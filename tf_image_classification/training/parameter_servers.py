"""Asynchronous clusters: the chief connects to workers and parameter servers, which serve it until it has ended.

The chief is `tf.distribute`'s coordinator: it computes no updates. Workers compute them one by one, each with the
variables as it finds them on the parameter servers.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from types import FrameType

import tensorflow as tf

from tf_image_classification.cluster import PeerError, Role, Task
from tf_image_classification.errors import FlagError, TrainingError
from tf_image_classification.training import presence

_POLL_SECONDS = 1.0
_LEAVING_SECONDS = 20.0  # that a stopped parameter server gives the chief to save: Kubernetes kills after 30
_RPC_SECONDS = 5.0

_log = logging.getLogger(__name__)


class Servers:
    """The chief's connection to the workers and parameter servers of its cluster.

    Nothing may have used TensorFlow's devices before. One variable lives on one parameter server: partitioning pays for
    embeddings of gigabytes, not for kernels of a convolution, and would change the names in checkpoints.

    Attributes:
        strategy: under which the variables on the parameter servers are created.
        coordinator: schedules functions on the workers.

    Raises:
        FlagError: the cluster has no worker besides the chief, or workers with several GPUs.
        PeerError: not all tasks came.
    """

    def __init__(self, task: Task) -> None:
        self._addresses = _cluster_of(task)
        self._servers = presence.names_of(task, (Role.PS,))
        presence.wait_for(presence.names_of(task, (Role.WORKER, Role.PS)))
        resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
            tf.train.ClusterSpec(self._addresses), task_type="chief", task_id=0, rpc_layer="grpc"
        )
        try:
            self.strategy = tf.distribute.ParameterServerStrategy(resolver)
        except tf.errors.OpError as error:
            raise _lost(str(error)) from error
        if self.strategy.num_replicas_in_sync > 1:
            raise FlagError(
                "A worker of a cluster with parameter servers has several GPUs",
                received=self.strategy.num_replicas_in_sync,
                expected="at most one GPU per worker, and more workers",
            )
        self.coordinator = tf.distribute.coordinator.ClusterCoordinator(self.strategy)
        self._leaving = [
            _SharedFlag(f"grpc://{address}", "ps", index, "leaving") for index, address in enumerate(self._servers)
        ]
        self._presence = {role: presence.Presence(presence.names_of(task, (role,))) for role in (Role.WORKER, Role.PS)}

    @property
    def num_workers(self) -> int:
        """The number of workers that compute updates."""
        return len(self._addresses["worker"])

    def check(self) -> None:
        """Looks at all tasks; some of the workers may be missing.

        Raises:
            PeerError: a parameter server is lost, or all workers are.
        """
        for tasks in self._presence.values():
            tasks.look()
        if absent := self._presence[Role.PS].absent(presence.LOST_SECONDS):
            raise _lost(f"no answer of {', '.join(absent)} for {presence.LOST_SECONDS:g} s")
        absent = self._presence[Role.WORKER].absent(presence.LOST_SECONDS)
        if len(absent) == self.num_workers:
            raise PeerError(
                "All workers are lost",
                received=f"no answer of {', '.join(absent)} for {presence.LOST_SECONDS:g} s",
                hint="This task ends, to be restarted with them: the training continues from its last checkpoint.",
            )

    def leaving(self) -> bool:
        """Whether a parameter server was asked to stop, and waits for the chief to save."""
        try:
            return any(flag.is_set() for flag in self._leaving)
        except tf.errors.OpError:
            return False  # `check` knows more

    def finish(self) -> None:
        """Tells all workers and parameter servers that the training has succeeded."""
        for job in ("worker", "ps"):
            for index, address in enumerate(self._addresses[job]):
                try:
                    _SharedFlag(f"grpc://{address}", job, index, "finished").set()
                except tf.errors.OpError:
                    _log.warning("%s %d at %s is not there to learn that the training has ended", job, index, address)


def serves(task: Task) -> bool:
    """Whether a task is a worker or a parameter server of an asynchronous cluster."""
    return task.has_parameter_servers and task.role in (Role.WORKER, Role.PS) and not task.is_chief


def serve(task: Task) -> None:
    """Serves the chief until its training has succeeded.

    Raises:
        PeerError: the chief did not come, or was lost.
        TrainingError: the address of the task cannot be listened on.
        SystemExit: with 128 + its number after SIGTERM or SIGINT; a parameter server gives the chief time to save.
    """
    addresses = _cluster_of(task)
    job, index = str(task.role), task.index
    if task.role == Role.WORKER and not task.cluster.get(Role.CHIEF):
        index -= 1  # worker 0 is the chief
    chief = presence.ChiefWatch(task)
    # Parameter servers beside workers on one machine leave the GPUs to them.
    config = tf.compat.v1.ConfigProto(device_count={"GPU": 0} if task.role == Role.PS else {})
    try:
        server = tf.distribute.Server(
            tf.train.ClusterSpec(addresses), job_name=job, task_index=index, protocol="grpc", config=config
        )
    except tf.errors.OpError as error:
        raise TrainingError(f"Cannot serve at {addresses[job][index]}", received=str(error).splitlines()[0]) from error
    finished = _SharedFlag(server.target, job, index, "finished")
    leaving = _SharedFlag(server.target, job, index, "leaving")
    _log.info("Serving the chief at %s as %s", chief.address, task)
    received = _Signals()
    leave_at = 0.0
    while not (is_finished := finished.is_set()) or chief.is_there:
        if not is_finished:
            chief.check()
        else:
            chief.is_there = presence.is_there(chief.address)
        if received.number and not leave_at:
            leave_at = time.monotonic() + (_LEAVING_SECONDS if task.role == Role.PS else 0.0)
            leaving.set()
        if leave_at and (not chief.is_there or time.monotonic() >= leave_at):
            _log.warning("Stopped by %s", signal.Signals(received.number).name)
            raise SystemExit(128 + received.number)
        time.sleep(_POLL_SECONDS)
    _log.info("The training has ended")


def end_process(task: Task) -> None:
    """Ends the process of a chief with parameter servers at once, with 0: all is done.

    TensorFlow's connections to tasks that end as well can keep an interpreter that is finalized waiting. Other
    processes are left alone.
    """
    if task.has_parameter_servers:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


class _Signals:
    """The number of the last SIGTERM or SIGINT that this process got, which do nothing else from now on; 0 before."""

    def __init__(self) -> None:
        self.number = 0
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread set handlers
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.number = number


class _SharedFlag:
    """A flag in the server of a task, which every process of the cluster can set and read: a queue of that name.

    Args:
        target: of the server, grpc://HOST:PORT.
        job, index: of the task.
        name: of the flag.
    """

    def __init__(self, target: str, job: str, index: int, name: str) -> None:
        graph = tf.Graph()
        with graph.as_default(), tf.device(f"/job:{job}/task:{index}/device:CPU:0"):
            queue = tf.queue.FIFOQueue(1024, tf.bool, shared_name=name)
            self._size, self._put = queue.size(), queue.enqueue(True)
        config = tf.compat.v1.ConfigProto(
            device_filters=[f"/job:{job}/task:{index}"], operation_timeout_in_ms=int(1000 * _RPC_SECONDS)
        )
        self._session = tf.compat.v1.Session(target, graph, config)

    def set(self) -> None:
        self._session.run(self._put)

    def is_set(self) -> bool:
        return int(self._session.run(self._size)) > 0


def lost_worker(error: Exception) -> bool:
    """Whether a result could not be had because a worker is gone."""
    text = str(error)
    return isinstance(error, tf.errors.UnavailableError) and "/job:worker" in text and "/job:ps" not in text


def lost_server(error: Exception) -> PeerError | None:
    """The error to raise where an update failed because a parameter server is gone; None if it failed otherwise."""
    text = str(error)
    is_lost = isinstance(error, tf.errors.UnavailableError | tf.errors.AbortedError) or (
        # A parameter server that was restarted knows nothing of the training.
        isinstance(error, tf.errors.OpError) and ("context_id" in text or "incarnation" in text)
    )
    return _lost(text) if is_lost else None


def _lost(received: str) -> PeerError:
    return PeerError(
        "A parameter server is lost, and the variables on it with it",
        received=" ".join(received.split())[:500],
        hint="The training cannot go on. It ends, to be restarted with all its tasks: it continues from its last "
        "checkpoint. --save_checkpoints_secs decides how much is repeated.",
    )


def _cluster_of(task: Task) -> dict[str, list[str]]:
    """Job -> addresses, as tf.distribute wants them: with a chief."""
    chief = presence.chief_address(task) if task.worker_addresses else ""
    workers = [address for address in task.cluster.get(Role.WORKER, ()) if address != chief]
    if not workers:
        raise FlagError(
            "The cluster has parameter servers and no worker beside the chief",
            received=", ".join(f"{len(tasks)} {role}" for role, tasks in task.cluster.items()),
            expected="a chief, which computes no updates, at least one worker and at least one ps",
        )
    return {"chief": [chief], "worker": workers, "ps": list(task.cluster[Role.PS])}
