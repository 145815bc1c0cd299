"""Costs of interleaved pairs, which noise on a shared machine affects alike."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
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


def compare(pairs: Sequence[tuple[Measure, Measure]], rounds: int, *, warm_up: bool = True) -> list[Ratio]:
    """Measures ours and a reference of each pair in each of `rounds`, after a run of each to warm up.

    What several pairs have is measured once in a round, for all of them. Every other round goes backwards.

    Args:
        pairs: ours and reference.

    Returns:
        The ratio of each pair.
    """
    measures = list(dict.fromkeys(itertools.chain(*pairs)))
    if warm_up:
        for measure in measures:
            measure()
    costs: dict[Measure, list[float]] = {measure: [] for measure in measures}
    for number in range(rounds):
        for measure in measures[:: -1 if number % 2 else 1]:
            costs[measure].append(measure())
    return [_ratio(costs[ours], costs[reference]) for ours, reference in pairs]


def _ratio(ours: Sequence[float], reference: Sequence[float]) -> Ratio:
    ratios = sorted(other / own for own, other in zip(ours, reference, strict=True))
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
    return Ratio(statistics.median(ratios), low, high, statistics.median(ours), statistics.median(reference))


def seconds(work: Callable[[], object]) -> Measure:
    """Measures the time of a piece of work."""

    def measure() -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    return measure
