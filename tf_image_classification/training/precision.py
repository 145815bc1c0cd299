"""What a training computes in: --precision, and --mixed_precision, its older name for mixed_float16."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tf_image_classification.errors import FlagError
from tf_image_classification.flags import Flags

FLOAT32, MIXED_FLOAT16 = "float32", "mixed_float16"


def of(flags: Flags) -> str:
    """The name of Keras's dtype policy that the flags ask for.

    Raises:
        FlagError: --precision and --mixed_precision contradict each other.
    """
    if flags.mixed_precision and flags.precision not in (None, MIXED_FLOAT16):
        raise FlagError(
            "--mixed_precision is an older name of --precision mixed_float16, and --precision asks for another one",
            received=f"--mixed_precision true, --precision {flags.precision}",
            expected="--precision alone",
        )
    return MIXED_FLOAT16 if flags.mixed_precision else flags.precision or FLOAT32


@contextlib.contextmanager
def policy(name: str) -> Iterator[None]:
    """Makes layers created in the block compute in this precision, with float32 variables.

    Changes Keras's global policy for the block.
    """
    import keras

    previous = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.mixed_precision.set_dtype_policy(previous)
