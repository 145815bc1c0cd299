"""`make bench`: how many times as fast as a yardstick each part is, as the median of interleaved pairs."""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from typing import NamedTuple

from benchmarks import photos, timing

Work = Callable[[], object]


class Row(NamedTuple):
    """A row of the table.

    Attributes:
        name: what is measured.
        yardstick_name: what it is compared with.
        target: ratio to reach.
        ours, yardstick: do the work once.
    """

    name: str
    yardstick_name: str
    target: float
    ours: Work
    yardstick: Work


def main() -> None:
    """Measures the rows and prints each when it is finished."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--images", help="folder of JPEG photographs, one sub-folder per class (default: crops of scikit-learn's two)"
    )
    parser.add_argument("--pairs", type=int, default=10, help="interleaved pairs per row (default: %(default)s)")
    parser.add_argument("rows", nargs="*", help=f"of {', '.join(ROWS)} (default: all)")
    arguments = parser.parse_args()
    if unknown := set(arguments.rows) - set(ROWS):
        parser.error(f"unknown row: {', '.join(sorted(unknown))}")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.disable(logging.INFO)
    print(f"{'what':<18} {'against':<40} {'ratio':>6} {'quartiles':>13} {'to reach':>9}")
    with tempfile.TemporaryDirectory() as folder:
        images = photos.image_folder(arguments.images, os.path.join("build", "benchmarks"))
        for group in arguments.rows or ROWS:
            for row in ROWS[group](images, folder):
                _print(row, timing.compare(row.ours, row.yardstick, arguments.pairs))


def _print(row: Row, ratio: timing.Ratio) -> None:
    quartiles = f"{ratio.low:>6.2f}-{ratio.high:<6.2f}"
    print(
        f"{row.name:<18} {row.yardstick_name:<40} {ratio.median:>6.2f} {quartiles} {row.target:>9.2f}",
        flush=True,
    )


def _build(images: str, folder: str) -> Iterator[Row]:
    from benchmarks import build

    ours = build.ours(images, folder)
    yield Row("build_tfrecords", "Pillow, full decoding on all cores", 1.0, ours, build.pillow_decoding(images))
    yield Row("build_tfrecords", "slim's converter loop, one process", 3.0, ours, build.slim_loop(images, folder))


def _training_input(images: str, folder: str) -> Iterator[Row]:
    from benchmarks import training_input
    from tf_image_classification import build_tfrecords

    data = build_tfrecords.build(images, os.path.join(folder, "data"))
    ours = training_input.ours(data)
    yield Row("training input", "slim's Inception preprocessing", 2.0, ours, training_input.slim(data))
    yield Row("training input", "tf.io.decode_jpeg alone", 1.0, ours, training_input.bare_decoding(data))


def _training_step(images: str, folder: str) -> Iterator[Row]:
    from benchmarks import training_step

    yield Row("training step", "bare tf.function loop", 0.98, *training_step.ours_and_bare(folder))


def _scaling(images: str, folder: str) -> Iterator[Row]:
    from benchmarks import scaling

    with scaling.two_and_one() as (ours, yardstick):
        yield Row("two workers", "one worker, a core each", 1.7, ours, yardstick)


def _evaluation(images: str, folder: str) -> Iterator[Row]:
    from benchmarks import evaluation
    from tf_image_classification import build_tfrecords

    data = build_tfrecords.build(images, os.path.join(folder, "evaluated"), eval_fraction=0.5)
    yield Row("evaluation", "bare loop of the SavedModel", 0.95, *evaluation.ours_and_bare(data, folder))


# Name on the command line -> (folder of images, temporary folder) -> rows.
ROWS: dict[str, Callable[[str, str], Iterator[Row]]] = {
    "build": _build,
    "training_input": _training_input,
    "training_step": _training_step,
    "evaluation": _evaluation,
    "scaling": _scaling,
}

if __name__ == "__main__":
    main()
