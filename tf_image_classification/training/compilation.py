"""Compilation of a training step with XLA: --jit_compile."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tf_image_classification.errors import EstimatorError

if TYPE_CHECKING:
    from tf_image_classification.estimator_specs import Tensors

_FAILED = "tf2xla conversion failed"
_UNSUPPORTED = re.compile(r"unsupported operations when trying to compile graph [^:]*: (.*?)\{\{")


def explaining(step: Callable[[Any], Tensors]) -> Callable[[Any], Tensors]:
    """The step, with an error that says what to do where XLA cannot compile the estimator's model or loss.

    Args:
        step: raises what TensorFlow raises.

    Returns:
        A step that raises EstimatorError in that case.
    """

    def explained(iterator: Any) -> Tensors:
        try:
            return step(iterator)
        except tf.errors.OpError as error:
            text = str(error)
            if _FAILED not in text:
                raise
            unsupported = _UNSUPPORTED.search(text)
            raise EstimatorError(
                "XLA cannot compile the model or the loss",
                received=unsupported[1] if unsupported else text[: text.index(_FAILED)].strip().splitlines()[-1],
                expected="operations that XLA supports; what input_fn and preprocessing do is not compiled",
                hint="Replace them, or train without --jit_compile.",
            ) from error

    return explained
