"""`make bench`: how many times as fast as a yardstick each part is, as the median of interleaved pairs."""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
from collections.abc import Sequence

from benchmarks import photos, timing
from benchmarks.rows import FULL, ROWS, SMALL, Material, Row
from tf_image_classification import library_output, storage

RESULTS = os.path.join("build", "bench.json")


def main(argv: Sequence[str] | None = None) -> None:
    """Measures the rows, and prints each and writes it to the file of results when it is finished.

    The file is a list of {row, ours, reference, ratio, goal}: two costs (seconds, or MiB of memory), of which less is
    better, and the median of reference / ours, of which more is better, as of the goal.

    Args:
        argv: the arguments; default `sys.argv[1:]`.
    """
    arguments = _parse(argv)
    os.makedirs(os.path.dirname(arguments.output) or ".", exist_ok=True)
    size = SMALL if arguments.small else FULL
    pairs = arguments.pairs or size.pairs
    results: list[dict[str, object]] = []
    print(f"{'what':<27} {'against':<40} {'ratio':>6} {'quartiles':>13} {'to reach':>9}")
    with tempfile.TemporaryDirectory() as folder:
        photographs = photos.photographs(arguments.images, size.photographs, os.path.join(folder, "photographs"))
        for group in arguments.rows or ROWS:
            for row in ROWS[group](Material(photographs, folder, size)):
                ratio = timing.compare(row.ours, row.reference, pairs if row.repeated else 1, warm_up=row.repeated)
                _print(row, ratio)
                results.append(_result(row, ratio))
                storage.write_text(arguments.output, json.dumps(results, indent=1) + "\n")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("--images", help="folder of JPEG photographs (default: crops of scikit-learn's two)")
    parser.add_argument("--pairs", type=int, help=f"interleaved pairs per row (default: {FULL.pairs})")
    parser.add_argument("--small", action="store_true", help="a pair of each row, with few images: a look")
    parser.add_argument("--output", default=RESULTS, help="file of the results (default: %(default)s)")
    parser.add_argument("rows", nargs="*", help=f"of {', '.join(ROWS)} (default: all)")
    arguments = parser.parse_args(argv)
    if unknown := set(arguments.rows) - set(ROWS):
        parser.error(f"unknown row: {', '.join(sorted(unknown))}")
    if arguments.pairs is not None and arguments.pairs < 1:
        parser.error(f"--pairs is {arguments.pairs}, and has to be at least 1")
    return arguments


def _print(row: Row, ratio: timing.Ratio) -> None:
    quartiles = f"{ratio.low:>6.2f}-{ratio.high:<6.2f}"
    print(
        f"{row.name:<27} {row.reference_name:<40} {ratio.median:>6.2f} {quartiles} {row.goal:>9.2f}",
        flush=True,
    )


def _result(row: Row, ratio: timing.Ratio) -> dict[str, object]:
    return {
        "row": f"{row.name}: {row.reference_name}",
        "ours": ratio.ours,
        "reference": ratio.reference,
        "ratio": ratio.median,
        "goal": row.goal,
    }


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    with library_output.quiet():
        main()
