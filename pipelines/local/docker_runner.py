"""kfp.local's DockerRunner, as a laptop wants it: the user's data read-only, nothing owned by root, no step done
without its outputs."""

from __future__ import annotations

import contextlib
import functools
import glob
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import docker
from docker.types import Mount
from kfp import local
from kfp.local import docker_task_handler
from kfp.local.status import Status

from tf_image_classification import storage
from tf_image_classification.data import sources
from tf_image_classification.errors import FlagError
from tf_image_classification.promotion import champion, resolve

_READ = ("train_metadata", "eval_metadata", "labels_file", "image_root", "checkpoint_path", "packages")
_WRITTEN = ("model_dir", "champion")
_RUN_OF = "tf-image-classification.runs"  # label of a container: the folder of runs that it writes to
_TEMPORARY = "/tmp"  # noqa: S108 - of the container
_CREDENTIALS = "GOOGLE_APPLICATION_CREDENTIALS"
_USERS_CREDENTIALS = "~/.config/gcloud/application_default_credentials.json"


def check(images: Iterable[str]) -> None:
    """Makes sure that every image is there, before anything starts.

    Raises:
        FlagError: Docker does not answer, or an image has not been built.
    """
    with _client() as client:
        missing = [image for image in dict.fromkeys(images) if not _has(client, image)]
    if missing:
        raise FlagError(
            "The images have not been built", received=f"no {', '.join(missing)}", hint="Run `make images` first."
        )


def absolute(parameters: Mapping[str, object]) -> dict[str, Any]:
    """The pipeline parameters with every path as it reads inside a container: the same as outside, from the root.

    Raises:
        FlagError: an --estimator that no --packages brings.
    """
    if parameters.get("estimator") and not parameters.get("packages"):
        raise FlagError(
            "--runner docker finds an --estimator in --packages only",
            received=parameters["estimator"],
            expected="a wheel or a source archive that holds it",
            hint="The modules of this folder are not in the images.",
        )
    paths = {
        name: resolve.absolute_paths(str(parameters[name]))
        for name in (*_READ, *_WRITTEN)
        if _names_a_path(name, parameters)
    }
    return {**parameters, **paths}


def _names_a_path(name: str, parameters: Mapping[str, object]) -> bool:
    value = str(parameters.get(name, ""))
    return value != "" and (name, value) != ("checkpoint_path", champion.WARM_START)


@contextlib.contextmanager
def runner(parameters: Mapping[str, Any], root: Path) -> Iterator[local.DockerRunner]:
    """The runner for these parameters, whose paths are absolute. No container outlives it.

    Containers run as the calling user, without capabilities and on a read-only file system; they reach the network only
    where something that a parameter names is on gs://.

    Args:
        root: folder of runs, which alone is writable, besides --model_dir, --champion and /tmp.
    """
    read = {path for name in _READ if _names_a_path(name, parameters) for path in _paths(name, parameters)}
    named = {str(root), *(parameters[name] for name in _WRITTEN if parameters.get(name))}
    written = {path for path in named if not storage.is_gcs(path)}
    for path in written:
        os.makedirs(path, exist_ok=True)
    mounts = [Mount(path, path, "bind", read_only=True) for path in _outermost(read, within=written)]
    mounts += [Mount(path, path, "bind") for path in written - {str(root)}]  # kfp mounts the root
    environment = {}
    on_gcs = any(storage.is_gcs(path) for path in read | named)
    credentials = os.environ.get(_CREDENTIALS) or os.path.expanduser(_USERS_CREDENTIALS)
    if on_gcs and os.path.isfile(credentials):
        mounts.append(Mount(credentials, credentials, "bind", read_only=True))
        environment[_CREDENTIALS] = credentials
    _stop_containers(root)  # of a run that was killed
    try:
        with _judged_by_outputs():
            yield local.DockerRunner(
                mounts=mounts,
                user=f"{os.getuid()}:{os.getgid()}",
                environment=environment,
                labels={_RUN_OF: str(root)},
                network_mode="bridge" if on_gcs else "none",
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
        yield from _paths_of_data(value, parameters.get("image_root"))
        return
    for path in [value] if os.path.exists(value) else value.split(","):
        yield path
        if os.path.exists(path):
            yield os.path.realpath(path)
        elif not storage.is_gcs(path) and storage.glob(f"{glob.escape(path)}.*"):  # a checkpoint's prefix
            yield os.path.dirname(path)


def _paths_of_data(metadata: str, image_root: str | None) -> Iterator[str]:
    real = functools.lru_cache(os.path.realpath)
    for source in sources.expand(metadata):
        yield source.path
        for path in source.paths_read(image_root):
            yield (folder := os.path.dirname(path))
            if not storage.is_gcs(folder):
                yield real(folder)
                if os.path.islink(path):
                    yield os.path.dirname(os.path.realpath(path))


def _outermost(paths: Iterable[str], within: Iterable[str]) -> list[str]:
    """The local paths that exist and lie in no other one of them, nor in one of `within`."""
    kept: list[str] = []
    for path in sorted(path for path in set(paths) if not storage.is_gcs(path) and os.path.exists(path)):
        if not any(path == above or path.startswith(above.rstrip("/") + "/") for above in (*within, *kept)):
            kept.append(path)
    return kept


@contextlib.contextmanager
def _judged_by_outputs() -> Iterator[None]:
    """kfp takes a container that vanishes for one that succeeded, and would remember the step as done.

    kfp.local has no place to hand in a handler, so it is put where kfp looks it up.
    """
    original = docker_task_handler.DockerTaskHandler
    docker_task_handler.DockerTaskHandler = _JudgedByOutputs
    try:
        yield
    finally:
        docker_task_handler.DockerTaskHandler = original


class _JudgedByOutputs(docker_task_handler.DockerTaskHandler):
    """Takes a step for done when everything is there that it should have written."""

    def run(self) -> Status:
        try:
            status = super().run()
        except docker.errors.DockerException as error:
            print(f"Docker cannot run the step: {error}")
            return Status.FAILURE
        outputs = json.loads(self.full_command[self.full_command.index("--executor_input") + 1])["outputs"]
        artifacts = [
            artifact["uri"] for listed in outputs.get("artifacts", {}).values() for artifact in listed["artifacts"]
        ]
        missing = [path for path in (*artifacts, outputs["outputFile"]) if not os.path.exists(path)]
        if status == Status.SUCCESS and missing:
            print(f"The container ended without writing {', '.join(missing)}")
            return Status.FAILURE
        return status


def _stop_containers(root: Path) -> None:
    with _client() as client:
        for container in client.containers.list(filters={"label": f"{_RUN_OF}={root}"}):
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
