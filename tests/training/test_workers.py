"""What workers tell each other, without a cluster: a step's reduction is given back as it was sent."""

from __future__ import annotations

import tensorflow as tf

from tf_image_classification.cluster import Role, Task
from tf_image_classification.training.workers import Wish, Wishes, Workers

ALONE = Task(Role.CHIEF, 0, {})
ONE_OF_TWO = Task(Role.WORKER, 0, {Role.WORKER: ("a:1", "b:1")})


def update(iterator, wishes=None):
    return {"loss": tf.constant(1.0), **(wishes or {})}


def granted_at(task: Task, *wish_before_steps: int) -> list[int]:
    wishes, granted = Wishes(task), []
    for step in range(1, 9):
        if step in wish_before_steps:
            wishes.make(Wish.STOP)
        if step > 1 and wishes.is_granted(Wish.STOP):
            granted.append(step - 1)
        assert wishes.exchange(update, None).keys() == {"loss"}
    return granted


def test_a_wish_of_a_worker_is_granted_once_two_steps_after_the_one_that_carries_it() -> None:
    assert granted_at(ONE_OF_TWO, 2) == [4]
    assert granted_at(ONE_OF_TWO, 2, 3, 4) == [4]  # the same wish, until it is granted


def test_a_worker_alone_waits_for_nobody() -> None:
    assert granted_at(ALONE, 2) == [1]  # after the step that has just been made
    workers = Workers(tf.distribute.get_strategy(), ALONE)
    variable = tf.Variable(3, dtype=tf.uint32)
    workers.copy_from_chief([variable])
    assert (workers.of_chief(5), int(variable)) == (5, 3)
