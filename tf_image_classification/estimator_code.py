"""The code behind --estimator and --packages, by its content: what cache keys, checkpoints and model.json hold of it.

It is found without being imported, so that the resolve step can name it, which has no TensorFlow. Known are

* the files that --packages names, and
* where Python finds the module of --estimator in a folder: all .py files of its package; of a module outside a package,
  itself and the modules and packages beside it that it imports, directly or through each other.

What else code may read is not: installed dependencies, which are part of an image and its tag, and other files.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.machinery
import importlib.util
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tf_image_classification import packages as user_packages
from tf_image_classification.errors import ConflictError, FlagError

PACKAGES, SOURCE = "packages", "estimator_source"  # entries of model.json, and of a training's record
_INSTALLED = ("site-packages", "dist-packages")  # folders in which what lies beside a module is not the user's
_SHOWN_DIGITS = 12


class EstimatorCode(NamedTuple):
    """The code of an estimator, as far as it is known.

    Attributes:
        packages: file name and SHA-256 of each of --packages, in order.
        source: SHA-256 of the names and contents of the source files; '' where they are not known.
    """

    packages: tuple[tuple[str, str], ...] = ()
    source: str = ""

    @property
    def version(self) -> str:
        """What changes whenever the code does, and not with the names and folders of packages; '' where not known."""
        return " ".join(filter(None, (self._packages_version, f"source:{self.source}" if self.source else "")))

    @property
    def _packages_version(self) -> str:
        if not self.packages:
            return ""
        contents = json.dumps([digest for _, digest in self.packages])
        return f"packages:{hashlib.sha256(contents.encode()).hexdigest()}"

    def facts(self) -> dict[str, Any]:
        """Its entries in model.json."""
        return {PACKAGES: dict(self.packages), SOURCE: self.source}

    def described(self) -> str:
        """The hashes, in words."""
        return f"packages {_shown(dict(self.packages))}, source {self.source[:_SHOWN_DIGITS] or 'not found here'}"

    def differences(self, facts: Mapping[str, Any]) -> list[str]:
        """How this code differs from a recorded one, in words; empty if it does not as far as both are known.

        Args:
            facts: as `facts` returns them; one from before they were recorded has none.
        """
        recorded, current = facts.get(PACKAGES), dict(self.packages)
        different = []
        if isinstance(recorded, dict) and sorted(map(str, recorded.values())) != sorted(current.values()):
            different.append(f"--packages {_shown(recorded)} then, {_shown(current)} now")
        source = facts.get(SOURCE)
        if source and self.source and source != self.source:
            different.append(f"source {str(source)[:_SHOWN_DIGITS]} then, {self.source[:_SHOWN_DIGITS]} now")
        return different

    def check_resolved(self, version: str) -> None:
        """Checks that the packages are those of a version that an earlier step has passed on; '' passes.

        Raises:
            ConflictError: they have been replaced since.
        """
        if version and self._packages_version not in version:
            raise ConflictError(
                "A package of --packages has changed since the resolve step of this run",
                received=_shown(dict(self.packages)),
                hint="Run again: resolve then finds the new one.",
            )


def check_flags(estimator: str | None, packages: str | None) -> None:
    """Checks that there is an --estimator for --packages to be installed for.

    Raises:
        FlagError: there is none.
    """
    if packages and not estimator:
        raise FlagError(
            "--packages needs an --estimator",
            received=f"--packages {packages}",
            expected="package.module:Class, a class in these packages, as --estimator",
        )


def find(estimator: str | None, packages: str | None) -> EstimatorCode:
    """The code of an --estimator; none for the built-in one.

    Args:
        estimator: `package.module:Class`, or None.
        packages: see `packages.install`.

    Raises:
        FlagError: a package is not found, or there is no estimator for it.
    """
    check_flags(estimator, packages)
    if estimator is None:
        return EstimatorCode()
    digests = user_packages.digests(packages) if packages else ()
    return EstimatorCode(digests, _source_digest(estimator.partition(":")[0]))


def of_class(spec_class: type) -> EstimatorCode:
    """The code of a class that is imported already, such as one of the script that runs."""
    module = spec_class.__module__
    if module == "__main__":
        main = sys.modules[module]
        module = main.__spec__.name if main.__spec__ else Path(getattr(main, "__file__", "")).stem
    return EstimatorCode(source=_source_digest(module))


def _source_digest(module: str) -> str:
    name = module.partition(".")[0]
    folder = _folder_of(name) if name else None
    try:
        files = dict(_source_files(folder, name)) if folder else {}
    except OSError:
        return ""
    if not files:
        return ""
    items = [(path, hashlib.sha256(content).hexdigest()) for path, content in sorted(files.items())]
    return hashlib.sha256(json.dumps(items).encode()).hexdigest()


def _folder_of(name: str) -> Path | None:
    """The folder on the import path that has a top-level module; None if none has."""
    importlib.invalidate_caches()
    before = [] if os.getcwd() in sys.path else [os.getcwd()]  # as estimator_loading has it
    spec = importlib.machinery.PathFinder.find_spec(name, before + sys.path)
    if spec is None:  # an editable installation may have a finder of its own
        try:
            spec = importlib.util.find_spec(name)
        except ValueError:
            return None
    if spec is None:
        return None
    places = list(spec.submodule_search_locations or ()) or [spec.origin or ""]
    return Path(places[0]).absolute().parent


def _source_files(folder: Path, name: str) -> Iterator[tuple[str, bytes]]:
    """The relative names and contents of a top-level module's files, and of those beside it that it imports."""
    pending, seen = [name], {name, "tf_image_classification"}
    while pending:
        name = pending.pop()
        module = folder / f"{name}.py"
        if _is_package(folder / name) or not module.is_file():
            for path in sorted(filter(Path.is_file, (folder / name).rglob("*.py"))):
                yield path.relative_to(folder).as_posix(), path.read_bytes()
            continue
        content = module.read_bytes()
        yield module.name, content
        if folder.name not in _INSTALLED:
            beside = {found for found in _imported(content) if _is_beside(folder, found)} - seen
            seen |= beside
            pending += sorted(beside)


def _is_beside(folder: Path, name: str) -> bool:
    return (folder / f"{name}.py").is_file() or _is_package(folder / name)


def _is_package(folder: Path) -> bool:
    return (folder / "__init__.py").is_file()


def _imported(content: bytes) -> Iterator[str]:
    """The top-level names of what a module imports."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError):  # said when it is imported
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _shown(packages: Mapping[str, str]) -> str:
    named = (f"{name} (sha256 {str(digest)[:_SHOWN_DIGITS]})" for name, digest in packages.items())
    return ", ".join(named) or "none"
