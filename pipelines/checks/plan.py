"""What is to be run, as far as the options say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipelines.backends.base import Submission


@dataclass(frozen=True, slots=True)
class Plan:
    """What the checks are about; an empty value is one that was not given.

    Attributes:
        submission: of the run, of which `pipeline_root` and `service_account` are parts.
        images: references.
        built_with: tag, base, user and platform of the images.
        accelerators: type -> number in a machine, or of a cluster in all of its machines.
        spot_accelerators: those of a cluster on Spot machines.
        has_cluster: the train step launches one.
        paths: flag -> its value, which names what is read.
    """

    submission: Submission
    project: str = ""
    location: str = ""
    images: frozenset[str] = frozenset()
    built_with: Mapping[str, str] = field(default_factory=dict)
    accelerators: Mapping[str, int] = field(default_factory=dict)
    spot_accelerators: Mapping[str, int] = field(default_factory=dict)
    has_cluster: bool = False
    paths: Mapping[str, str] = field(default_factory=dict)

    @property
    def pipeline_root(self) -> str:
        """Folder for the run's artifacts."""
        return self.submission.pipeline_root

    @property
    def service_account(self) -> str:
        """That the steps have."""
        return self.submission.service_account
