"""Timing of interleaved pairs, which noise on a shared machine affects alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple


class Ratio(NamedTuple):
    """How many times as fast `ours` is as `yardstick`.

    Attributes:
        median: over all pairs.
        low, high: the quartiles.
        ours, yardstick: median seconds.
    """

    median: float
    low: float
    high: float
    ours: float
    yardstick: float


def compare(ours: Callable[[], object], yardstick: Callable[[], object], pairs: int) -> Ratio:
    """Times both in turn, `pairs` times, after a warm-up run of each; which goes first alternates."""
    ours()
    yardstick()
    seconds: list[tuple[float, float]] = []
    for number in range(pairs):
        if number % 2:
            yardstick_seconds = _seconds(yardstick)
            seconds.append((_seconds(ours), yardstick_seconds))
        else:
            our_seconds = _seconds(ours)
            seconds.append((our_seconds, _seconds(yardstick)))
    ratios = sorted(other / own for own, other in seconds)
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
    return Ratio(
        statistics.median(ratios),
        low,
        high,
        statistics.median(own for own, _ in seconds),
        statistics.median(other for _, other in seconds),
    )


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
