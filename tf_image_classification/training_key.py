"""Which flag values distinguish one training from another: equal ones share the folder of their checkpoints."""

from __future__ import annotations

from collections.abc import Mapping

from tf_image_classification import flags as flag_table

# Set, they and the cosine schedule make every step of a training depend on --train_steps.
_FRACTIONS_OF_TRAIN_STEPS = ("warmup_fraction", "head_fraction", "num_evals")


def checkpoint_key_flags(values: Mapping[str, object]) -> dict[str, object]:
    """The flag values that distinguish one training from another: those not at their defaults, sorted by name.

    A flag that is added later is at its default in earlier trainings, so it changes none of their keys. --train_steps
    is among them only if it decides more than where the training ends.

    Args:
        values: flag name -> validated value; flags that the training step does not take are ignored.
    """
    flags = {flag.name: values.get(flag.name, flag.default) for flag in flag_table.FLAGS if flag.is_training}
    if flags["precision"] in ("float32", "mixed_float16"):  # which have a name in earlier versions
        flags |= {"mixed_precision": flags["precision"] == "mixed_float16", "precision": None}
    key = {name for name in flags if flag_table.BY_NAME[name].in_checkpoint_key}
    if flags["learning_rate_decay_type"] == "cosine" or any(map(flags.get, _FRACTIONS_OF_TRAIN_STEPS)):
        key.add("train_steps")
    return {name: flags[name] for name in sorted(key) if flags[name] != flag_table.BY_NAME[name].default}
