"""The flags of a command or a step, and their validation against the table of `flag_table`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tf_image_classification.errors import FlagError, did_you_mean
from tf_image_classification.flag_table import FLAGS
from tf_image_classification.flag_types import BUILD, EVALUATE, STEPS, TRAIN, TRAIN_STEP, Flag, Flags

__all__ = ["BUILD", "EVALUATE", "FLAGS", "STEPS", "TRAIN", "TRAIN_STEP", "Flag", "Flags"]

BY_NAME: dict[str, Flag] = {flag.name: flag for flag in FLAGS}


def validate(values: Mapping[str, object], names: Iterable[str]) -> Flags:
    """Checks `values` against the table.

    Args:
        values: flag name -> value. Those of `names` that are missing get their defaults.
        names: the flags that the caller takes.

    Raises:
        FlagError: a value is not allowed, or a flag is unknown (the nearest known name is suggested).
    """
    known = list(names)
    for name in values:
        if name not in known:
            raise unknown_flag(name, known)
    return Flags(**{name: BY_NAME[name].parse(values.get(name, BY_NAME[name].default)) for name in known})


def for_step(step: str, arguments: Mapping[str, object]) -> Flags:
    """The flags of a pipeline step, checked, out of all its arguments; '' and -1 become "not set".

    Raises:
        FlagError: a value is not allowed.
    """
    names = [flag.name for flag in of_step(step)]
    return validate({name: arguments[name] for name in names if name in arguments}, names)


def unknown_flag(name: str, known: Iterable[str]) -> FlagError:
    """The error for an unknown flag; its hint names the nearest known one."""
    hint = did_you_mean(name, known, prefix="--") or "--help lists the flags."
    return FlagError(f"Unknown flag --{name}", hint=hint)


def of_command(command: str) -> list[Flag]:
    """The flags that a command line takes, in the table's order."""
    return [flag for flag in FLAGS if command in flag.commands]


def of_step(step: str) -> list[Flag]:
    """The flags that a pipeline step takes, in the table's order."""
    return [flag for flag in FLAGS if step in flag.steps]


def of_pipeline() -> list[Flag]:
    """The flags that are pipeline parameters, in the table's order."""
    return [flag for flag in FLAGS if flag.steps]
