"""What grows with the number of images: listing, fingerprint, splits, duplicates and manifest, with made entries.

`python -m benchmarks.scale --entries 100000 1000000` prints a line per stage: entries, seconds, seconds of the
processor, and the peak of the process's memory while it lasted. Each part runs in a process of its own; no image is
read and none written. Needs Linux, whose /proc tells and resets the peak.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks import made
from tf_image_classification import library_output
from tf_image_classification.build_tfrecords import builder
from tf_image_classification.build_tfrecords.data_set_build import DataSetBuild
from tf_image_classification.build_tfrecords.worker_messages import ImageChunk, PartResult
from tf_image_classification.data import fingerprint as fingerprints
from tf_image_classification.data import manifest, sources
from tf_image_classification.data.sources import ImageSource


class Stages:
    """Measures stages of this process, one after the other, and prints each as a line of JSON when it has ended."""

    def __init__(self) -> None:
        self._begin()

    def end(self, stage: str) -> None:
        """Ends a stage; the next one begins."""
        measured = {
            "stage": stage,
            "seconds": time.perf_counter() - self._started[0],
            "processor_seconds": time.process_time() - self._started[1],
            "peak_mib": _peak_mib(),
        }
        print(json.dumps(measured), flush=True)
        self._begin()

    def _begin(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak, see proc(5)
        self._started = time.perf_counter(), time.process_time()


def _peak_mib() -> float:
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024


def folder(entries: int, work: str, stages: Stages) -> None:
    """A local folder of classes."""
    images = made.folder(os.path.join(work, "images"), entries)
    stages.end("(making the folder)")
    _list_and_fingerprint(images, stages)


def csv(entries: int, work: str, stages: Stages) -> None:
    """A CSV of images on a local disk."""
    images = made.folder(os.path.join(work, "images"), entries)
    path = made.csv(os.path.join(work, "images.csv"), images, entries)
    stages.end("(making CSV and folder)")
    _list_and_fingerprint(path, stages)


def bucket(entries: int, work: str, stages: Stages) -> None:
    """A folder of classes in a bucket."""
    with _serving(entries):
        stages.end("(starting the service)")
        _list_and_fingerprint(f"{made.BUCKET}/", stages)


def bucket_csv(entries: int, work: str, stages: Stages) -> None:
    """A CSV of objects in a bucket."""
    path = made.csv(os.path.join(work, "images.csv"), made.BUCKET.rstrip("/"), entries)
    with _serving(entries):
        stages.end("(writing the CSV)")
        _list_and_fingerprint(path, stages, image_root=made.BUCKET)


def build(entries: int, work: str, stages: Stages) -> None:
    """A build whose images are not checked: everything around the engine, from a CSV to the manifest and back."""
    path = made.csv(os.path.join(work, "images.csv"), made.BUCKET, entries)
    engine = made.MadeEngine()
    counted = engine.results

    def results(
        folder: str | None, chunks: Iterable[ImageChunk], total: int
    ) -> Iterator[tuple[ImageChunk, PartResult]]:
        stages.end("index: splits, classes")
        yield from counted(folder, chunks, total)
        stages.end("shuffled order, counts")

    engine.results = results  # type: ignore[method-assign]
    find = DataSetBuild._described

    def described(*arguments: Any) -> Any:
        found = find(*arguments)
        stages.end("near duplicates")
        return found

    options = sources.ReadOptions(image_root=made.BUCKET)
    with (
        mock.patch.object(DataSetBuild, "_engine", lambda *_: contextlib.nullcontext(engine)),
        mock.patch.object(DataSetBuild, "_described", described),
    ):
        stages.end("(writing the CSV)")
        builder.build(path, os.path.join(work, "data"), options=options, fingerprint="0" * 64)
    stages.end("statistics, manifest")
    manifest.read(os.path.join(work, "data"))
    stages.end("reading the manifest")


def many_shards(entries: int, work: str, stages: Stages) -> None:
    """The manifest of a data set whose shards are as many as those of so many photographs."""
    from tf_image_classification.data.manifest import EVAL, TRAIN, Manifest, Split, Task

    engine = made.MadeEngine()
    engine._lengths = {TRAIN: entries - entries // 5, EVAL: entries // 5}
    labels = tuple(f"class_{number:04}" for number in range(made.CLASSES))
    counts = {"label": dict.fromkeys(labels, entries // made.CLASSES)}
    splits = {split: Split(engine.finish(split), images=entries, class_counts=counts) for split in (TRAIN, EVAL)}
    stages.end("planning the shards")
    Manifest((Task("label", labels),), splits).write(work)
    stages.end("writing the manifest")
    manifest.read(work)
    stages.end("reading the manifest")


PARTS: dict[str, Callable[[int, str, Stages], None]] = {
    "folder": folder,
    "csv": csv,
    "bucket": bucket,
    "bucket_csv": bucket_csv,
    "build": build,
    "many_shards": many_shards,
}


@contextlib.contextmanager
def _serving(entries: int) -> Iterator[None]:
    with made.bucket(entries) as url, mock.patch.dict(os.environ, {"STORAGE_EMULATOR_HOST": url}):
        yield


def _list_and_fingerprint(metadata: str, stages: Stages, image_root: str | None = None) -> None:
    options = sources.ReadOptions(image_root=image_root)
    found = [source for source in sources.expand(metadata) if isinstance(source, ImageSource)]
    for _ in itertools.islice(sources.read_entries(found, options), None):
        pass
    stages.end("listing")
    fingerprints.fingerprint(metadata, eval_fraction=0.2, options=options)
    stages.end("fingerprint")


def main(argv: Sequence[str] | None = None) -> None:
    """Measures parts at several numbers of entries.

    Args:
        argv: the arguments; default `sys.argv[1:]`.
    """
    parser = argparse.ArgumentParser("python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--entries", type=int, nargs="+", default=[100_000], help="numbers of images")
    parser.add_argument("--folder", help="where made files are written (default: that of temporary files)")
    parser.add_argument("--output", help="file of the results, as JSON")
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)} (default: all)")
    arguments = parser.parse_args(argv)
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"unknown part: {', '.join(sorted(unknown))}")
    results = []
    print(f"{'part':<12} {'stage':<28} {'entries':>12} {'seconds':>9} {'processor':>9} {'peak MiB':>9}")
    for part in arguments.parts or PARTS:
        for entries in arguments.entries:
            for stage in measure(part, entries, arguments.folder):
                results.append({"part": part, "entries": entries, **stage})
                print(
                    f"{part:<12} {stage['stage']:<28} {entries:>12,} {stage['seconds']:>9.2f} "
                    f"{stage['processor_seconds']:>9.2f} {stage['peak_mib']:>9.0f}",
                    flush=True,
                )
                if arguments.output:
                    Path(arguments.output).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def measure(part: str, entries: int, folder: str | None = None) -> Iterator[dict[str, Any]]:
    """The stages of a part, measured in a process of its own, each as soon as it has ended.

    Args:
        folder: for made files; None for that of temporary files.
    """
    with tempfile.TemporaryDirectory(dir=folder) as work:
        command = [sys.executable, "-c", _ONE, part, str(entries), work]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            yield from map(json.loads, process.stdout)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)


_ONE = "import sys; from benchmarks import scale; scale.one(*sys.argv[1:])"


def one(part: str, entries: str, work: str) -> None:
    """Measures a part in this process."""
    logging.disable(logging.WARNING)
    with library_output.quiet():
        PARTS[part](int(entries), work, Stages())


if __name__ == "__main__":
    main()
