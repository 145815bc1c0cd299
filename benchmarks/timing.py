"""Costs of interleaved pairs, which noise on a shared machine affects alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

# Does the work once; returns what it cost: seconds, or MiB of memory.
Measure = Callable[[], float]


class Ratio(NamedTuple):
    """How much better `ours` is than `reference`: how many times as fast, or with how many times less memory.

    Attributes:
        median: of reference / ours over all pairs.
        low, high: the quartiles.
        ours, reference: median costs, of which less is better.
    """

    median: float
    low: float
    high: float
    ours: float
    reference: float


def compare(ours: Measure, reference: Measure, pairs: int, *, warm_up: bool = True) -> Ratio:
    """Measures both in turn, `pairs` times, after a run of each to warm up; which goes first alternates."""
    if warm_up:
        ours()
        reference()
    costs: list[tuple[float, float]] = []
    for number in range(pairs):
        if number % 2:
            reference_cost = reference()
            costs.append((ours(), reference_cost))
        else:
            our_cost = ours()
            costs.append((our_cost, reference()))
    ratios = sorted(other / own for own, other in costs)
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
    return Ratio(
        statistics.median(ratios),
        low,
        high,
        statistics.median(own for own, _ in costs),
        statistics.median(other for _, other in costs),
    )


def seconds(work: Callable[[], object]) -> Measure:
    """Measures the time of a piece of work."""

    def measure() -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    return measure
