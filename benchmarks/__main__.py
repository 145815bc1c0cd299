"""`make bench`: every ratio of the speed table, median of interleaved pairs, on photographs."""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
from collections.abc import Callable, Iterator

from benchmarks import photos, timing

Pair = tuple[str, str, float, Callable[[], object], Callable[[], object]]


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--images", help="folder of JPEG photographs, one sub-folder per class (default: crops of scikit-learn's two)"
    )
    parser.add_argument("--pairs", type=int, default=10, help="interleaved pairs per row (default: %(default)s)")
    parser.add_argument("rows", nargs="*", help=f"of {', '.join(ROWS)} (default: all)")
    given = parser.parse_args()
    if unknown := set(given.rows) - set(ROWS):
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.disable(logging.INFO)
    print(f"{'what':<18} {'against':<40} {'ratio':>6} {'quartiles':>13} {'to reach':>9}")
    with tempfile.TemporaryDirectory() as folder:
        images = photos.folder_of(given.images, os.path.join("build", "benchmarks"))
        for name in given.rows or ROWS:
            for what, against, goal, ours, yardstick in ROWS[name](images, folder):
                ratio = timing.compare(ours, yardstick, given.pairs)
                print(
                    f"{what:<18} {against:<40} {ratio.median:>6.2f} {ratio.low:>6.2f}-{ratio.high:<6.2f} {goal:>9.2f}",
                    flush=True,
                )


def _build(images: str, folder: str) -> Iterator[Pair]:
    from benchmarks import build

    ours = build.ours(images, folder)
    yield "build_tfrecords", "Pillow, full decoding on all cores", 1.0, ours, build.decoding(images)
    yield "build_tfrecords", "slim's converter loop, one process", 3.0, ours, build.slim_loop(images, folder)


def _training_input(images: str, folder: str) -> Iterator[Pair]:
    from benchmarks import training_input
    from tf_image_classification import build_tfrecords

    data = build_tfrecords.build(images, os.path.join(folder, "data"))
    ours = training_input.ours(data)
    yield "training input", "slim's Inception preprocessing", 2.0, ours, training_input.slim(data)
    yield "training input", "tf.io.decode_jpeg alone", 1.0, ours, training_input.bare_decoding(data)


def _training_step(images: str, folder: str) -> Iterator[Pair]:
    from benchmarks import training_step

    yield "training step", "bare tf.function loop", 0.98, *training_step.both(folder)


def _evaluation(images: str, folder: str) -> Iterator[Pair]:
    from benchmarks import evaluation
    from tf_image_classification import build_tfrecords

    data = build_tfrecords.build(images, os.path.join(folder, "evaluated"), eval_fraction=0.5)
    yield "evaluation", "bare loop of the SavedModel", 0.95, *evaluation.both(data, folder)


ROWS: dict[str, Callable[[str, str], Iterator[Pair]]] = {
    "build": _build,
    "training_input": _training_input,
    "training_step": _training_step,
    "evaluation": _evaluation,
}

if __name__ == "__main__":
    main()
