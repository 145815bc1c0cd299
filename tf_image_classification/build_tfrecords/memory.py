"""A limit on the memory that this process takes for one image: a decoder that asks for more fails, not the machine.

It is a limit of private writable memory (RLIMIT_DATA, since Linux 4.7), beyond what the process has when it starts on
the image: a training that builds its data set has TensorFlow's too. A limit of the address space would count what
allocators reserve for each thread and do not use.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator

_STATM, _DATA = "/proc/self/statm", 5  # in pages; the sixth number is data and stack (proc_pid_statm(5))


@contextlib.contextmanager
def limited(num_bytes: int) -> Iterator[None]:
    """Allocations within the block that add up to more fail. Without effect where there is no /proc, as on macOS.

    Args:
        num_bytes: that this process may take in addition to what it has.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = _taken() + num_bytes
    if limit == num_bytes or (soft != resource.RLIM_INFINITY and soft <= limit):
        yield
        return
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _taken() -> int:
    """Bytes that count; 0 if it is not known."""
    try:
        with open(_STATM, "rb", buffering=0) as file:
            return int(file.read().split()[_DATA]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
