"""A task of a synchronous cluster under `peer_watch`, with short limits: python -m tests.training.watched_task [WORKER]

It makes steps, each of which is one collective operation, for ever or up to STEPS. The named worker (0 for the chief)
works outside of TensorFlow for WORK seconds after its third step, while the others wait for it in theirs.
"""

from __future__ import annotations

import os
import sys
import time

import tensorflow as tf

from tf_image_classification import cluster, command_line
from tf_image_classification.training import distribution, peer_watch


def main(argv: list[str] | None) -> None:
    """Joins the cluster, and steps."""
    distribution.HEARTBEAT_SECONDS = 6
    peer_watch._SILENCE_SECONDS = peer_watch._LEAVING_SECONDS = 4.0
    peer_watch.STOP_SECONDS = 5.0
    task = cluster.current()
    strategy = distribution.strategy()

    @tf.function(autograph=False)
    def step() -> tf.Tensor:
        return strategy.reduce(tf.distribute.ReduceOp.SUM, tf.constant(1.0), axis=None)

    with peer_watch.watching(task):
        for number in range(1, int(os.environ.get("STEPS", 10**9)) + 1):
            assert float(step()) == task.num_workers
            print("step", number, flush=True)
            if number == 3 and str(task.worker_index) in (argv or sys.argv[1:]):
                work()
            time.sleep(0.05)


def work() -> None:
    """Takes WORK seconds, in which the main thread holds the interpreter's lock as Python code does."""
    print("working", flush=True)
    end = time.monotonic() + float(os.environ["WORK"])
    while time.monotonic() < end:
        time.sleep(0.01)
    print("has worked", flush=True)


if __name__ == "__main__":
    command_line.main(main)
