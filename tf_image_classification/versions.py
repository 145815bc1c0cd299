"""The installed versions of packages, as manifests, models and evaluations record them."""

from __future__ import annotations


def installed(*packages: str) -> dict[str, str]:
    """Package name -> version, of those that are installed: only one of tensorflow and tensorflow-cpu is, say."""
    from importlib import metadata  # slow to import, and every process of a build imports this package

    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
