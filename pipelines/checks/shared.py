"""Checks that are the same for both services: images and data."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from functools import partial

from pipelines import image_check
from pipelines.checks.lines import Line, Obstacle, Verdict, line
from pipelines.checks.plan import Plan
from tf_image_classification import flags as flag_table
from tf_image_classification import storage
from tf_image_classification.data import dates, sources


def images(plan: Plan, backend: str) -> Iterator[Line]:
    """A line for each reason why some may not be pulled, or one for all."""
    if not plan.images:
        return
    problems = image_check.find_problems(plan.images, backend, plan.built_with)
    for problem in problems:
        certain = problem.certain and backend == "vertex"
        verdict = Verdict.FAIL if certain else Verdict.UNKNOWN
        yield Line(verdict, "images", f"{', '.join(problem.references)}: {problem.what}", problem.mend)
    if not problems:
        yield Line(
            Verdict.OK, "images", f"found in {', '.join(sorted({one.rpartition('/')[0] for one in plan.images}))}"
        )


def data(plan: Plan) -> Iterator[Line]:
    """A line for each flag that names data."""
    for flag, value in plan.paths.items():
        yield line(f"--{flag}", partial(_found, flag, value))


def _found(flag: str, value: str) -> str:
    paths = sources.split_metadata(value) if flag_table.BY_NAME[flag].is_list else [value]
    paths = [dates.newest(path, dt.date.today()) for path in paths]
    for path in paths:
        if not _exists(flag, path):
            parent = path.rstrip("/").rpartition("/")[0]
            raise Obstacle(f"{path} is not found", f"gcloud storage ls {parent}/    # then name what is there")
    return ", ".join(paths)


def _exists(flag: str, path: str) -> bool:
    if path.startswith(storage.GCS_MOUNT):  # of the machines that run the steps
        path = storage.GCS_SCHEME + path.removeprefix(storage.GCS_MOUNT)
    if storage.glob(path):
        return True
    # A checkpoint may be several files with one beginning.
    return flag == "checkpoint_path" and bool(storage.glob(f"{path}*"))
