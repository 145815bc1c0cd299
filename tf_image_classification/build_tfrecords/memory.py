"""A limit on the memory that this process takes for one image: a decoder that asks for more fails, not the machine.

It is a limit of the address space, the only one that allocations respect, beyond what the process has when it starts on
the image: a training that builds its data set has many gigabytes of it in use by TensorFlow.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator

_STATM = "/proc/self/statm"  # in pages; the first number is the address space (proc_pid_statm(5))


@contextlib.contextmanager
def limited(num_bytes: int) -> Iterator[None]:
    """Allocations within the block that add up to more fail. Without effect where there is no /proc, as on macOS.

    Args:
        num_bytes: that this process may take in addition to what it has.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = _address_space() + num_bytes
    if limit == num_bytes or (soft != resource.RLIM_INFINITY and soft <= limit):
        yield
        return
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _address_space() -> int:
    """Bytes; 0 if it is not known."""
    try:
        with open(_STATM, "rb", buffering=0) as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
