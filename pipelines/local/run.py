"""The compiled pipeline on this machine, with kfp.local: each step in a process of its own, or in a container."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from kfp import dsl

from pipelines import definition
from pipelines.compile import compile_pipeline, image_references
from tf_image_classification import storage
from tf_image_classification.errors import UserError
from tf_image_classification.promotion import champion

_log = logging.getLogger(__name__)

LATEST = "latest"
# A run folder shows what a person looks for under these names, whichever step or earlier run made it.
_SHOWN = ("data", "model", "evaluation")


class RunFailed(UserError):
    """A step failed; its own message stands above this one."""


@dataclass(frozen=True, slots=True)
class Run:
    """A finished local run.

    Attributes:
        folder: with `data`, `model` and `evaluation`.
        metrics: metrics.json.
        passed: the gate's judgement.
        reason: why.
        in_service: folder of the model that is in service now; '' without --champion.
    """

    folder: Path
    metrics: dict[str, Any]
    passed: bool
    reason: str
    in_service: str


def run(parameters: Mapping[str, object], runs_dir: str, runner: str = "subprocess", verbose: bool = False) -> Run:
    """Compiles the pipeline, runs it and points `<runs_dir>/latest` at the run.

    What an earlier run has finished with equal inputs comes from the cache, and a training that was interrupted goes
    on.

    Args:
        parameters: pipeline parameters that differ from their defaults.
        runner: `subprocess`, or `docker` to run each step in its image.

    Raises:
        FlagError: Docker is to be used, and does not answer or lacks an image.
        RunFailed: a step failed.
    """
    root = Path(runs_dir).resolve()
    images = image_references()
    if runner == "docker":
        from pipelines.local import docker_runner as docker_run

        docker_run.check(images.values())
        parameters = docker_run.absolute(parameters)
        runners = docker_run.runner(parameters, root)
    else:
        runners = _subprocesses()
    with storage.exclusive(str(root)), runners as how:
        for leftover in root.glob(f"{definition.NAME}-*/*/.*.partial-*"):  # of runs that were killed
            shutil.rmtree(leftover, ignore_errors=True)
        template = root / ".pipeline.yaml"
        compile_pipeline(str(template), definition.Options(images))
        # kfp.local does not know this one; on this machine a run's name says all.
        told = template.read_text().replace(
            dsl.PIPELINE_JOB_RESOURCE_NAME_PLACEHOLDER, dsl.PIPELINE_JOB_NAME_PLACEHOLDER
        )
        storage.write_text(str(template), told)
        before = set(_run_folders(root))
        outputs = _execute(template, parameters, how, root, cache=root / ".cache" / runner)
        (folder,) = set(_run_folders(root)) - before
        for name in _SHOWN:
            _link(folder / name, Path(outputs[name].path))
        _link(root / LATEST, folder)
    metrics = json.loads((folder / "evaluation" / "metrics.json").read_text())
    return Run(
        folder,
        metrics,
        bool(outputs["passed"]),
        str(outputs["reason"]),
        _in_service(str(parameters.get("champion", ""))),
    )


def _in_service(home: str) -> str:
    found = champion.in_service(home) if home else None
    return found.folder if found else ""


def _execute(template: Path, parameters: Mapping[str, object], runner: Any, root: Path, cache: Path) -> dict[str, Any]:
    from kfp import components, local

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the images' names, which a subprocess does not need
        local.init(runner, pipeline_root=str(root), enable_caching=True, cache_root=str(cache))
        pipeline = components.load_component_from_file(str(template))
        try:
            return dict(pipeline(**parameters).outputs)
        except RuntimeError as error:
            raise RunFailed(
                re.sub(r"\x1b\[[0-9;]*m", "", str(error)),  # colours
                hint=(
                    "The step's own message stands above. Run the same command again to continue "
                    "from the last finished step."
                ),
            ) from error
        finally:
            sys.stdout.flush()


def _pass_on(number: int, frame: FrameType | None) -> None:
    """Passes a signal to the running step, which saves what it has, ends, and so ends the run."""
    import psutil

    steps = psutil.Process().children(recursive=True)
    if not steps:
        raise SystemExit(128 + number)
    for step in steps:
        with contextlib.suppress(psutil.NoSuchProcess):
            step.send_signal(number)


def _link(place: Path, target: Path) -> None:
    """Points a relative link at `target`, so that the folder of runs can be moved; an old link is replaced in one
    go."""
    aside = place.with_name(f".{place.name}.new")
    aside.unlink(missing_ok=True)
    aside.symlink_to(os.path.relpath(target, place.parent), target_is_directory=True)
    aside.replace(place)


def _run_folders(root: Path) -> list[Path]:
    return [path for path in root.glob(f"{definition.NAME}-*") if path.is_dir()]


@contextlib.contextmanager
def _subprocesses() -> Iterator[Any]:
    """Steps import the framework and a user's --estimator from where this command was called."""
    from kfp import local

    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.getcwd(), before]))
    previous = signal.signal(signal.SIGTERM, _pass_on)
    try:
        yield local.SubprocessRunner(use_venv=False)
    finally:
        signal.signal(signal.SIGTERM, previous)
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
