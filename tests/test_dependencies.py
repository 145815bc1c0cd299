"""What pyproject.toml admits is not known to be vulnerable, and what the locks pin is what it admits, by hash."""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.conftest import REPOSITORY

LOCKS = sorted((REPOSITORY / "requirements").glob("*.txt"))

# Package -> the first version without the known vulnerabilities that matter here, and the one that was fixed last.
FIRST_SAFE = {
    "pillow": ("13.0.0", "GHSA-8g5g-8vmr-9782: the JPEG decoder writes past its buffer"),
    "pillow-heif": ("1.3.0", "CVE-2026-28231: reads past its buffer"),
    "protobuf": ("6.33.5", "CVE-2026-0994: recursion without a limit"),
    "jinja2": ("3.1.6", "CVE-2025-27516: leaves the sandbox"),
    # 3.13.2: CVE-2026-1669, reads any file through HDF5; after 3.14.0: CVE-2026-12481, runs code of a Lambda layer.
    "keras": (
        "3.15.1",
        "keras#23101, keras#23168: archives that unpack without a limit, groups of HDF5 that are links",
    ),
    "pip": ("26.1", "CVE-2026-3219: installs another archive than the name says"),
    "setuptools": ("78.1.1", "CVE-2025-47273: writes outside of the target folder"),
    "google-cloud-aiplatform": ("1.148.0", "CVE-2026-2473: stages models in a bucket that anybody could own"),
    "requests": ("2.33.0", "CVE-2026-25645: extracts to a name that others can foresee"),
    "tqdm": ("4.66.3", "CVE-2024-34062: evaluates an argument"),
    "pyyaml": ("5.4", "CVE-2020-14343: runs code of a document"),
    "scikit-learn": ("1.5.0", "CVE-2024-5206: keeps tokens of the training data"),
    "pytest": ("9.0.3", "CVE-2025-71176: shares its temporary folder"),
    "werkzeug": ("3.1.6", "CVE-2026-27199: serves device files on Windows"),
}


def declared() -> Iterator[Requirement]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    for text in itertools.chain(project["dependencies"], *project["optional-dependencies"].values()):
        requirement = Requirement(text)
        if requirement.name != project["name"]:
            yield requirement


def pinned(lock: Path) -> Iterator[tuple[str, Version]]:
    for name, version in re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", lock.read_text(), re.MULTILINE):
        yield name, Version(version)


@pytest.mark.parametrize("package", FIRST_SAFE)
def test_no_bound_admits_a_version_that_is_known_to_be_vulnerable(package):
    fixed, why = FIRST_SAFE[package]
    bounds = [requirement.specifier for requirement in declared() if requirement.name == package]
    assert bounds, f"{package} is no longer used: remove it here"
    for bound in bounds:
        lowest = [Version(one.version.removesuffix(".*")) for one in bound if one.operator in (">=", "==")]
        assert lowest and max(lowest) >= Version(fixed), f"{package}{bound} admits {why}"


def test_every_dependency_has_a_lower_bound_or_only_describes_types():
    without = {one.name for one in declared() if not any(part.operator in (">=", "==") for part in one.specifier)}
    assert {name for name in without if not name.startswith("types-")} == set()


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_a_lock_pins_what_the_bounds_admit(lock):
    bounds: dict[str, list[Requirement]] = {}
    for requirement in declared():
        bounds.setdefault(requirement.name.lower(), []).append(requirement)
    for name, version in pinned(lock):
        if (lock.stem, name) == ("beam", "google-cloud-aiplatform"):
            continue  # Beam's own choice: that environment is without the extra vertex
        for requirement in bounds.get(name, []):
            assert version in requirement.specifier, f"{name}=={version}, {requirement}"


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_a_lock_has_a_hash_for_everything_and_names_no_place_to_download_from(lock):
    entries = re.split(r"^(?=\S)", lock.read_text(), flags=re.MULTILINE)
    pins = [entry for entry in entries if entry.strip() and not entry.startswith("#")]
    assert len(pins) > 20
    assert [entry for entry in pins if "--hash=sha256:" not in entry] == []
    assert not re.search(r"https?://|--index|--find-links|-f |-i ", lock.read_text())
