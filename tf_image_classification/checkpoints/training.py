"""Training's own checkpoints: `tf.train.Checkpoint` with every variable under a name, so that weights can be read
without the model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import keras
import tensorflow as tf

from tf_image_classification.checkpoints.scopes import summary
from tf_image_classification.errors import CheckpointError
from tf_image_classification.nets import scoped_names

WEIGHTS, OPTIMIZER, RANDOM = "weights", "optimizer", "random"
VALUE_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


def training_checkpoint(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    global_step: tf.Variable,
    extra: Mapping[str, tf.Variable] | None = None,
) -> tf.train.Checkpoint:
    """All that a training needs to continue as if it had not stopped, for a `tf.train.CheckpointManager`.

    It holds `weights` (scoped name -> variable), `optimizer` (Keras path -> iterations and slots), `random` (the states
    of dropout and the like), `global_step`, and each of `extra` under its own name.

    Args:
        optimizer: must be built.
    """
    weights = scoped_names(model)
    known = {id(variable) for variable in weights.values()}
    random = [variable for variable in model.variables if id(variable) not in known]
    return tf.train.Checkpoint(
        **{
            WEIGHTS: {name: variable.value for name, variable in weights.items()},
            OPTIMIZER: _by_path(optimizer.variables),
            RANDOM: {str(index): variable.value for index, variable in enumerate(random)},
            "global_step": global_step,
            **(extra or {}),
        }
    )


def restore(checkpoint: tf.train.Checkpoint, path: str) -> None:
    """Restores a training checkpoint completely, or changes nothing.

    Args:
        checkpoint: made by `training_checkpoint`.
        path: prefix of a saved one.

    Raises:
        CheckpointError: it was saved by another network, optimizer or choice of --trainable_scopes.
        tf.errors.OpError: it is damaged, or there is none.
    """
    saved = {
        key: tuple(shape)
        for key, shape in tf.train.load_checkpoint(path).get_variable_to_shape_map().items()
        if key.endswith(VALUE_SUFFIX)
    }
    for part, what in ((WEIGHTS, "network"), (OPTIMIZER, "optimizer or a choice of --trainable_scopes")):
        wanted = {
            _key(part, name): (name, tuple(variable.shape)) for name, variable in getattr(checkpoint, part).items()
        }
        differing = [name for key, (name, shape) in wanted.items() if saved.get(key) != shape]
        surplus = [key for key in saved if key.startswith(f"{part}/") and key not in wanted]
        if differing or surplus:
            raise CheckpointError(
                f"{path} was saved by a training with another {what}",
                received=f"a checkpoint that differs in {len(differing) + len(surplus)} variables"
                + (f", among them {summary(differing)}" if differing else ""),
                hint=(
                    "Give the flags of that training, or another --model_dir. To start from its "
                    "weights, give it as --checkpoint_path."
                ),
            )
    checkpoint.restore(path).assert_existing_objects_matched()


def _by_path(variables: Iterable[keras.Variable]) -> dict[str, tf.Variable]:
    named: dict[str, tf.Variable] = {}
    for variable in variables:
        # Keras numbers the optimizers of a process: adam_1/iteration is the iteration of its second Adam.
        path = name = re.sub(r"^(\w+?)_\d+/", r"\1/", variable.path)
        count = 0
        while name in named:  # two slots whose variables' paths differ by '/' and '_' only
            count += 1
            name = f"{path}_{count}"
        named[name] = variable.value
    return named


def _key(part: str, name: str) -> str:
    # How tf.train.Checkpoint escapes the names of its objects.
    return f"{part}/{name.replace('.', '..').replace('/', '.S')}{VALUE_SUFFIX}"
