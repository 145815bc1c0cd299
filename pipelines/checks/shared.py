"""Checks that are the same for both services: images and data."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines import image_check
from pipelines.checks.lines import Line, Obstacle, Verdict, line
from pipelines.checks.plan import Plan
from tf_image_classification import storage


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
    for flag, paths in plan.paths.items():
        yield line(f"--{flag}", lambda flag=flag, paths=paths: _found(flag, paths))  # type: ignore[misc]


def _found(flag: str, paths: tuple[str, ...]) -> str:
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
