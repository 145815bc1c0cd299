"""Progress of long work: a bar on a terminal; elsewhere (containers, pipes) a log line every LOG_EVERY_SECS."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator

LOG_EVERY_SECS = 30.0

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def track(description: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    """Shows the progress of the block.

    Args:
        description: what is being done, as "Evaluating".
        total: number of units; None if it is not known.
        unit: plural noun of what is counted, as "images".

    Yields:
        advance(count): adds `count` finished units. Cheap enough to be called for each batch.
    """
    if sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(desc=description, total=total, unit=f" {unit}", file=sys.stderr) as bar:

            def move_bar(count: int) -> None:
                bar.update(count)

            yield move_bar
        return
    started = last_line = time.monotonic()
    done = 0

    def advance(count: int) -> None:
        nonlocal done, last_line
        done += count
        now = time.monotonic()
        if now - last_line >= LOG_EVERY_SECS:
            last_line = now
            share = f" of {total:,} ({done / total:.0%})" if total else ""
            _log.info("%s: %s%s %s, %.1f per second", description, f"{done:,}", share, unit, done / (now - started))

    yield advance
    _log.info("%s: %s %s in %.1f s", description, f"{done:,}", unit, time.monotonic() - started)
