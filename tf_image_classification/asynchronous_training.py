"""The training loop of a cluster with parameter servers: updates by many workers, none of which waits for another.

The chief schedules updates, and keeps a copy of the state, which is that of a training on one machine: it saves,
evaluates and exports its copy. Before, it lets the updates that are computed end, so that the copy is of one moment.
"""

from __future__ import annotations

import contextlib
import logging
import math
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tf_image_classification import cluster, hooks, storage
from tf_image_classification.cluster import PeerError
from tf_image_classification.data.manifest import TRAIN, Manifest
from tf_image_classification.errors import DataError, FlagError
from tf_image_classification.flags import Flags
from tf_image_classification.training import checkpoint_evaluation, parameter_servers, stages, steps
from tf_image_classification.training.parameter_servers import Servers
from tf_image_classification.training.progress_hook import Progress
from tf_image_classification.training.served_state import ServedState, counters, next_number
from tf_image_classification.training.stages import Stage
from tf_image_classification.training.training_folder import TrainingFolder

if TYPE_CHECKING:
    from tf_image_classification.estimator_specs import EstimatorSpec
    from tf_image_classification.training.build import TrainingState
    from tf_image_classification.training.evaluator import Evaluator
    from tf_image_classification.training.hook import Hook

_NEVER = 2**62  # more than a training has updates
_PER_WORKER = 8  # scheduled updates: enough that none waits for the chief, also beside a worker that is much slower
_LOOK_SECONDS = 5.0  # between two looks at the tasks
_IDLE_SECONDS = 1.0
_RETRY_SECONDS = 60.0

_log = logging.getLogger(__name__)


def check_flags(flags: Flags, data: Manifest) -> None:
    """Refuses what parameter servers cannot do, and warns of flags without effect.

    Raises:
        FlagError: a flag asks for what is synchronous, or for XLA.
        DataError: the training split is in a bucket that is not mounted.
    """
    for name, why in (("sync_replicas", "aggregates gradients"), ("sync_batch_norm", "normalises by one batch")):
        if vars(flags).get(name):
            raise FlagError(
                f"--{name} {why} over workers, and with parameter servers no worker waits for another",
                received=f"--{name}, and TF_CONFIG with ps",
                expected="a cluster without parameter servers, or the flag not set",
            )
    for name, why in (
        ("jit_compile", "XLA reads no variables of other machines."),
        ("profile", "It records what the chief does, and the chief computes no updates there."),
    ):
        if vars(flags).get(name):
            raise FlagError(
                f"--{name} does not go together with parameter servers",
                received=f"--{name}, and TF_CONFIG with ps",
                expected="a cluster without parameter servers, or the flag not set",
                hint=why,
            )
    if flags.shard_streams > 1:
        _log.warning("--shard_streams saves nothing with parameter servers: each worker reads all shards")
    if flags.seed is not None:
        _log.warning(
            "--seed decides initial weights and orders of examples, but not the order of updates: results differ"
        )
    paths = [storage.mounted(path) for path in data.shard_paths(TRAIN)]
    if remote := [path for path in paths if storage.is_remote(path)]:
        raise DataError(
            "Workers of a cluster with parameter servers cannot read shards from a bucket that is not mounted",
            received=remote[0],
            expected="a path that is a file in all tasks, such as a bucket mounted at /gcs/",
            hint="Or train without parameter servers.",
        )


class AsynchronousTraining:
    """Updates a training's state on parameter servers.

    It makes exactly --train_steps updates: each takes a number, those above are skipped, and those whose worker was
    lost are made again.

    Args:
        servers: the connection to the cluster.
        spec: its loss_fn and input_fn.
        state: the chief's copy, from which the training starts, and which has the result.
        data: the training split.
        flags: of the training.
        folder: of the training.
        evaluator: of `state`.
    """

    def __init__(
        self,
        servers: Servers,
        spec: EstimatorSpec,
        state: TrainingState,
        data: Manifest,
        flags: Flags,
        folder: TrainingFolder,
        evaluator: Evaluator,
    ) -> None:
        check_flags(flags, data)
        self._servers, self._spec, self._state, self._data, self._flags = servers, spec, state, data, flags
        self._folder, self._evaluator = folder, evaluator
        self._served = ServedState(servers, spec, state, flags, data.splits[TRAIN].examples)
        self._updates: dict[int, Callable[..., tf.Tensor]] = {}  # id of a stage -> what a worker runs
        self._names: list[str] = []  # of the values of an update
        self._scheduled: queue.Queue[Any] = queue.Queue()
        self._results: queue.Queue[Any] = queue.Queue()
        self._pending = 0  # updates that are scheduled, and whose result has not been taken
        self._saved_at = self._evaluated_at = self._looked_at = time.monotonic()
        self._received = 0  # number of a signal
        self._is_leaving = False  # a parameter server
        self._is_exhausted = False  # an update was skipped: all numbers are given
        self._throttle_secs = checkpoint_evaluation.throttle_secs(cluster.current(), flags)
        self._evaluations: set[int] = set()
        if flags.num_evals:
            last, self._throttle_secs = flags.train_steps, math.inf
            self._evaluations = {round(n * last / flags.num_evals) for n in range(1, flags.num_evals)} - {0, last}

    def __call__(self, of_training: Sequence[Hook]) -> None:
        """Trains up to --train_steps, or to where the evaluator stops it.

        Args:
            of_training: as of a training on one machine. Of these, those that watch the values of updates are called,
                and the saver is; when to save, evaluate or stop is decided here.

        Raises:
            TrainingError: the loss is not a number, or a checkpoint cannot be written.
            PeerError: a parameter server is lost, or all workers are.
            Preempted: a signal ended the training, after a checkpoint.
        """
        self._watching = [hook for hook in of_training if isinstance(hook, hooks.NanStop | Progress)]
        (self._saver,) = (hook for hook in of_training if isinstance(hook, hooks.CheckpointSaver))
        step = int(self._state.global_step)
        self._iterator = self._batches(step)
        threading.Thread(target=self._fetch, daemon=True).start()
        with self._signals(), self._closing():
            self._served.push()
            for hook in (*self._watching, self._saver):
                hook.begin(step)
            self._saved_at = self._evaluated_at = self._looked_at = time.monotonic()
            while step < self._flags.train_steps and not self._should_stop:
                step = self._act(self._pause(self._advance(step)))
            self._saver.end(step)
        self._scheduled.put(None)

    def _advance(self, step: int) -> int:
        """Makes updates up to the next one after which something is due; returns the step of the last result."""
        stage = stages.stage_at(self._served.stages, step + 1)
        end = min([stage.end, *(number for number in self._evaluations if number > step)])
        self._served.started.assign(step)
        update, last = self._update(stage), tf.constant(end, tf.int64)
        window = _PER_WORKER * self._servers.num_workers
        while step < end and not self._is_due():
            while not self._is_exhausted and self._pending < min(window, end - step):
                self._scheduled.put(self._servers.coordinator.schedule(update, args=(self._iterator, last)))
                self._pending += 1
            step = self._take(step)
            if not self._pending and step < end:  # a worker was lost after it took a number, or after its update
                step, self._is_exhausted = self._served.step, False
                self._served.started.assign(step)
        return step

    def _pause(self, step: int) -> int:
        """Lets updates that are computed end, and copies the state; returns its step."""
        self._served.started.assign(_NEVER)  # those that are scheduled take a number from here, and are skipped
        while self._pending:
            step = self._take(step)
        self._is_exhausted = False
        self._served.pull()
        return int(self._state.global_step)

    def _take(self, step: int) -> int:
        """Waits a moment for the result of an update; returns the step with it."""
        now = time.monotonic()
        if now - self._looked_at > _LOOK_SECONDS:
            self._looked_at = now
            self._servers.check()
            self._is_leaving = self._servers.leaving()
        try:
            result = self._results.get(timeout=_IDLE_SECONDS)
        except queue.Empty:
            return step
        self._pending -= 1
        if isinstance(result, Exception):
            raise parameter_servers.lost_server(result) or result
        is_made, *values = result.numpy()
        if not is_made:
            self._is_exhausted = True
            return step
        for hook in self._watching:
            hook.after_step(step + 1, dict(zip(self._names, values, strict=True)))
        return step + 1

    def _is_due(self) -> bool:
        now = time.monotonic()
        return (
            self._received != 0
            or self._is_leaving
            or now - self._saved_at >= self._flags.save_checkpoints_secs
            or (now - self._evaluated_at >= self._throttle_secs)
        )

    @property
    def _should_stop(self) -> bool:
        return self._evaluator.selection.should_stop

    def _act(self, step: int) -> int:
        """Does what is due after a step, with the copied state; returns the step."""
        now = time.monotonic()
        if self._received or self._is_leaving:
            self._saver.save(step)
            self._folder.finish()
            if self._received:
                raise hooks.Preempted(self._received, step)
            raise PeerError(
                f"A parameter server was stopped; the checkpoint of step {step} is saved",
                hint="The training ends, to be restarted with all its tasks.",
            )
        is_last = step >= self._flags.train_steps  # which is evaluated after the training
        by_time = now - self._evaluated_at >= self._throttle_secs
        if not is_last and (by_time or step in self._evaluations):
            self._saver.save(step)
            self._evaluator(step)
            self._evaluated_at = self._saved_at = time.monotonic()
        elif now - self._saved_at >= self._flags.save_checkpoints_secs:
            self._saver.save(step)
            self._saved_at = time.monotonic()
        return step

    def _update(self, stage: Stage) -> Callable[..., tf.Tensor]:
        """The function that makes one update on a worker, of a stage of the state on the parameter servers.

        update(iterator, end) -> float32 [1 + values]: 1 and the values of `steps.train_step`, or 0 where the update is
        skipped because it would be the one after `end`.
        """
        if id(stage) in self._updates:
            return self._updates[id(stage)]
        served = self._served
        step = steps.train_step(
            self._spec,
            served.model,
            stage.optimizer,
            stage.variables,
            served.global_step,
            self._servers.strategy,
            inference_layers=stage.inference_layers,
            average=served.average,
        )

        @tf.function(autograph=False)
        def update(iterator: Any, end: tf.Tensor) -> tf.Tensor:
            number = next_number(served.started)

            def make() -> tf.Tensor:
                for counter in counters(stage.optimizer):  # decides the learning rate; Keras counts without a lock
                    counter.assign(tf.cast(number - stage.start, counter.dtype))
                values = step(iterator)
                self._names = list(values)
                return tf.stack([1.0, *values.values()])

            return tf.cond(number < end, make, lambda: tf.zeros([1 + len(self._names)]))

        self._updates[id(stage)] = update
        return update

    def _batches(self, step: int) -> Any:
        """An iterator for each worker: over all training examples, in an order of its own, without end.

        A worker that comes back starts with another order, and so does a training that is resumed.
        """
        streams, spec, flags, seed = self._served.streams, self._spec, self._flags, int(self._state.data_seed)
        streams.assign(step)

        def batches() -> tf.data.Dataset:
            stream = next_number(streams)
            options: dict[str, Any] = {
                "batch_size": flags.batch_size,
                "image_size": flags.image_size,
                "first_step": 0,
                "steps": flags.train_steps,
                "shuffle": not flags.debug,
            }
            if spec.has_own_input:  # its seed is a number: each worker takes other batches of the same order
                workers = self._servers.num_workers
                return spec.step_input(self._data, seed=seed, **options)().repeat().shard(workers, stream % workers)
            own = tf.random.stateless_uniform([], [seed, stream], 0, 2**31 - 1, tf.int64)
            return spec.step_input(self._data, seed=own, **options)().repeat()

        return iter(self._servers.coordinator.create_per_worker_dataset(batches))

    def _fetch(self) -> None:
        """Passes on results of updates, or the error instead of one; runs in a thread of its own."""
        while (value := self._scheduled.get()) is not None:
            limit = time.monotonic() + _RETRY_SECONDS
            while True:
                try:
                    self._results.put(value.get())
                except Exception as error:  # of whatever kind, it is the training's
                    # A worker that is lost before its result is fetched: the coordinator makes another one compute it.
                    if parameter_servers.lost_worker(error) and time.monotonic() < limit:
                        time.sleep(_IDLE_SECONDS)
                        continue
                    self._results.put(error)
                break

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and Ctrl-C end the training after a checkpoint; a second Ctrl-C at once."""

        def receive(number: int, frame: FrameType | None) -> None:
            if self._received == signal.SIGINT == number:
                raise KeyboardInterrupt
            self._received = number

        previous = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                if signal.getsignal(number) != signal.SIG_IGN:
                    previous[number] = signal.signal(number, receive)
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def _closing(self) -> Iterator[None]:
        try:
            yield
        except tf.errors.OpError as error:  # of reading or assigning a variable
            raise parameter_servers.lost_server(error) or error from error
        finally:
            for hook in self._watching:
                hook.close()
