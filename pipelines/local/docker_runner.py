"""Each step in a container of its image, which sees what its flags name; no step is done without its outputs."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import docker
from kfp import local
from kfp.local import docker_task_handler
from kfp.local.status import Status

from pipelines.local import mounts, step_paths
from pipelines.local.container_access import ContainerAccess
from pipelines.local.execution import FollowedTask, replaced
from pipelines.local.step_output import INDENT, StepOutput
from pipelines.local.step_paths import StepPath
from pipelines.local.steps import Steps
from tf_image_classification import flags, storage
from tf_image_classification.errors import FlagError, ServiceError
from tf_image_classification.flag_types import STEPS
from tf_image_classification.promotion import resolve

_RUNS_LABEL = "tf-image-classification.runs"  # of a container: the folder of runs that it writes to
_TEMPORARY = "/tmp"  # noqa: S108 - of the container
_MAX_THREADS = 4096  # of a container, and processes


def check(images: Iterable[str]) -> None:
    """Checks that every image exists, before anything starts.

    Raises:
        FlagError: Docker does not answer, or an image has not been built.
    """
    with _client() as client:
        missing = [image for image in dict.fromkeys(images) if not _has(client, image)]
    if missing:
        raise FlagError(
            "Images not found",
            received=", ".join(missing),
            hint="Run `make images` first. Images that were built with BASE=IMAGE need --image_base IMAGE; those with "
            "PLATFORM= or RUN_AS= need --image_platform or --image_user.",
        )


def absolute(parameters: Mapping[str, object]) -> dict[str, Any]:
    """The pipeline parameters with every path absolute, which inside a container is the same as outside.

    Raises:
        FlagError: --estimator without --packages.
    """
    if parameters.get("estimator") and not parameters.get("packages"):
        raise FlagError(
            "--runner docker finds an --estimator in --packages only",
            received=parameters["estimator"],
            expected="a wheel or a source archive that holds it",
            hint="The modules of this folder are not in the images.",
        )
    names = [*step_paths.of_flags("read", parameters), *step_paths.of_flags("write", parameters)]
    return {**parameters, **{name: _absolute(name, str(parameters[name])) for name in names}}


def _absolute(name: str, value: str) -> str:
    """The path, or of a flag for several the paths, made absolute. Of a single one that does not exist yet, a comma is
    part of its name too."""
    if flags.BY_NAME[name].is_list:
        return resolve.absolute_paths(value)
    return value if storage.is_remote(value) else os.path.abspath(value)


def access_of_steps(parameters: Mapping[str, Any], root: Path) -> dict[str, ContainerAccess]:
    """What the container of each step may reach, by the steps' names. Creates the folders that steps write to.

    Args:
        parameters: of the pipeline; their paths are absolute.
        root: folder of runs.

    Raises:
        FlagError: a container may not see a path, the flags name too many buckets, or Docker cannot mount the folder.
        ServiceError: a path is on gs://, and there are no Google credentials.
    """
    if ":" in str(root):  # kfp passes it to Docker as part of FROM:TO:MODE
        raise FlagError(
            "Docker cannot mount a --runs_dir with a colon", received=root, expected="a path without colons"
        )
    paths = {step: step_paths.of_step(step, parameters) for step in STEPS}
    mounts.check([StepPath("runs_dir", str(root), is_written=True), *itertools.chain(*paths.values())])
    for path in itertools.chain(*paths.values()):
        if path.is_written and not storage.is_remote(path.path):
            os.makedirs(path.path, exist_ok=True)
    return {step: ContainerAccess.of(step, paths[step], parameters, root) for step in STEPS}


@contextlib.contextmanager
def runner(access: Mapping[str, ContainerAccess], root: Path, steps: Steps) -> Iterator[local.DockerRunner]:
    """The runner for steps with this access. No container outlives it.

    Containers run as the calling user, without capabilities and on a read-only file system. Each sees the folder of
    runs and the paths that flags name for its step, and reaches the network only where one of these is on gs://, or
    published weights are downloaded.

    Args:
        root: folder of runs, which alone is writable, besides /tmp and the paths that flags name for writing.
    """
    create_handler = functools.partial(DockerTaskHandler, steps, access)
    _stop_containers(root)  # of a run that was killed
    try:
        with replaced(docker_task_handler, "DockerTaskHandler", create_handler):
            yield local.DockerRunner(
                user=f"{os.getuid()}:{os.getgid()}",
                labels={_RUNS_LABEL: str(root)},
                read_only=True,
                tmpfs={_TEMPORARY: "exec,mode=1777"},  # exec, for the libraries of --packages
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
                pids_limit=_MAX_THREADS,
            )
    finally:
        _stop_containers(root)


class DockerTaskHandler(FollowedTask, docker_task_handler.DockerTaskHandler):
    """kfp.local's handler, which passes the step's output to `steps`.

    kfp takes a container that vanishes for one that succeeded, and would remember the step as done. This one takes a
    step for done when everything exists that it should have written.

    Args:
        access: what the container of each step may reach.
    """

    def __init__(self, steps: Steps, access: Mapping[str, ContainerAccess], **arguments: Any) -> None:
        super().__init__(steps, **arguments)
        self._access = access

    def run(self) -> Status:
        with self._steps.running() as output:
            try:
                code = self._run_container(output)
            except docker.errors.DockerException as error:
                output.fail(f"Docker cannot run the step: {error}")
                return Status.FAILURE
            except ServiceError as error:
                output.fail(str(error))
                return Status.FAILURE
            missing = [path for path in self._output_paths() if not os.path.exists(path)]
            if code == 0 and missing:
                output.fail(f"The container ended without writing {', '.join(missing)}")
                return Status.FAILURE
            if code and (unseen := self._unseen(output.explanation())):
                output.hint(f"In the container there is no {', '.join(unseen)}: no flag of this step names it.")
            return self._steps.ended(code)

    def _run_container(self, output: StepOutput) -> int:
        """Runs the step's container to its end and returns its exit code; 0 when it vanished."""
        with self._access[self._steps.step].arguments(self._steps.note) as access, _client() as client:
            output.write(f"Running image {self.image}\n".encode())
            for mount in access["mounts"]:
                output.write(f"Mounted {'to read' if mount['ReadOnly'] else 'to write'}: {mount['Target']}\n".encode())
            container = client.containers.create(
                self.image,
                self.full_command,
                auto_remove=True,
                tty=output.is_terminal,
                volumes={self.pipeline_root: self.get_volumes_to_mount(client)[self.pipeline_root]},  # no workspace
                environment={**self.env_vars, **access.pop("environment")},
                **access,
                **self.runner.container_run_args,
            )
            pieces = container.attach(stream=True)
            container.start()
            with contextlib.suppress(docker.errors.NotFound):  # it has ended and removed itself
                if output.is_terminal:
                    columns, rows = shutil.get_terminal_size()
                    container.resize(height=rows, width=columns - len(INDENT))
                for piece in pieces:
                    output.write(piece)
                return int(container.wait()["StatusCode"])
        return 0

    def _unseen(self, lines: list[str]) -> list[str]:
        """The paths in an error paragraph that exist on this machine, and that the container does not see."""
        words = {word.strip(".,:;'\"()") for line in lines for word in line.split()}
        existing = sorted(word for word in words if os.path.isabs(word) and os.path.exists(word))
        return [path for path in existing if not self._access[self._steps.step].sees(path)]

    def _output_paths(self) -> list[str]:
        """What the step is to write."""
        outputs = json.loads(self.full_command[self.full_command.index("--executor_input") + 1])["outputs"]
        artifacts = [artifact for listed in outputs.get("artifacts", {}).values() for artifact in listed["artifacts"]]
        return [outputs["outputFile"], *(artifact["uri"] for artifact in artifacts)]


def _stop_containers(root: Path) -> None:
    with _client() as client:
        for container in client.containers.list(filters={"label": f"{_RUNS_LABEL}={root}"}):
            with contextlib.suppress(docker.errors.APIError):  # it ended by itself
                container.kill()


def _has(client: docker.DockerClient, image: str) -> bool:
    try:
        client.images.get(image)
    except docker.errors.ImageNotFound:
        return False
    return True


@contextlib.contextmanager
def _client() -> Iterator[docker.DockerClient]:
    try:
        client = docker.from_env()
        client.ping()
    except (docker.errors.DockerException, OSError) as error:
        raise FlagError(
            "Docker does not answer",
            received=error,
            expected="a running Docker daemon that this user may use",
            hint="Start Docker and run `make images`, or leave out --runner docker.",
        ) from error
    with contextlib.closing(client):
        yield client
