"""What a build of the images is for, besides what each holds: the base image, the user, and the platform."""

from __future__ import annotations

import re
from dataclasses import dataclass

from images import base as base_image
from images.base import DOCKERFILE, Base
from tf_image_classification.errors import FlagError

PLATFORM = "linux/amd64"  # what Vertex AI runs, and most clusters: not the one of the machine that builds

_USER_ARGUMENT = re.compile(r"^ARG USER=(\S+)$", re.MULTILINE)
_USER = re.compile(r"[0-9]+:[0-9]+")
_PLATFORM = re.compile(r"linux/[a-z0-9]+(/v[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Build:
    """What the tags of all images change with.

    Attributes:
        base: what the Dockerfile builds on.
        user: UID:GID of the containers; '' for the Dockerfile's own.
        platform: operating system and processor, as Docker writes them.
    """

    base: Base
    user: str = ""
    platform: str = PLATFORM

    def dockerfile(self) -> bytes:
        """The Dockerfile with this base and user."""
        text = self.base.dockerfile()
        return _USER_ARGUMENT.sub(f"ARG USER={self.user}", text.decode()).encode() if self.user else text

    def tag(self, digest: str) -> str:
        """The tag of an image: the hash of its context, and the platform where it is another one than PLATFORM."""
        return digest if self.platform == PLATFORM else f"{digest}-{self.platform.partition('/')[2].replace('/', '-')}"


def default_user() -> str:
    """UID:GID of the containers, as the Dockerfile has them."""
    (user,) = _USER_ARGUMENT.findall(DOCKERFILE.read_text())
    return str(user)


def choose(base: str = "", user: str = "", platform: str = "") -> Build:
    """The build that options describe; '' stands for the default of each.

    Raises:
        FlagError: a value is invalid, or Docker does not have a base image without a digest.
    """
    if user and not _USER.fullmatch(user):
        raise FlagError(
            "Invalid user of the images", received=user, expected="UID:GID, as 65532:65532, or 0:0 for root"
        )
    if platform and not _PLATFORM.fullmatch(platform):
        raise FlagError(
            "Invalid platform of the images",
            received=platform,
            expected="linux/PROCESSOR, as linux/amd64 or linux/arm64",
        )
    return Build(base_image.choose(base), "" if user == default_user() else user, platform or PLATFORM)
