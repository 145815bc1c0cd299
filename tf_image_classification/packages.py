"""--packages: installs a user's wheels and source archives before --estimator is imported."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import subprocess
import sys
import tempfile

from tf_image_classification import storage
from tf_image_classification.errors import FlagError

_log = logging.getLogger(__name__)

# Without build isolation pip needs no package index: archives are built with what is installed.
_PIP_OPTIONS = ("--quiet", "--no-deps", "--no-build-isolation")


def install(packages: str) -> str:
    """Installs packages into a new temporary folder, and appends the folder to `sys.path` of this process.

    They are last on the path and without their dependencies, so that a package can add modules but never replace what
    training runs on.

    Args:
        packages: paths of wheels or source archives, local or gs://, separated by commas.

    Returns:
        The folder; it is removed when the process exits.

    Raises:
        FlagError: a package is not found or cannot be installed.
    """
    folder = tempfile.mkdtemp(prefix="packages-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for package in filter(None, (part.strip() for part in packages.split(","))):
        if not storage.exists(package):
            raise FlagError(
                "A package of --packages is not found", received=package, expected="a wheel or a source archive"
            )
        local_path = storage.fetch(package, os.path.join(folder, ".downloads"))
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
