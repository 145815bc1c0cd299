"""The installed versions of packages, as manifests, models and evaluations record them."""

from __future__ import annotations

import contextlib


def installed(*packages: str) -> dict[str, str]:
    """Name -> version of those packages that are installed: of tensorflow and tensorflow-cpu, for example, only one."""
    from importlib import metadata  # slow to import, and every worker process of a build imports this module

    versions = {}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions
