"""What is to be run, as far as the options say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Plan:
    """What the checks are about; an empty value is one that was not given.

    Attributes:
        images: references.
        built_with: tag, base, user and platform of the images.
        accelerators: type -> number in a machine.
        paths: flag -> the paths that it names for reading.
    """

    project: str = ""
    location: str = ""
    images: frozenset[str] = frozenset()
    built_with: Mapping[str, str] = field(default_factory=dict)
    pipeline_root: str = ""
    service_account: str = ""
    accelerators: Mapping[str, int] = field(default_factory=dict)
    paths: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
