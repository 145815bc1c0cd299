"""The same build on Apache Beam's DirectRunner, in a process of an interpreter that has Beam.

`python -m benchmarks.beam IMAGES OUTPUT_DIR` is that process: it builds whenever a line comes in, and then prints one.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tf_image_classification import build_tfrecords, library_output
from tf_image_classification.build_tfrecords.beam_runner import BeamRunner

DEFAULT_PYTHON = os.path.join(".venv-beam", "bin", "python")  # of `make beam`

_REPOSITORY = Path(__file__).parents[1]
_HAS_BEAM = "import importlib.util, sys; sys.exit(importlib.util.find_spec('apache_beam') is None)"


def missing(python: str) -> str:
    """Why an interpreter cannot build with Apache Beam; '' if it can."""
    try:
        found = subprocess.run([python, "-c", _HAS_BEAM], stderr=subprocess.PIPE)
    except OSError as error:
        return f"{python}: {error.strerror}; `make beam` installs one with Apache Beam"
    return f"{python} has no Apache Beam" if found.returncode else ""


@contextmanager
def direct_runner(python: str, images: str, output_dir: str) -> Iterator[Callable[[], None]]:
    """A whole build by the DirectRunner with its own defaults; the time to start the process does not count."""
    process = subprocess.Popen(
        [python, "-m", "benchmarks.beam", images, output_dir],
        env={**os.environ, "PYTHONPATH": str(_REPOSITORY)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def work() -> None:
        assert process.stdin
        assert process.stdout
        process.stdin.write("\n")
        process.stdin.flush()
        if not process.stdout.readline():
            raise SystemExit(f"The process that builds with Apache Beam ended with {process.wait()}")

    try:
        yield work
    finally:
        process.kill()
        process.communicate()


def _build_for_each_line(images: str, output_dir: str) -> None:
    for _ in sys.stdin:
        build_tfrecords.build(images, output_dir, runner=BeamRunner("DirectRunner"))
        print("done", flush=True)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    with library_output.quiet():
        _build_for_each_line(*sys.argv[1:])
