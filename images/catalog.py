"""What each image holds. Its build context and its default tag are made from that, so one line decides both.

The context holds nothing but the image's own inputs, and the tag is a hash of the context: an image changes exactly
when its tag does.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from tf_image_classification.errors import FlagError

ROOT = Path(__file__).resolve().parents[1]
REGISTRY = "tf-image-classification"
BASE = "python:3.11-slim"
GPU = "-gpu"  # ends the name of an image's GPU variant

_FRAMEWORK = "tf_image_classification"
_SUFFIXES = (".py", ".html", ".css")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True, slots=True)
class Image:
    """An image.

    Attributes:
        name: the last part of its repository.
        environment: requirements/<environment>.txt is installed in it.
        include: patterns of the framework's files that are in it; `*` matches folders too.
        exclude: patterns of those among them that are not.
    """

    name: str
    environment: str
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()

    def sources(self) -> list[Path]:
        """The framework's files that are in it, sorted."""
        folder = ROOT / _FRAMEWORK
        return sorted(
            path
            for path in folder.rglob("*")
            if path.suffix in _SUFFIXES
            and _matches(path.relative_to(folder).as_posix(), self.include)
            and not _matches(path.relative_to(folder).as_posix(), self.exclude)
        )

    def inputs(self) -> dict[str, Path]:
        """Everything it is made from: name in the build context -> file."""
        inputs = {
            "Dockerfile": ROOT / "images" / "Dockerfile",
            "requirements.txt": ROOT / "requirements" / f"{self.environment}.txt",
        }
        return inputs | {path.relative_to(ROOT).as_posix(): path for path in self.sources()}

    def context(self) -> bytes:
        """The build context, as a tar archive whose bytes depend on names and contents only."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for name, path in self.inputs().items():
                content = path.read_bytes()
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        return archive.getvalue()

    def tag(self) -> str:
        """A hash of everything it is made from."""
        return hashlib.sha256(self.context()).hexdigest()[:12]

    def reference(self, registry: str, tag: str = "") -> str:
        """`<registry>/<name>:<tag>`, by default with its own tag."""
        return f"{registry}/{self.name}:{tag or self.tag()}"


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(path, pattern) for pattern in patterns)


# An estimator of the user's own is evaluated too, and its module may use anything that training does.
_NOT_IN_TRAINING = ("promotion/*", "vertex/*")
_NOT_IN_TRAIN = (*_NOT_IN_TRAINING, "evaluate/*")
# What every step stands on, and what reads metadata.
_BASE = (
    "__init__.py",
    "command_line.py",
    "errors.py",
    "flag.py",
    "flags.py",
    "library_output.py",
    "versions.py",
    "storage/*",
    "data/*",
)

IMAGES = {
    image.name: image
    for image in (
        Image("build_tfrecords", "build", include=(*_BASE, "build_tfrecords/*", "pages.py", "progress.py")),
        Image("train", "train", exclude=_NOT_IN_TRAIN),
        Image("evaluate", "train", exclude=_NOT_IN_TRAINING),
        # The steps that are never cached, with Vertex's SDK. A tag is part of a cached step's key: what they hold must
        # not change it.
        Image(
            "vertex",
            "vertex",
            include=(*_BASE, "evaluation_folder.py", "model_folder.py", "promotion/*", "vertex/*"),
        ),
        Image("train-gpu", "train-gpu", exclude=_NOT_IN_TRAIN),
        Image("evaluate-gpu", "train-gpu", exclude=_NOT_IN_TRAINING),
    )
}

# The image of each step of the pipeline; a step with an accelerator takes its GPU variant.
OF_STEP = {
    "resolve": "vertex",
    "build_tfrecords": "build_tfrecords",
    "train": "train",
    "evaluate": "evaluate",
    "gate": "vertex",
    "register": "vertex",
    "notify": "vertex",
}


def check_tag(option: str, tag: str) -> None:
    """Refuses what is no tag, and the one that everybody moves: a tag is part of the cache's keys.

    Raises:
        FlagError: it is neither '' nor a tag that can stay where it is.
    """
    if tag == "latest" or (tag and not _TAG.fullmatch(tag)):
        raise FlagError(
            f"Invalid value for --{option}",
            received=tag,
            expected="a tag that is never moved to another image",
            hint="Leave it out: by default each image's tag is a hash of what the image is made from.",
        )
