"""Four weeks of a schedule on the stand-ins, as a table: python -m tests.standin.demo_schedule

A weekly retrain of a model in Vertex AI's registry. Week 1 has the first data; week 2 nothing new; week 3 ten new
images; week 4 images that were sorted into the wrong folders.
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
from tests.standin.runs import REPOSITORY
from tests.standin.vertex import Vertex

BUCKET, MODEL = "my-bucket", "digits"
_PLACE = ("--project", "my-project", "--location", "europe-west4")
_FLAGS = {
    **sample.FLAGS,
    "train_steps": 200,
    "min_accuracy": 0.0,  # the comparison alone decides
    "champion": MODEL,
    "checkpoint_path": "champion",
}
_PER_CLASS, _HELD_OUT, _NEW = 30, 20, 10
_TASKS = ("build-tfrecords", "train", "evaluate", "register")
_SAID = {"SUCCEEDED": "done", "SKIPPED": "cached", "NOT_TRIGGERED": "-", "FAILED": "FAILED"}


@dataclass(frozen=True, slots=True)
class Week:
    """What the run of a week came to.

    Attributes:
        data: what was new.
        tasks: task -> done, cached or - (not started).
        accuracy: of the new model, and of the one in service at the time; None for none.
        passed, reason: of the gate.
        in_service: version of the model in service afterwards.
    """

    data: str
    tasks: dict[str, str]
    accuracy: tuple[float, float | None]
    passed: bool
    reason: str
    in_service: str


def run(folder: Path) -> Iterator[Week]:
    """Simulates the four weeks below a folder."""
    photos = Path(sample.write(str(folder / "digits")))
    with bucket.serving(BUCKET) as storage_url:
        vertex = Vertex(folder / "vertex", storage_url)
        vertex.start()
        try:
            _fill(storage_url, photos)
            _create_schedule(vertex.url, storage_url)
            yield _simulate_week(vertex, "first images")
            yield _simulate_week(vertex, "nothing new")
            new = _pictures(photos)[_HELD_OUT + _PER_CLASS :]
            _upload(storage_url, [(f"photos/{label}/{path.name}", path) for label, path in _spread(new, _NEW)])
            yield _simulate_week(vertex, f"{_NEW} new images")
            wrong = _pictures(photos)[_HELD_OUT : _HELD_OUT + _PER_CLASS]
            _upload(
                storage_url,
                [
                    (f"photos/{(label + 1) % 10}/wrong-{path.name}", path)
                    for row in wrong
                    for label, path in enumerate(row)
                ],
            )
            yield _simulate_week(vertex, "300 images in wrong folders")
        finally:
            vertex.stop()


def table(weeks: list[Week]) -> str:
    """The weeks as lines of text."""
    rows = [
        (
            str(number),
            week.data,
            *(week.tasks[name] for name in _TASKS[:3]),
            *("-" if value is None else f"{value:.3f}" for value in week.accuracy),
            "passed" if week.passed else "REFUSED",
            week.tasks["register"],
            f"version {week.in_service}",
        )
        for number, week in enumerate(weeks, start=1)
    ]
    head = ("week", "data", "build", "train", "evaluate", "accuracy", "to beat", "gate", "register", "in service")
    lines = [tables.table(head, rows), ""]
    return "\n".join([*lines, *(f"week {number}: {week.reason}" for number, week in enumerate(weeks, start=1))])


def _simulate_week(vertex: Vertex, data: str) -> Week:
    before = set(vertex.jobs)
    vertex.advance(dt.timedelta(weeks=1))
    (name,) = set(vertex.jobs) - before
    details = {task.task_name: task for task in vertex.jobs[name].job_detail.task_details}
    failed = [task for task, detail in details.items() if detail.state.name == "FAILED"]
    if failed:
        raise RuntimeError(
            f"{', '.join(failed)} failed:\n{(vertex.runner.folder / 'logs' / f'{name}.log').read_text()[-3000:]}"
        )
    gate = dict(details["gate"].execution.metadata)
    tasks = {task: _SAID[details[task].state.name] if task in details else "-" for task in _TASKS}
    metrics = dict(details["evaluate"].outputs["metrics"].artifacts[0].metadata)
    accuracy = metrics["accuracy"], metrics.get("champion_accuracy")
    (in_service,) = [
        number for number, version in vertex.models.versions[MODEL].items() if "default" in version.version_aliases
    ]
    return Week(data, tasks, accuracy, gate["output:passed"], gate["output:reason"], in_service)


def _create_schedule(url: str, storage_url: str) -> None:
    flags = [word for name, value in _FLAGS.items() for word in (f"--{name}", str(value))]
    sources = ["--train_metadata", f"gs://{BUCKET}/photos", "--eval_metadata", f"gs://{BUCKET}/held-out"]
    command = [
        "schedule",
        "create",
        "weekly",
        "--cron",
        "0 3 * * 1",
        "--pipeline_root",
        f"gs://{BUCKET}/runs",
        *sources,
        *flags,
    ]
    subprocess.run(
        [sys.executable, "-m", "pipelines", *command, *_PLACE, "--api_endpoint", url],
        check=True,
        cwd=REPOSITORY,
        env=os.environ | {"STORAGE_EMULATOR_HOST": storage_url},
        stdout=subprocess.DEVNULL,
    )


def _pictures(photos: Path) -> list[tuple[Path, ...]]:
    """The n-th picture of each class, for n = 0, 1, ..."""
    return list(zip(*(sorted((photos / str(label)).iterdir()) for label in range(10)), strict=False))


def _spread(rows: list[tuple[Path, ...]], count: int) -> list[tuple[int, Path]]:
    return [(label, path) for row in rows for label, path in enumerate(row)][:count]


def _fill(storage_url: str, photos: Path) -> None:
    rows = _pictures(photos)
    held_out, first = rows[:_HELD_OUT], rows[_HELD_OUT : _HELD_OUT + _PER_CLASS]
    for prefix, part in (("held-out", held_out), ("photos", first)):
        _upload(
            storage_url, [(f"{prefix}/{label}/{path.name}", path) for row in part for label, path in enumerate(row)]
        )


def _upload(storage_url: str, files: list[tuple[str, Path]]) -> None:
    place = bucket.client(storage_url).bucket(BUCKET)
    for name, path in files:
        place.blob(name).upload_from_filename(str(path))


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="four-weeks-"))
    try:
        weeks = []
        for week in run(folder):
            weeks.append(week)
            print(f"week {len(weeks)} of 4 is over", file=sys.stderr, flush=True)
        print(table(weeks))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
