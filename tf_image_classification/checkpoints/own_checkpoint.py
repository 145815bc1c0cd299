"""A training's own checkpoint: a `tf.train.Checkpoint` of everything that a training needs to continue.

Every variable has a name in it that does not depend on the model's structure, so that the weights can be read without
building the model (`reader.read`).
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterable, Iterator, Mapping

import keras
import tensorflow as tf

from tf_image_classification.checkpoints import refusal, table
from tf_image_classification.checkpoints.class_names import (
    ClassNames,
    StoredClassNames,
    check_unchanged,
    numbered,
    parse,
)
from tf_image_classification.checkpoints.scopes import summarize
from tf_image_classification.errors import CheckpointError
from tf_image_classification.nets import scoped_names

WEIGHTS, OPTIMIZER, HEAD_OPTIMIZER, AVERAGES, RANDOM = "weights", "optimizer", "head_optimizer", "averages", "random"
CLASS_NAMES = "class_names"
_SETTINGS = {  # part of a checkpoint -> what decides its variables
    WEIGHTS: "network",
    OPTIMIZER: "optimizer or --trainable_scopes",
    HEAD_OPTIMIZER: "--head_fraction",
    AVERAGES: "--ema_decay",
}
_VALUE_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"  # of the keys of variables in a TF2 checkpoint

_log = logging.getLogger(__name__)


def training_checkpoint(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    global_step: tf.Variable,
    extra: Mapping[str, tf.Variable] | None = None,
    *,
    head_optimizer: keras.optimizers.Optimizer | None = None,
    averages: Mapping[str, tf.Variable] | None = None,
    class_names: ClassNames | None = None,
) -> tf.train.Checkpoint:
    """All that a training needs to continue as if it had not stopped, for a `tf.train.CheckpointManager`.

    The checkpoint refers to the variables, so that it saves and restores their values of that moment.

    Args:
        optimizer: must be built.
        global_step: int64 [].
        extra: name in the checkpoint -> further variables.
        head_optimizer: of the first steps with --head_fraction; must be built.
        averages: name of a weight -> its moving average, with --ema_decay.
        class_names: those that the head's outputs mean; None: not stored, and not compared by `restore`.

    Returns:
        A checkpoint of `weights` (name of `nets.scoped_names` -> variable), `optimizer` and `head_optimizer` (Keras
        path -> iterations and slots), `averages`, `random` (index -> state of a random number generator, such as
        dropout's), `global_step`, each of `extra` under its own name, and `class_names`.
    """
    weights = scoped_names(model)
    weight_ids = {id(variable) for variable in weights.values()}
    random = [variable for variable in model.variables if id(variable) not in weight_ids]
    return tf.train.Checkpoint(
        **{
            WEIGHTS: {name: variable.value for name, variable in weights.items()},
            OPTIMIZER: _by_path(optimizer.variables),
            HEAD_OPTIMIZER: _by_path(head_optimizer.variables if head_optimizer else ()),
            AVERAGES: dict(averages or {}),
            RANDOM: {str(index): variable.value for index, variable in enumerate(random)},
            "global_step": global_step,
            **(extra or {}),
            **({CLASS_NAMES: StoredClassNames(class_names)} if class_names is not None else {}),
        }
    )


def restore(checkpoint: tf.train.Checkpoint, path: str, shown: str = "") -> None:
    """Restores a training checkpoint: sets the variables of `checkpoint` to the saved values, all of them or none.

    Args:
        checkpoint: as `training_checkpoint` returns it.
        path: prefix of a saved checkpoint, local.
        shown: how messages name it, for example by its path in a bucket; default `path`.

    Raises:
        CheckpointError: it was saved by a training on other classes, or with another network, optimizer or
            --trainable_scopes. No variable was changed.
        tf.errors.OpError: it is damaged, asks for more than its files hold, or is not found.
    """
    names = getattr(checkpoint, CLASS_NAMES, None)
    with _damage_as_data_loss():
        # The folder may be one that others can write to: its checkpoints are data like those of --checkpoint_path.
        reader = table.open_checked(path, shown or path)
        has_names = reader.has_tensor(StoredClassNames.KEY)
        stored = parse(reader.get_tensor(StoredClassNames.KEY)) if has_names else None
    if names is not None and stored is not None:
        check_unchanged(names.names, stored, shown or path)
    saved = {
        key: tuple(shape) for key, shape in reader.get_variable_to_shape_map().items() if key.endswith(_VALUE_SUFFIX)
    }
    for part, setting in _SETTINGS.items():
        variables = getattr(checkpoint, part)
        keys = {name: _key(part, name) for name in variables}
        differing = [name for name, key in keys.items() if saved.get(key) != tuple(variables[name].shape)]
        known = set(keys.values())
        surplus = [key for key in saved if key.startswith(f"{part}/") and key not in known]
        if differing or surplus:
            raise CheckpointError(
                f"{shown or path} was saved by a training with another {setting}",
                received=f"a checkpoint that differs in {len(differing) + len(surplus)} variables"
                + (f", among them {summarize(differing)}" if differing else ""),
                hint=(
                    "Give the flags of that training, or another --model_dir. To start from its "
                    "weights, give it as --checkpoint_path."
                ),
            )
    if names is not None and not has_names:
        delattr(checkpoint, CLASS_NAMES)  # what is to be restored has to be in the checkpoint
        _log.warning(
            "%s, of an earlier version, does not name the classes that it was trained on: its class ids are assumed to "
            "mean %s",
            shown or path,
            "; ".join(f"{task}: {numbered(labels)}" for task, labels in names.names.items() if labels) or "the same",
        )
    try:
        with _damage_as_data_loss():
            status = checkpoint.restore(path)
        status.assert_existing_objects_matched()
    finally:
        if names is not None:
            setattr(checkpoint, CLASS_NAMES, names)


@contextlib.contextmanager
def _damage_as_data_loss() -> Iterator[None]:
    """Raises whatever a damaged checkpoint makes its readers raise as tf.errors.DataLossError."""
    errors: tuple[type[Exception], ...] = (CheckpointError, *refusal.read_errors())
    try:
        yield
    except tf.errors.OpError:
        raise
    except errors as error:
        raise tf.errors.DataLossError(None, None, refusal.first_line(error)) from error


def _by_path(variables: Iterable[keras.Variable]) -> dict[str, tf.Variable]:
    named: dict[str, tf.Variable] = {}
    for variable in variables:
        # Keras numbers the optimizers of a process: adam_1/iteration belongs to the second Adam.
        path = name = re.sub(r"^(\w+?)_\d+/", r"\1/", variable.path)
        count = 0
        while name in named:  # Keras writes '/' as '_' in the names of slots, so that two can have one name
            count += 1
            name = f"{path}_{count}"
        named[name] = variable.value
    return named


def _key(part: str, name: str) -> str:
    """The checkpoint key of a variable, with its name escaped as tf.train.Checkpoint escapes names of objects."""
    return f"{part}/{name.replace('.', '..').replace('/', '.S')}{_VALUE_SUFFIX}"
