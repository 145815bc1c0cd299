"""Peak memory of a build and of an evaluation, each in a process of its own.

`python -m benchmarks.memory build|evaluate ARGUMENTS` is that process: it prints its peak and that of its largest
worker, in MiB, as Linux's /proc and getrusage(2) tell them.
"""

from __future__ import annotations

import logging
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks.timing import Measure
from tf_image_classification import build_tfrecords, library_output
from tf_image_classification.data import manifest
from tf_image_classification.data.manifest import Manifest

BATCH_SIZE = 32


def of_build(images: str, output_dir: str) -> Measure:
    """Measures the build of a folder of images."""
    return lambda: _peak("build", images, output_dir)


def of_evaluation(model_dir: str, data_dir: str, output_dir: str) -> Measure:
    """Measures the evaluation of a model on all examples of a built data set."""
    return lambda: _peak("evaluate", model_dir, data_dir, output_dir)


def _peak(*arguments: str) -> float:
    command = [sys.executable, "-m", "benchmarks.memory", *arguments]
    return float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def _work(what: str, *arguments: str) -> float:
    if what == "build":
        build_tfrecords.build(*arguments)
    else:
        from tf_image_classification.evaluate import evaluate

        model_dir, data_dir, output_dir = arguments
        evaluate(model_dir, _with_all_evaluated(manifest.read(data_dir)), output_dir, batch_size=BATCH_SIZE)
    # Not getrusage of this process: what its parent took before it started it counts there.
    own = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
    return (own + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024


def _with_all_evaluated(data: Manifest) -> Manifest:
    shards = tuple(shard for split in data.splits.values() for shard in split.shards)
    return replace(data, splits={manifest.EVAL: replace(data.splits[manifest.EVAL], shards=shards)})


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    with library_output.quiet():
        print(_work(*sys.argv[1:]))
