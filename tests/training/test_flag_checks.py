from __future__ import annotations

import logging

import pytest

from tf_image_classification import flags as flag_table
from tf_image_classification.data.manifest import Downscaled, Manifest
from tf_image_classification.flags import Flags
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


@pytest.mark.parametrize(
    ("flags", "warned"),
    [
        ({"sync_batch_norm": True, "batch_norm": "frozen", "checkpoint_path": "x.keras"}, ["--sync_batch_norm has no"]),
        ({"sync_batch_norm": True}, []),
        ({"replicas_to_aggregate": 4}, ["--replicas_to_aggregate 4 has no effect without --sync_replicas"]),
        ({"replicas_to_aggregate": 4, "sync_replicas": True}, []),
    ],
)
def test_flags_that_take_no_effect_are_warned_of(flags, warned, caplog):
    caplog.set_level(logging.WARNING)
    flag_checks.warn(flag_table.validate(flags, [flag.name for flag in flag_table.of_command(flag_table.TRAIN)]))
    assert [message[: len(start)] for message, start in zip(caplog.messages, warned, strict=True)] == warned


def test_a_training_is_checked(built_data, training_flags, caplog):
    from tests.training.support import train

    train(built_data, training_flags(train_steps=1, optimizer="adam"))
    assert sum("--opt_epsilon 1.0" in message for message in caplog.messages) == 1


@pytest.mark.parametrize(
    ("downscaled", "warned"),
    [
        (Downscaled(15, 1, 2, 1), True),
        (Downscaled(16, 1, 2, 1), False),
        (Downscaled(15, 0, 0, 0), False),
        (None, False),
    ],
)
def test_images_that_were_built_smaller_than_the_network_takes_them_are_warned_of(downscaled, warned, caplog):
    data = Manifest((), {}, downscaled=downscaled)
    flag_checks.warn_of_small_images(data, Flags(image_size=16))
    assert ["enlarged to --image_size 16" in message for message in caplog.messages] == [True] * warned
