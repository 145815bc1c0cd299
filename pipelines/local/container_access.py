"""What the container of a step may reach: mounts, the network, and buckets with tokens for them alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from docker.types import Mount

from pipelines.local import credentials, mounts, s3_credentials
from pipelines.local.step_paths import StepPath
from tf_image_classification import storage
from tf_image_classification.flag_types import TRAIN_STEP
from tf_image_classification.imagenet_weights import IMAGENET
from tf_image_classification.storage import access_tokens

_TOKENS = "/run/tokens"  # of the container


@dataclass(frozen=True, slots=True)
class ContainerAccess:
    """What the container of a step may reach.

    Attributes:
        root: folder of runs, which kfp mounts.
        mounts: of what flags name for the step.
        buckets: those on gs://, each with whether the step writes to it.
        needs_network: whether it reaches the network.
        uses_s3: whether it reaches buckets on s3://.
    """

    root: str
    mounts: list[Mount]
    buckets: dict[str, bool]
    needs_network: bool
    uses_s3: bool = False

    @classmethod
    def of(cls, step: str, paths: list[StepPath], parameters: Mapping[str, Any], root: Path) -> ContainerAccess:
        """The access that a step needs.

        Args:
            paths: that flags name for the step.
            parameters: of the pipeline.
            root: folder of runs.

        Raises:
            FlagError: the flags name too many buckets.
            ServiceError: a path is on gs:// or s3://, and there are no credentials for it.
        """
        buckets = credentials.buckets_of(paths)
        if buckets:
            credentials.of_caller()
        if uses_s3 := any(storage.is_remote(path.path) and not storage.is_gcs(path.path) for path in paths):
            s3_credentials.of_caller()
        downloads = step == TRAIN_STEP and parameters.get("checkpoint_path") == IMAGENET
        return cls(
            str(root), mounts.of_paths(paths, str(root)), buckets, bool(buckets) or uses_s3 or downloads, uses_s3
        )

    def sees(self, path: str) -> bool:
        """Whether the container has what this machine has at a path."""
        places = [self.root, *(mount["Target"] for mount in self.mounts)]
        return any(PurePath(path).is_relative_to(place) for place in places)

    @contextlib.contextmanager
    def arguments(self, announce: Callable[[str], None]) -> Iterator[dict[str, Any]]:
        """The arguments of Docker's `create` that give a container this access, for as long as the block runs.

        Args:
            announce: is told whose credentials the container gets, or tokens of, and what these allow.

        Raises:
            ServiceError: Google gives no token.
        """
        arguments: dict[str, Any] = {
            "mounts": list(self.mounts),
            "network_mode": "bridge" if self.needs_network else "none",
            "environment": {},
        }
        if self.uses_s3:
            arguments["environment"], certificates = s3_credentials.of_caller()
            arguments["mounts"] += certificates
            announce(f"gets the S3 credentials of {arguments['environment']['AWS_ACCESS_KEY_ID']}")
        if not self.buckets:
            yield arguments
            return
        source = credentials.of_caller()
        rights = (f"{'write' if is_written else 'read'} gs://{name}" for name, is_written in self.buckets.items())
        announce(f"gets access tokens to {', '.join(rights)}, from the credentials of {credentials.owner(source)}")
        with credentials.tokens(credentials.narrowed(source, self.buckets)) as folder:
            arguments["mounts"].append(Mount(_TOKENS, folder, "bind", read_only=True))
            arguments["environment"][access_tokens.VARIABLE] = f"{_TOKENS}/{credentials.TOKEN_FILE}"
            yield arguments
