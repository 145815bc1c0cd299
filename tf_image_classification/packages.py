"""--packages: a user's wheels and source archives, hashed, and installed before --estimator is imported."""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from tf_image_classification import storage
from tf_image_classification.errors import FlagError

_log = logging.getLogger(__name__)

# Without build isolation pip needs no package index: archives are built with what is installed.
_PIP_OPTIONS = ("--quiet", "--no-deps", "--no-build-isolation")


def digests(packages: str) -> tuple[tuple[str, str], ...]:
    """The name of each package's file, and the SHA-256 of its content as 64 hexadecimal digits.

    Args:
        packages: see `install`.

    Raises:
        FlagError: a package is not found.
    """
    with storage.temporary_dir() as folder:
        found = []
        for package, local_path in _fetched(packages, folder):
            with open(local_path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            found.append((package.rpartition("/")[2], digest))
        return tuple(found)


def install(packages: str) -> str:
    """Installs packages into a new temporary folder, and appends the folder to `sys.path` of this process.

    They are last on the path and without their dependencies, so that a package can add modules but never replace what
    training runs on. The folder is never one of an earlier installation.

    Args:
        packages: paths of wheels or source archives, local or gs://, separated by commas.

    Returns:
        The folder; it is removed when the process exits.

    Raises:
        FlagError: a package is not found or cannot be installed.
    """
    folder = tempfile.mkdtemp(prefix="packages-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for package, local_path in _fetched(packages, os.path.join(folder, ".downloads")):
        command = [sys.executable, "-m", "pip", "install", *_PIP_OPTIONS, "--target", folder, local_path]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            reason = (result.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
            raise FlagError(
                "A package of --packages cannot be installed",
                received=f"{package}: {reason}",
                expected="a wheel or a source archive",
            )
        _log.info("Installed %s", package)
    sys.path.append(folder)
    return folder


def _fetched(packages: str, folder: str) -> Iterator[tuple[str, str]]:
    """Each package as it is given, and its local path: itself, or a copy below `folder`."""
    for package in filter(None, (part.strip() for part in packages.split(","))):
        if not storage.exists(package):
            raise FlagError(
                "A package of --packages is not found", received=package, expected="a wheel or a source archive"
            )
        if storage.is_dir(package):
            raise FlagError(
                "A package of --packages is a folder",
                received=package,
                expected="a wheel or a source archive",
                hint=f"Build a wheel of it: pip wheel --no-deps --wheel-dir dist {package}",
            )
        local_path = storage.fetch(package, folder)
        yield package, local_path
