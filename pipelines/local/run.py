"""The compiled pipeline on this machine, with kfp.local: each step in a process of its own, or in a container."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp import dsl

from pipelines import clusters, definition
from pipelines.compile import compile_pipeline, image_references
from pipelines.local import execution, subprocess_runner
from pipelines.local.screen import Screen
from pipelines.local.steps import Steps
from tf_image_classification import evaluation_folder, storage
from tf_image_classification.errors import UserError
from tf_image_classification.launch.job import ClusterShape
from tf_image_classification.promotion import champion

LATEST = "latest"
MODEL, EVALUATION = "model", "evaluation"
# A run folder has these outputs of the pipeline under their names, whichever step or earlier run wrote them.
_LINKED_OUTPUTS = ("data", MODEL, EVALUATION)


class RunFailedError(UserError):
    """A step failed; its error has been printed."""


@dataclass(frozen=True, slots=True)
class LocalRun:
    """A finished local run.

    Attributes:
        folder: with `data`, `model`, `evaluation` and `logs`.
        metrics: metrics.json.
        passed: the gate's decision.
        reason: why.
        in_service: folder of the model that is in service now; '' without --champion.
    """

    folder: Path
    metrics: dict[str, Any]
    passed: bool
    reason: str
    in_service: str


def run(
    parameters: Mapping[str, object],
    runs_dir: str,
    runner: str = "subprocess",
    images_built_with: Mapping[str, str] | None = None,
    cluster: ClusterShape | None = None,
    verbose: bool = False,
) -> LocalRun:
    """Compiles the pipeline, runs it and points `<runs_dir>/latest` at the run.

    What an earlier run has finished with equal inputs comes from the cache, and a training that was interrupted
    continues. Prints the steps and what the framework logs in them; `<run folder>/logs` holds all they print, in a file
    for each step, and what KFP prints.

    Args:
        parameters: pipeline parameters that differ from their defaults.
        runner: `subprocess`, or `docker` to run each step in its image.
        images_built_with: tag, base, user and platform, as of `compile.image_references`.
        cluster: the tasks of the training step, processes beside each other; None for one.
        verbose: print all of it.

    Raises:
        FlagError: Docker is to be used, and does not answer or lacks an image.
        RunFailedError: a step failed.
    """
    root = Path(runs_dir).resolve()
    images = image_references(accelerator=None, **images_built_with or {})
    screen = Screen(sys.stdout)
    steps = Steps(root, screen, verbose=verbose)
    if runner == "docker":
        from pipelines.local import docker_runner

        docker_runner.check(images.values())
        parameters = docker_runner.absolute(parameters)
        kfp_runner = docker_runner.runner(docker_runner.access_of_steps(parameters, root), root, steps)
    else:
        kfp_runner = subprocess_runner.runner(steps)
    kfp_output = execution.kfp_output(root, steps, screen, verbose=verbose)
    with storage.exclusive(str(root)), kfp_output, kfp_runner as config:
        for step_folder in root.glob(f"{definition.NAME}-*/*/"):
            storage.remove_leftovers(str(step_folder))  # of runs that were killed
        template = _compile(root, definition.Options(images, cluster=cluster))
        try:
            outputs = execution.execute(template, parameters, config, root, root / ".cache" / runner, steps)
        except RuntimeError as error:
            if not steps.failed:
                raise
            raise RunFailedError(
                f"The step {steps.failed} failed",
                hint="Run the same command again once the cause is corrected: finished steps come from the cache.",
            ) from error
        assert steps.folder is not None
        for name in _LINKED_OUTPUTS:
            _link(steps.folder / name, Path(outputs[name].path))
        _link(root / LATEST, steps.folder)
    metrics = json.loads((steps.folder / EVALUATION / evaluation_folder.METRICS).read_text())
    in_service = _in_service(str(parameters.get("champion", "")))
    return LocalRun(steps.folder, metrics, bool(outputs["passed"]), str(outputs["reason"]), in_service)


def _compile(root: Path, options: definition.Options) -> Path:
    template = root / ".pipeline.yaml"
    compile_pipeline(str(template), options)
    # kfp.local does not know the run's resource name; on this machine its name is unique.
    compiled = template.read_text().replace(
        dsl.PIPELINE_JOB_RESOURCE_NAME_PLACEHOLDER, dsl.PIPELINE_JOB_NAME_PLACEHOLDER
    )
    for placeholder in clusters.OF_THE_RUN.values():  # Vertex AI's alone
        compiled = compiled.replace(placeholder, "")
    storage.write_text(str(template), compiled)
    return template


def _in_service(champion_dir: str) -> str:
    model = champion.in_service(champion_dir) if champion_dir else None
    return model.folder if model else ""


def _link(link: Path, target: Path) -> None:
    """Points a relative link at `target`, so that the folder of runs can be moved; replaces an old link atomically."""
    staging = link.with_name(f".{link.name}.new")
    staging.unlink(missing_ok=True)
    staging.symlink_to(os.path.relpath(target, link.parent), target_is_directory=True)
    staging.replace(link)
