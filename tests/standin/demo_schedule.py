"""Simulates four weeks of a weekly schedule on the stand-ins, and prints a table: python -m tests.standin.demo_schedule

The schedule retrains a model of Vertex AI's Model Registry. Week 1 has the first images; week 2 no new data; week 3 ten
new images; week 4 new images in the wrong class folders.
"""

from __future__ import annotations

import datetime as dt
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.commands import tables
from pipelines.local import sample
from tests.standin import bucket
from tests.standin.registry import Registry
from tests.standin.runs import REPOSITORY
from tests.standin.vertex import Vertex
from tf_image_classification.vertex.client import ENDPOINT_VARIABLE

BUCKET, MODEL = "my-bucket", "digits"
_FLAGS = {
    **sample.FLAGS,
    "train_steps": 200,
    "min_accuracy": 0.0,  # only the comparison with the model in service decides
    "champion": MODEL,
    "checkpoint_path": "champion",
}
_CLASSES = 10
_PER_CLASS, _HELD_OUT_PER_CLASS = 30, 20  # images
_NEW = 10  # images, in all
_TASKS = ("build-tfrecords", "train", "evaluate", "register")
_STATES = {"SUCCEEDED": "done", "SKIPPED": "cached", "NOT_TRIGGERED": "-", "FAILED": "FAILED"}


@dataclass(frozen=True, slots=True)
class Week:
    """The result of one week's run.

    Attributes:
        data: the week's new data.
        tasks: task -> done, cached or - (not started).
        accuracy: of the new model, and of the one that was in service; None if there was none.
        passed: whether the gate passed the new model.
        reason: of the gate's decision.
        in_service: version of the model in service after the run.
    """

    data: str
    tasks: dict[str, str]
    accuracy: tuple[float, float | None]
    passed: bool
    reason: str
    in_service: str


def simulate(folder: Path) -> Iterator[Week]:
    """Simulates the four weeks, with all files below a local folder."""
    rows = _images_by_number(Path(sample.write(str(folder / "digits"))))
    held_out, rows = rows[:_HELD_OUT_PER_CLASS], rows[_HELD_OUT_PER_CLASS:]
    first, later = rows[:_PER_CLASS], rows[_PER_CLASS:]
    with bucket.serving(BUCKET) as storage_url:
        vertex = Vertex(folder / "vertex", storage_url)
        vertex.start()
        try:
            _upload(storage_url, "held-out", _labelled(held_out))
            _upload(storage_url, "photos", _labelled(first))
            with Registry(has_all=True) as registry:
                _create_schedule(vertex.url, storage_url, registry.host)
            yield _simulate_week(vertex, "first images")
            yield _simulate_week(vertex, "nothing new")
            _upload(storage_url, "photos", _labelled(later)[:_NEW])
            yield _simulate_week(vertex, f"{_NEW} new images")
            mislabelled = [((label + 1) % _CLASSES, image) for label, image in _labelled(first)]
            _upload(storage_url, "photos", mislabelled, name_prefix="wrong-")
            yield _simulate_week(vertex, f"{len(mislabelled)} images in wrong folders")
        finally:
            vertex.stop()


def table(weeks: list[Week]) -> str:
    """The weeks as a table, and the gate's reasons below it."""
    rows, reasons = [], []
    for number, week in enumerate(weeks, start=1):
        accuracy, to_beat = ("-" if value is None else f"{value:.3f}" for value in week.accuracy)
        steps = [week.tasks[name] for name in ("build-tfrecords", "train", "evaluate")]
        gate = "passed" if week.passed else "FAILED"
        version = f"version {week.in_service}"
        rows.append((str(number), week.data, *steps, accuracy, to_beat, gate, week.tasks["register"], version))
        reasons.append(f"week {number}: {week.reason}")
    header = ("week", "data", "build", "train", "evaluate", "accuracy", "to beat", "gate", "register", "in service")
    return "\n".join([tables.table(header, rows), "", *reasons])


def _simulate_week(vertex: Vertex, data: str) -> Week:
    """Advances the clock by a week, in which the schedule starts one run, and reads that run's result."""
    before = set(vertex.jobs)
    vertex.advance(dt.timedelta(weeks=1))
    (name,) = set(vertex.jobs) - before
    details = {task.task_name: task for task in vertex.jobs[name].job_detail.task_details}
    failed = [task for task, detail in details.items() if detail.state.name == "FAILED"]
    if failed:
        log = (vertex.runner.folder / "logs" / f"{name}.log").read_text()
        raise RuntimeError(f"{', '.join(failed)} failed:\n{log[-3000:]}")
    gate = dict(details["gate"].execution.metadata)
    metrics = dict(details["evaluate"].outputs["metrics"].artifacts[0].metadata)
    versions = vertex.models.versions[MODEL]
    (in_service,) = [number for number, version in versions.items() if "default" in version.version_aliases]
    return Week(
        data=data,
        tasks={task: _STATES[details[task].state.name] if task in details else "-" for task in _TASKS},
        accuracy=(metrics["accuracy"], metrics.get("champion_accuracy")),
        passed=gate["output:passed"],
        reason=gate["output:reason"],
        in_service=in_service,
    )


def _create_schedule(url: str, storage_url: str, registry: str) -> None:
    flags = {
        "cron": "0 3 * * 1",
        "pipeline_root": f"gs://{BUCKET}/runs",
        "train_metadata": f"gs://{BUCKET}/photos",
        "eval_metadata": f"gs://{BUCKET}/held-out",
        **_FLAGS,
        "project": "my-project",
        "location": "europe-west4",
        "image_registry": f"{registry}/training",
    }
    words = []
    for name, value in flags.items():
        words += [f"--{name}", str(value)]
    subprocess.run(
        [sys.executable, "-m", "pipelines", "schedule", "create", "weekly", *words],
        check=True,
        cwd=REPOSITORY,
        env=os.environ | {"STORAGE_EMULATOR_HOST": storage_url, ENDPOINT_VARIABLE: url},
        stdout=subprocess.DEVNULL,
    )


def _images_by_number(folder: Path) -> list[tuple[Path, ...]]:
    """The n-th image of each class, for n = 0, 1, ..."""
    images_by_class = [sorted((folder / str(label)).iterdir()) for label in range(_CLASSES)]
    return list(zip(*images_by_class, strict=False))


def _labelled(rows: list[tuple[Path, ...]]) -> list[tuple[int, Path]]:
    """(label, image) of all images."""
    return [(label, image) for row in rows for label, image in enumerate(row)]


def _upload(storage_url: str, prefix: str, images: list[tuple[int, Path]], name_prefix: str = "") -> None:
    """Uploads images to the class folders below gs://BUCKET/PREFIX."""
    target = bucket.client(storage_url).bucket(BUCKET)
    for label, image in images:
        target.blob(f"{prefix}/{label}/{name_prefix}{image.name}").upload_from_filename(str(image))


def main() -> None:
    """Prints the table of the four weeks; progress goes to stderr."""
    folder = Path(tempfile.mkdtemp(prefix="four-weeks-"))
    try:
        weeks = []
        for week in simulate(folder):
            weeks.append(week)
            print(f"week {len(weeks)} of 4 is over", file=sys.stderr, flush=True)
        print(table(weeks))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
