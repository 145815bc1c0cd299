"""What tests of trainings share: training a spec, reading what it left, and a training in a bucket."""

from __future__ import annotations

import json
import re
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from tests.standin import bucket as standin
from tests.standin.faults import Fault
from tf_image_classification import built_in_estimator, checkpoints, storage, train_estimator
from tf_image_classification.checkpoints import checkpoint_file
from tf_image_classification.training import history

RUN = "gs://models/run"


def train(data, flags, spec=None, **options):
    return train_estimator.train_and_evaluate(spec or built_in_estimator.BuiltInEstimator(), data, flags, **options)


def weights_at(model_dir: str) -> dict[str, np.ndarray]:
    with checkpoints.read(model_dir) as weights:
        return {name: weights[name] for name in weights}


def equal(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> bool:
    return left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)


def evaluations(model_dir: str) -> list[int]:
    return [entry["step"] for entry in history.read_history(model_dir) if entry["kind"] == "eval"]


def names(folder: str) -> list[str]:
    return [re.sub(r"events.*", "events", file.path.removeprefix(f"{folder}/")) for file in storage.walk(folder)]


def listed(folder: str) -> list[str]:
    return list(checkpoint_file.parse(storage.read_bytes(f"{folder}/checkpoint"), folder))


def downloads(service: standin.Buckets) -> list[str]:
    return [
        match[1] for request in service.requests if (match := re.search(r"/o/([^?]+)\?.*alt=media", unquote(request)))
    ]


def working_folders() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob("tfic-training-*"))


def refuse_uploads_later(service: standin.Buckets, changes: int) -> None:
    """Takes the right to write away once RUN's list of checkpoints has changed so many times."""

    def watch() -> None:
        while [change.path for change in list(service.changes)].count(f"{RUN}/checkpoint") < changes:
            time.sleep(0.001)
        service.faults.append(Fault("refused", "POST", "upload", times=10**6, code=403))

    threading.Thread(target=watch, daemon=True).start()


def command(model_dir: str, data: str, steps: int, *more: str) -> list[str]:
    return [
        *(
            sys.executable,
            "-m",
            "tf_image_classification.train_estimator",
            "--train_metadata",
            data,
            "--model_dir",
            model_dir,
        ),
        *("--image_size", "16", "--batch_size", "8", "--seed", "7", "--train_steps", str(steps), *more),
    ]


def digest(export: str) -> str:
    return json.loads(storage.read_text(f"{export}/model.json"))["digest"]
