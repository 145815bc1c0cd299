"""Recipes: named sets of flag values for usual trainings, which --recipe selects. A flag given beside it wins."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from tf_image_classification import flags as flag_table
from tf_image_classification.flag_types import Value
from tf_image_classification.flags import Flags

_log = logging.getLogger(__name__)

# Of flags that the steps resolve and train take, and no other: only these two expand a recipe.
RECIPES: dict[str, dict[str, Value]] = {
    # From a pretrained checkpoint: the head alone, then everything at a low rate.
    "finetune": {
        "batch_size": 32,
        "train_steps": 200,
        "image_size": 224,
        "eval_freq": 50,
        "augmentation": "light",
        "weight_decay": 0.01,
        "optimizer": "adamw",
        "opt_epsilon": 1e-7,
        "learning_rate_decay_type": "cosine",
        "learning_rate": 0.0001,
        "end_learning_rate": 0.0,
        "warmup_fraction": 0.1,
        "batch_norm": "frozen",
        "head_fraction": 0.3,
        "head_learning_rate": 0.001,
        "checkpoint_exclude_scopes": "auto",
        "num_evals": 4,
        "export": "best",
    },
    # Without a checkpoint.
    "scratch": {
        "batch_size": 32,
        "train_steps": 2000,
        "image_size": 224,
        "eval_freq": 50,
        "augmentation": "light",
        "weight_decay": 0.05,
        "optimizer": "adamw",
        "clip_norm": 1.0,
        "ema_decay": 0.999,
        "opt_epsilon": 1e-7,
        "learning_rate_decay_type": "cosine",
        "learning_rate": 0.001,
        "end_learning_rate": 0.0,
        "warmup_fraction": 0.05,
        "label_smoothing": 0.1,
        "num_evals": 10,
        "export": "best",
    },
}


def named(given: Mapping[str, object]) -> str | None:
    """The recipe among flags that were given; None for none.

    Raises:
        FlagError: there is no recipe of that name.
    """
    name = flag_table.BY_NAME["recipe"].parse(given.get("recipe"))
    return None if name is None else str(name)


def expand(given: Mapping[str, object]) -> dict[str, object]:
    """The flags that were given and, of their recipe, the others. Logs what the recipe sets.

    Args:
        given: flag name -> value, at its default or not; not validated.

    Raises:
        FlagError: there is no recipe of that name.
    """
    name = named(given)
    if name is None:
        return dict(given)
    added = {flag: value for flag, value in RECIPES[name].items() if flag not in given}
    _log.info("Recipe %s: %s", name, ", ".join(f"{flag} {value}" for flag, value in added.items()) or "all are given")
    return {**added, **given}


def for_step(step: str, arguments: Mapping[str, object]) -> Flags:
    """As `flags.for_step`, with the recipe expanded. A step always gets a value for every flag: those at their defaults
    count as not given.

    Raises:
        FlagError: a value is not allowed.
    """
    flags = vars(flag_table.for_step(step, arguments))
    return flag_table.validate(expand(without_defaults(flags)), flags)


def without_defaults(values: Mapping[str, object]) -> dict[str, object]:
    """Those values that are not the defaults of flags, in a training or as parameters of the pipeline."""
    table = flag_table.BY_NAME
    return {
        name: value
        for name, value in values.items()
        if name not in table or value not in (table[name].default, table[name].pipeline_default)
    }


def comparison(name: str, given: Mapping[str, object]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """What a recipe sets, for people to read.

    Args:
        given: further flags that were given; they win.

    Returns:
        The header and the rows of a table: each flag with the recipe's value, its default and, if there are any, the
        given value.
    """
    others = {flag: str(value) for flag, value in given.items() if flag != "recipe"}
    recipe = RECIPES[name]
    rows: list[Sequence[str]] = []
    for flag in flag_table.FLAGS:
        if flag.name in recipe or flag.name in others:
            default = "not set" if flag.default is None else str(flag.default)
            rows.append((flag.name, str(recipe.get(flag.name, "")), default, others.get(flag.name, "")))
    header = ("flag", name, "default", "given (wins)")
    columns = len(header) if others else len(header) - 1
    return header[:columns], [tuple(row[:columns]) for row in rows]


def without_others(name: str, values: Mapping[str, object]) -> dict[str, object]:
    """The values without those that another recipe has set: another one is given to a run that was made with it.

    Args:
        name: of the recipe that is given now.
        values: flag name -> value, checked or not.
    """
    left = dict(values)
    for other in RECIPES.keys() - {name}:
        for flag, value in RECIPES[other].items():
            if flag in left and flag_table.BY_NAME[flag].parse(left[flag]) == value:
                del left[flag]
    if reset := [flag for flag in values if flag not in left and flag not in RECIPES[name]]:
        _log.info("Back to the defaults, since they had the values of another recipe: %s", ", ".join(reset))
    return left
