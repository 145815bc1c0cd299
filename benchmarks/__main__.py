"""`make bench`: how many times as fast as a yardstick each part is, as the median of interleaved pairs."""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
from collections.abc import Sequence

from benchmarks import beam, photos, timing
from benchmarks.rows import FULL, ROWS, SMALL, LeftOut, Material, Row, Together
from tf_image_classification import library_output, storage

RESULTS = os.path.join("build", "bench.json")


def main(argv: Sequence[str] | None = None) -> None:
    """Measures the rows, and prints each and writes it to the file of results when it is finished.

    The file is a list of {row, ours, reference, ratio, goal}: two costs (seconds, or MiB of memory), of which less is
    better, and the median of reference / ours, of which more is better, as of the goal. All but the goal are null in
    a row that was left out; its `left_out` says why.

    Args:
        argv: the arguments; default `sys.argv[1:]`.
    """
    arguments = _parse(argv)
    os.makedirs(os.path.dirname(arguments.output) or ".", exist_ok=True)
    size = SMALL if arguments.small else FULL
    rounds = arguments.pairs or size.rounds
    results: list[dict[str, object]] = []
    print(f"{'what':<49} {'against':<41} {'ratio':>6} {'quartiles':>13} {'to reach':>9}")
    with tempfile.TemporaryDirectory() as folder:
        photographs = photos.photographs(arguments.images, size.photographs, os.path.join(folder, "photographs"))
        material = Material(photographs, folder, size, arguments.images, arguments.beam_python or beam.DEFAULT_PYTHON)
        for group in arguments.rows or ROWS:
            for row in ROWS[group](material):
                results += _left_out(row) if isinstance(row, LeftOut) else _measured(row, rounds)
                storage.write_text(arguments.output, json.dumps(results, indent=1) + "\n")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("--images", help="folder of JPEG photographs (default: crops of scikit-learn's two)")
    parser.add_argument("--pairs", type=int, help=f"interleaved pairs per row (default: {FULL.rounds})")
    parser.add_argument("--beam_python", help=f"interpreter with Apache Beam (default: {beam.DEFAULT_PYTHON})")
    parser.add_argument("--small", action="store_true", help="a pair of each row, with few images: a look")
    parser.add_argument("--output", default=RESULTS, help="file of the results (default: %(default)s)")
    parser.add_argument("rows", nargs="*", help=f"of {', '.join(ROWS)} (default: all)")
    arguments = parser.parse_args(argv)
    if unknown := set(arguments.rows) - set(ROWS):
        parser.error(f"unknown row: {', '.join(sorted(unknown))}")
    if arguments.pairs is not None and arguments.pairs < 1:
        parser.error(f"--pairs is {arguments.pairs}, and has to be at least 1")
    if arguments.beam_python and (why := beam.missing(arguments.beam_python)):
        parser.error(f"--beam_python {why}")
    return arguments


def _measured(measured: Row | Together, rounds: int) -> list[dict[str, object]]:
    """Measures and prints a row, or several in the same rounds; returns their entries in the file of results."""
    rows = measured.rows if isinstance(measured, Together) else [measured]
    compared = [(row, reference) for row in rows for reference in row.references]
    pairs = [(row.ours, reference.measure) for row, reference in compared]
    repeated = all(row.repeated for row in rows)
    ratios = timing.compare(pairs, rounds if repeated else 1, warm_up=repeated)
    entries = []
    for (row, reference), ratio in zip(compared, ratios, strict=True):
        numbers = f"{ratio.median:>6.2f} {ratio.low:>6.2f}-{ratio.high:<6.2f}"
        goal = "" if reference.goal is None else f"{reference.goal:.2f}"
        print(f"{row.name:<49} {reference.name:<41} {numbers} {goal:>9}", flush=True)
        entries.append(_entry(row.name, reference.name, reference.goal, ratio))
    return entries


def _left_out(row: LeftOut) -> list[dict[str, object]]:
    print(f"{row.name:<49} {row.reference_name:<41} left out: {row.why}", flush=True)
    return [_entry(row.name, row.reference_name, row.goal, None) | {"left_out": row.why}]


def _entry(name: str, reference_name: str, goal: float | None, ratio: timing.Ratio | None) -> dict[str, object]:
    return {
        "row": f"{name}: {reference_name}",
        "ours": ratio and ratio.ours,
        "reference": ratio and ratio.reference,
        "ratio": ratio and ratio.median,
        "goal": goal,
    }


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    with library_output.quiet():
        main()
