"""What is to be run, as far as the options say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipelines.backends.base import Submission
from tf_image_classification.dataflow.options import DataflowOptions


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
        dataflow: the job that the build step launches; None if it builds itself.
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
    dataflow: DataflowOptions | None = None
    paths: Mapping[str, str] = field(default_factory=dict)

    @property
    def launches_as_itself(self) -> bool:
        """Whether steps launch machines that have the account of the steps."""
        return self.has_cluster or (self.dataflow is not None and not self.dataflow.service_account)

    @property
    def pipeline_root(self) -> str:
        """Folder for the run's artifacts."""
        return self.submission.pipeline_root

    @property
    def service_account(self) -> str:
        """That the steps have."""
        return self.submission.service_account
