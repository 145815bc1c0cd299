from __future__ import annotations

import logging

import pytest

from tf_image_classification import flags as flag_table
from tf_image_classification.training import flag_checks


@pytest.mark.parametrize(
    ("flags", "warned"),
    [
        ({"optimizer": "adam"}, True),
        ({"optimizer": "adamw", "opt_epsilon": 1.0}, True),
        ({"optimizer": "adam", "opt_epsilon": 1e-7}, False),
        ({"optimizer": "rmsprop"}, False),
        ({"optimizer": "adadelta"}, False),
    ],
)
def test_adam_with_the_default_epsilon_is_warned_of(flags, warned, caplog):
    caplog.set_level(logging.WARNING)
    flag_checks.warn(flag_table.validate(flags, [flag.name for flag in flag_table.of_command(flag_table.TRAIN)]))
    assert [message.startswith("--opt_epsilon 1.0 makes adam") for message in caplog.messages] == [True] * warned


def test_a_training_is_checked(built_data, training_flags, caplog):
    from tests.training.support import train

    train(built_data, training_flags(train_steps=1, optimizer="adam"))
    assert sum("--opt_epsilon 1.0" in message for message in caplog.messages) == 1
