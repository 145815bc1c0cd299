"""Pictures in the order of their hashes, sorted on disk: a limited number of them is in memory."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

from tf_image_classification.build_tfrecords.signature import HASH_BYTES

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

IN_MEMORY = 2**15  # pictures that are sorted at once, at some 100 bytes each
WORDS = HASH_BYTES // 8  # of a hash, 64 bits each
RECORD = [("id", "<i8"), ("small", "<i8"), ("hash", "<u8", (WORDS,))]  # dtype of a picture in a file
RECORD_BYTES = 16 + HASH_BYTES

_BLOCK = 2**14  # pictures that are read at once
_FILES_BITS = 7  # 128 files; systems admit 256 at least


def in_order(
    pictures: IO[bytes], number: int, column: int, in_memory: int = IN_MEMORY
) -> Iterator[npt.NDArray[np.void]]:
    """Pictures in the order of one of the words of their hashes; equals as they are given.

    Args:
        pictures: file of RECORDs.
        number: of pictures.
        column: of the word.
        in_memory: about so many are in memory at a time. Where most words begin alike, it can be all of them.

    Yields:
        Parts of the pictures, one after the other: RECORDs.
    """
    bits = min(_FILES_BITS, max(0, (number - 1) // in_memory).bit_length())
    if bits == 0:
        yield from (_sorted(part, column) for part in _blocks(pictures, max(1, number)))
        return
    import numpy as np

    with contextlib.ExitStack() as stack:
        # Those whose words begin with the same bits, in the order in which they are given: sorted by these bits.
        files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(2**bits)]
        for block in _blocks(pictures, _BLOCK):
            first_bits = (block["hash"][:, column] >> np.uint64(64 - bits)).astype(np.int64)
            ends = np.cumsum(np.bincount(first_bits, minlength=len(files)))
            of_files = np.split(block[np.argsort(first_bits, kind="stable")], ends[:-1])
            for file, of_file in zip(files, of_files, strict=True):
                file.write(of_file.tobytes())
        for file in files:
            yield from (_sorted(part, column) for part in _blocks(file, max(1, file.tell() // RECORD_BYTES)))
            file.truncate(0)


def _blocks(file: IO[bytes], number: int) -> Iterator[npt.NDArray[np.void]]:
    """The pictures of a file, so many at a time."""
    import numpy as np

    file.seek(0)
    while block := file.read(number * RECORD_BYTES):
        yield np.frombuffer(block, np.dtype(RECORD))


def _sorted(pictures: npt.NDArray[Any], column: int) -> npt.NDArray[Any]:
    import numpy as np

    return pictures[np.argsort(pictures["hash"][:, column], kind="stable")]
