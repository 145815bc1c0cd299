"""Each step in a container of its image: the user's data read-only, nothing owned by root, no step done without its
outputs."""

from __future__ import annotations

import contextlib
import functools
import glob
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import docker
from docker.types import Mount
from kfp import local
from kfp.local import docker_task_handler
from kfp.local.status import Status

from pipelines.local.execution import FollowedTask, replaced
from pipelines.local.step_output import INDENT, StepOutput
from pipelines.local.steps import Steps
from tf_image_classification import flags as flag_table
from tf_image_classification import storage
from tf_image_classification.data import sources
from tf_image_classification.errors import FlagError
from tf_image_classification.imagenet_weights import IMAGENET
from tf_image_classification.promotion import champion, resolve

_RUNS_LABEL = "tf-image-classification.runs"  # of a container: the folder of runs that it writes to
_TEMPORARY = "/tmp"  # noqa: S108 - of the container
_CREDENTIALS = "GOOGLE_APPLICATION_CREDENTIALS"
_USERS_CREDENTIALS = "~/.config/gcloud/application_default_credentials.json"


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
            hint="Run `make images` first. Images that were built with BASE=IMAGE need --image_base IMAGE.",
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
    names = [*_given_paths("read", parameters), *_given_paths("write", parameters)]
    return {**parameters, **{name: resolve.absolute_paths(str(parameters[name])) for name in names}}


def _given_paths(access: str, parameters: Mapping[str, object]) -> list[str]:
    """The parameters that name a path which is read, or one which is written to."""
    names = [flag.name for flag in flag_table.of_pipeline() if flag.path == access and parameters.get(flag.name)]
    return [name for name in names if champion.names_a_path(name, str(parameters[name]))]


@contextlib.contextmanager
def runner(parameters: Mapping[str, Any], root: Path, steps: Steps) -> Iterator[local.DockerRunner]:
    """The runner for these parameters, whose paths are absolute. No container outlives it.

    Containers run as the calling user, without capabilities and on a read-only file system; they reach the network only
    where something that a parameter names is on gs://, or published weights are downloaded.

    Args:
        root: folder of runs, which alone is writable, besides --model_dir, --champion and /tmp.
    """
    read_paths = {path for name in _given_paths("read", parameters) for path in _paths(name, parameters)}
    write_paths = {str(root), *(parameters[name] for name in _given_paths("write", parameters))}
    local_write_paths = {path for path in write_paths if not storage.is_gcs(path)}
    for path in local_write_paths:
        os.makedirs(path, exist_ok=True)
    mounts = [Mount(path, path, "bind", read_only=True) for path in _outermost(read_paths, within=local_write_paths)]
    mounts += [Mount(path, path, "bind") for path in local_write_paths - {str(root)}]  # kfp mounts the root
    environment = {}
    on_gcs = any(storage.is_gcs(path) for path in read_paths | write_paths)
    credentials = os.environ.get(_CREDENTIALS) or os.path.expanduser(_USERS_CREDENTIALS)
    if on_gcs and os.path.isfile(credentials):
        mounts.append(Mount(credentials, credentials, "bind", read_only=True))
        environment[_CREDENTIALS] = credentials

    create_handler = functools.partial(DockerTaskHandler, steps)
    _stop_containers(root)  # of a run that was killed
    try:
        with replaced(docker_task_handler, "DockerTaskHandler", create_handler):
            yield local.DockerRunner(
                mounts=mounts,
                user=f"{os.getuid()}:{os.getgid()}",
                environment=environment,
                labels={_RUNS_LABEL: str(root)},
                network_mode="bridge" if on_gcs or parameters.get("checkpoint_path") == IMAGENET else "none",
                read_only=True,
                tmpfs={_TEMPORARY: "exec,mode=1777"},  # exec, for the libraries of --packages
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
            )
    finally:
        _stop_containers(root)


def _paths(name: str, parameters: Mapping[str, Any]) -> Iterator[str]:
    """The folders and files that the steps must see to read what a parameter names, some of them several times."""
    value: str = parameters[name]
    if name in ("train_metadata", "eval_metadata"):
        yield from _paths_of_data(value, parameters)
        return
    is_list = flag_table.BY_NAME[name].is_list and not os.path.exists(value)
    for path in value.split(",") if is_list else [value]:
        yield path
        if os.path.exists(path):
            yield os.path.realpath(path)
        elif not storage.is_gcs(path) and storage.glob(f"{glob.escape(path)}.*"):  # a checkpoint's prefix
            yield os.path.dirname(path)


def _paths_of_data(metadata: str, parameters: Mapping[str, Any]) -> Iterator[str]:
    real = functools.lru_cache(os.path.realpath)
    given = {name: parameters.get(name) or None for name in ("image_root", "split_column")}
    for source in sources.expand(metadata):
        yield source.path
        for path in source.paths_read(sources.ReadOptions(**given)):
            yield (folder := os.path.dirname(path))
            if not storage.is_gcs(folder):
                yield real(folder)
                if os.path.islink(path):
                    yield os.path.dirname(os.path.realpath(path))


def _outermost(paths: Iterable[str], within: Iterable[str]) -> list[str]:
    """The local paths that exist and are inside no other one of them, nor inside one of `within`."""
    kept: list[str] = []
    for path in sorted(path for path in set(paths) if not storage.is_gcs(path) and os.path.exists(path)):
        if not any(path == above or path.startswith(above.rstrip("/") + "/") for above in (*within, *kept)):
            kept.append(path)
    return kept


class DockerTaskHandler(FollowedTask, docker_task_handler.DockerTaskHandler):
    """kfp.local's handler, which passes the step's output to `steps`.

    kfp takes a container that vanishes for one that succeeded, and would remember the step as done. This one takes a
    step for done when everything exists that it should have written.
    """

    def run(self) -> Status:
        with self._steps.running() as output:
            try:
                code = self._run_container(output)
            except docker.errors.DockerException as error:
                output.fail(f"Docker cannot run the step: {error}")
                return Status.FAILURE
            missing = [path for path in self._output_paths() if not os.path.exists(path)]
            if code == 0 and missing:
                output.fail(f"The container ended without writing {', '.join(missing)}")
                return Status.FAILURE
            return self._steps.ended(code)

    def _run_container(self, output: StepOutput) -> int:
        """Runs the step's container to its end and returns its exit code; 0 when it vanished."""
        with _client() as client:
            output.write(f"Running image {self.image}\n".encode())
            container = client.containers.create(
                self.image,
                self.full_command,
                auto_remove=True,
                tty=output.is_terminal,
                volumes=self.get_volumes_to_mount(client),
                environment=self.env_vars,
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
