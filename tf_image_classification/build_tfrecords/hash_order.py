"""Pictures in the order of their hashes, sorted on disk: memory does not grow with their number beyond a million."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

IN_MEMORY = 2**20  # pictures that are sorted at once: 24 MiB
_BLOCK = 2**16  # that are read at once
_MAX_FILES = 512
_WORD_BITS = 64


def in_order(
    pictures: npt.NDArray[np.int64], words: npt.NDArray[np.uint64], in_memory: int = IN_MEMORY
) -> Iterator[npt.NDArray[np.int64]]:
    """Pictures in the order of a part of their hashes; equals as they are given.

    Args:
        pictures: their ids, counted from 1; may be mapped from a file.
        words: of picture 1, 2 and so on; may be mapped from a file.
        in_memory: so many are sorted at once. Where most hashes begin alike, it can be more.

    Yields:
        Parts of `pictures`, one after the other.
    """
    bits = min(_MAX_FILES.bit_length() - 1, max(0, (len(pictures) - 1) // in_memory).bit_length())
    if bits == 0:
        yield _sorted(pictures[:], words[pictures[:] - 1])
        return
    import numpy as np

    with contextlib.ExitStack() as stack:
        # Those whose words begin with the same bits, in the order in which they are given: sorted by these bits.
        files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(2**bits)]
        for begin in range(0, len(pictures), _BLOCK):
            block = pictures[begin : begin + _BLOCK]
            first_bits = (words[block - 1] >> np.uint64(_WORD_BITS - bits)).astype(np.int64)
            order = np.argsort(first_bits, kind="stable")
            ends = np.cumsum(np.bincount(first_bits, minlength=len(files)))
            for file, of_file in zip(files, np.split(block[order], ends[:-1]), strict=True):
                file.write(of_file.tobytes())
        for file in files:
            of_file = _read(file)
            if len(of_file):
                yield _sorted(of_file, words[of_file - 1])


def _read(file: BinaryIO) -> npt.NDArray[np.int64]:
    import numpy as np

    file.seek(0)
    return np.frombuffer(file.read(), np.int64)


def _sorted(pictures: npt.NDArray[np.int64], words: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    import numpy as np

    return pictures[np.argsort(words, kind="stable")]
