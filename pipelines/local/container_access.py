"""What the container of a step may reach: mounts, the network, and buckets with tokens for them alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from docker.types import Mount

from pipelines.local import credentials, mounts, step_paths
from pipelines.local.step_paths import StepPath
from tf_image_classification.flag_types import TRAIN_STEP
from tf_image_classification.imagenet_weights import IMAGENET
from tf_image_classification.storage import access_tokens

_TOKENS = "/run/tokens"  # of the container


@dataclass(frozen=True, slots=True)
class ContainerAccess:
    """What the container of a step may reach.

    Attributes:
        paths: the paths that flags name for the step.
        root: folder of runs.
        buckets: those on gs://, each with whether the step writes to it.
        needs_network: whether it reaches the network.
    """

    paths: list[StepPath]
    root: str
    buckets: dict[str, bool]
    needs_network: bool

    @classmethod
    def of(cls, step: str, parameters: Mapping[str, Any], root: Path) -> ContainerAccess:
        """The access that a step needs.

        Args:
            parameters: of the pipeline; their paths are absolute.
            root: folder of runs.

        Raises:
            FlagError: a container may not see a path, or the flags name too many buckets.
            ServiceError: a path is on gs://, and there are no Google credentials.
        """
        paths = step_paths.of_step(step, parameters)
        mounts.check([StepPath("runs_dir", str(root), is_written=True), *paths])
        buckets = credentials.buckets_of(paths)
        if buckets:
            credentials.of_caller()
        downloads = step == TRAIN_STEP and parameters.get("checkpoint_path") == IMAGENET
        return cls(paths, str(root), buckets, bool(buckets) or downloads)

    def sees(self, path: str) -> bool:
        """Whether the container has what this machine has at a path."""
        places = [self.root, *(mount["Target"] for mount in mounts.of_paths(self.paths, self.root))]
        return any(PurePath(path).is_relative_to(place) for place in places)

    @contextlib.contextmanager
    def arguments(self, announce: Callable[[str], None]) -> Iterator[dict[str, Any]]:
        """The arguments of Docker's `create` that give a container this access, for as long as the block runs.

        Args:
            announce: is told whose credentials the container gets tokens of, and what they allow.

        Raises:
            ServiceError: Google gives no token.
        """
        arguments: dict[str, Any] = {
            "mounts": mounts.of_paths(self.paths, self.root),
            "network_mode": "bridge" if self.needs_network else "none",
            "environment": {},
        }
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
