"""Why a checkpoint is not read: it is damaged, or asks for more than a checkpoint's values; and what is too much."""

from __future__ import annotations

import struct
import zipfile
import zlib

from tf_image_classification.errors import CheckpointError

MAX_RATIO = 20  # of a file's values, unpacked, to its size: weights hardly compress, but a new optimizer's zeros do
_SMALLEST = 1 << 20  # files below this size, in bytes, may unpack to as much as a file of this size


def max_unpacked(size: int) -> int:
    """The most bytes that a file of `size` bytes may unpack to."""
    return MAX_RATIO * max(size, _SMALLEST)


def damaged(path: str, reason: object) -> CheckpointError:
    """The error for a file that its reader cannot make sense of."""
    return CheckpointError(
        f"The checkpoint {path} cannot be read: it is damaged or not a checkpoint",
        received=str(reason),
        hint="Copy or download it again.",
    )


def unsafe(path: str, received: str, expected: str) -> CheckpointError:
    """The error for a file that its reader would understand, but that no checkpoint needs to be like."""
    return CheckpointError(
        f"The checkpoint {path} is refused: it is more than the values of variables",
        received=received,
        expected=expected,
        hint="Do not use it if you do not know who made it; else save the weights again, for example with "
        "keras.Model.save_weights.",
    )


def read_errors() -> tuple[type[Exception], ...]:
    """What the readers of checkpoints raise for a file that they cannot make sense of."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    # LookupError: TensorFlow's reader raises IndexError for a truncated data file. EOFError: zipfile.
    of_formats = (zipfile.BadZipFile, zlib.error, EOFError, struct.error, DecodeError)
    return OSError, RuntimeError, ValueError, TypeError, LookupError, *of_formats, tf.errors.OpError


def first_line(error: Exception) -> str:
    """The first line of an error's message; TensorFlow's have many."""
    return next(iter(str(error).splitlines()), type(error).__name__)
