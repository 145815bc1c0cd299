"""What a step's container sees of this machine: the run's folder and the paths that flags name for the step.

No folder is mounted that holds credentials, however it is named.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import PurePath

from docker.types import Mount

from pipelines.local.step_paths import METADATA, StepPath
from tf_image_classification import storage
from tf_image_classification.errors import FlagError

# Neither they nor what is in them or above them is mounted: credentials, and the state of the machine. With sudo, data
# may be in the home folder of another user: any folder may be one.
_PRIVATE_OF_HOME = (".aws", ".azure", ".config/gcloud", ".docker", ".gnupg", ".kube", ".netrc", ".ssh")
_PRIVATE = ("/boot", "/dev", "/etc", "/proc", "/sys")
# Neither they nor what is above them is mounted: they hold the folders of all users, or hide what a container needs.
_SHARED = ("/bin", "/home", "/lib", "/opt/venv", "/root", "/run/docker.sock", "/tmp", "/usr", "/var/lib")  # noqa: S108
_VARIABLES = ("GOOGLE_APPLICATION_CREDENTIALS", "CLOUDSDK_CONFIG")  # whose values are paths of credentials


def check(paths: Iterable[StepPath]) -> None:
    """Checks that a container may see these paths.

    Raises:
        FlagError: one of them holds credentials, or is a folder of the system.
    """
    for flag, path, _ in paths:
        if not storage.is_remote(path) and (reason := _why_not(PurePath(os.path.realpath(path)))):
            raise FlagError(
                f"--{flag} would mount {path} into a container: {reason}",
                received=path,
                expected="a file or folder that holds data alone",
                hint=("A CSV's folder is mounted, unless --image_root names that of its images. " * (flag in METADATA))
                + "Move the data into a folder of its own, or leave out --runner docker.",
            )


def of_paths(paths: Iterable[StepPath], root: str) -> list[Mount]:
    """The mounts of the local paths that exist; each is at the place that it has on this machine.

    Containers of this run and earlier ones could make links in the folder of runs: no link in it adds a mount.

    Args:
        root: the folder of runs, which kfp mounts.
    """
    paths = [path for path in paths if os.path.exists(path.path) and not PurePath(path.path).is_relative_to(root)]
    written = {root, *_places(path.path for path in paths if path.is_written)}
    read = _outermost(_places(path.path for path in paths if not path.is_written), outside=written)
    mounts = [Mount(path, os.path.realpath(path), "bind", read_only=True) for path in read]
    return mounts + [Mount(path, os.path.realpath(path), "bind") for path in sorted(written - {root})]


def _places(paths: Iterable[str]) -> set[str]:
    """The paths as they are named and without symbolic links: links in a mounted folder lead to the latter."""
    return {place for path in paths for place in (path, os.path.realpath(path))}


def _outermost(paths: set[str], outside: set[str]) -> list[str]:
    """The paths that are inside no other one of them, nor inside one of `outside`."""
    kept: list[str] = []
    for path in sorted(paths):
        if not any(PurePath(path).is_relative_to(above) for above in (*outside, *kept)):
            kept.append(path)
    return kept


def _why_not(path: PurePath) -> str:
    """Why a path without symbolic links is not mounted; '' if it is."""
    for private in _real(_private(path)):
        if path.is_relative_to(private):
            return f"it is {private}" if private == path else f"it is in {private}"
        if private.is_relative_to(path) and os.path.exists(private):
            return f"it holds {private}"
    for shared in _real(["~", *_SHARED]):
        if shared.is_relative_to(path):
            verb = "is" if shared == path else "holds"
            return f"it {verb} {shared}, a folder of the system or of a user"
    return ""


def _private(path: PurePath) -> Iterator[str]:
    homes = (PurePath("~"), path, *path.parents)
    yield from (str(home / name) for home in homes for name in _PRIVATE_OF_HOME)
    yield from filter(None, map(os.environ.get, _VARIABLES))
    yield from _PRIVATE


def _real(paths: Iterable[str]) -> Iterator[PurePath]:
    return (PurePath(os.path.realpath(os.path.expanduser(path))) for path in paths)
