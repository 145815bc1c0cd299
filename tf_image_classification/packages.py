"""--packages: a user's wheels and source archives, installed into a folder of their own before --estimator is
imported."""

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


def install(packages: str) -> str:
    """Installs packages into a new folder and puts it at the end of the import path.

    At the end, and without their dependencies, so that a package can add modules but never replace what training runs
    on.

    Args:
        packages: paths of wheels or source archives, local or gs://, separated by commas.

    Returns:
        The folder; it is removed when the process ends.

    Raises:
        FlagError: a package does not exist or cannot be installed.
    """
    folder = tempfile.mkdtemp(prefix="packages-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for package in filter(None, (part.strip() for part in packages.split(","))):
        if not storage.exists(package):
            raise FlagError(
                "--packages names a file that does not exist", received=package, expected="a wheel or a source archive"
            )
        local = storage.fetch(package, os.path.join(folder, ".fetched"))
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--target",
            folder,
            local,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
            raise FlagError(
                "A package of --packages cannot be installed",
                received=f"{package}: {reason}",
                expected="a wheel or a source archive",
            )
        _log.info("Installed %s", package)
    sys.path.append(folder)
    return folder
