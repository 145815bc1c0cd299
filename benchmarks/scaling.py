"""Two synchronous workers, each on a core of its own, and the yardstick: one worker on one core.

`python -m benchmarks.scaling CORE` is a worker: it makes as many steps as each line of its input says.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tf_image_classification import library_output
from tf_image_classification.launch.processes import free_ports

if TYPE_CHECKING:
    import tensorflow as tf

BATCH_SIZE, IMAGE_SIZE, CLASSES, STEPS = 32, 224, 10, 1  # of each worker; in a measurement of two


@contextmanager
def two_and_one() -> Iterator[tuple[Callable[[], None], Callable[[], None]]]:
    """Training as many images on two workers and on one: inception_v1, whose computation outweighs its gradients."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    workers = [_start(index, {"worker": addresses}, index) for index in range(2)]
    alone = [_start(0, {}, 0)]
    try:
        yield lambda: _make_steps(workers, STEPS), lambda: _make_steps(alone, 2 * STEPS)
    finally:
        for process in (*workers, *alone):
            process.kill()
            process.communicate()


def _start(index: int, cluster: dict[str, list[str]], core: int) -> subprocess.Popen[str]:
    config = {"cluster": cluster, "task": {"type": "worker", "index": index}} if cluster else {}
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.scaling", str(core)],
        env={**os.environ, "TF_CONFIG": json.dumps(config)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _make_steps(processes: Sequence[subprocess.Popen[str]], steps: int) -> None:
    for process in processes:
        assert process.stdin
        process.stdin.write(f"{steps}\n")
        process.stdin.flush()
    for process in processes:
        assert process.stdout
        if not process.stdout.readline():
            raise SystemExit(f"A worker ended with {process.wait()}")


def _work(core: int) -> None:
    """Makes steps as the input asks, and prints a line after them."""
    os.sched_setaffinity(0, [sorted(os.sched_getaffinity(0))[core]])  # before TensorFlow counts them
    import tensorflow as tf

    from tf_image_classification.training import distribution

    strategy = distribution.strategy()
    images = tf.random.stateless_uniform([BATCH_SIZE, IMAGE_SIZE, IMAGE_SIZE, 3], [1, 2], -1, 1)
    labels = {"label": tf.one_hot(tf.range(BATCH_SIZE) % CLASSES, CLASSES)}
    batches = tf.data.Dataset.from_tensors((images, labels)).repeat()
    step = _compile(strategy)
    iterator = iter(strategy.distribute_datasets_from_function(lambda context: batches))
    for line in sys.stdin:
        for _ in range(int(line)):
            values = step(iterator)
        float(values["loss"])
        print("done", flush=True)


def _compile(strategy: tf.distribute.Strategy) -> Callable[..., Mapping[str, tf.Tensor]]:
    import tensorflow as tf

    from tf_image_classification import built_in_estimator, nets, optimizers
    from tf_image_classification import flags as flag_table
    from tf_image_classification.training import steps

    spec = built_in_estimator.BuiltInEstimator()
    names = [flag.name for flag in flag_table.of_command(flag_table.TRAIN)]
    spec.flags = flags = flag_table.validate({"learning_rate_decay_type": "fixed"}, names)
    spec.class_dict = [{"name": "label", "depth": CLASSES, "one-hot": True}]
    with strategy.scope():
        model = nets.build("inception_v1", image_size=IMAGE_SIZE, outputs={"label": CLASSES}, weight_decay=4e-5)
        optimizer = optimizers.make_optimizer(flags, flags.learning_rate)
        optimizer.build(model.trainable_variables)
        global_step = tf.Variable(0, dtype=tf.int64)
    return steps.train_step(spec, model, optimizer, model.trainable_variables, global_step, strategy)


if __name__ == "__main__":
    with library_output.quiet():
        _work(int(sys.argv[1]))
