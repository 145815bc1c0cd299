"""The images: which packages of the framework each contains, and the build context and tag that follow from that.

The context contains only the inputs of its image, and the default tag is a hash of the context: an image changes if and
only if its tag does.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from images.base import DOCKERFILE
from images.build import Build
from tf_image_classification.errors import FlagError

ROOT = Path(__file__).resolve().parents[1]
REGISTRY = "tf-image-classification"
GPU = "-gpu"  # suffix of the names of GPU variants

_FRAMEWORK = "tf_image_classification"
_SUFFIXES = (".py", ".html", ".css")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True, slots=True)
class Image:
    """A container image.

    Attributes:
        name: last part of its repository's name.
        environment: requirements/<environment>.txt is installed in it.
        include: patterns of the framework's files that it contains, as package/* or module.py; `*` matches slashes too.
        exclude: patterns of files among these that it does not contain.
        addition: name of a file in images/ that is appended to the Dockerfile; '' for none.
        on_demand: it is built only when it is named.
    """

    name: str
    environment: str
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    addition: str = ""
    on_demand: bool = False

    def sources(self) -> list[Path]:
        """Paths of the framework's files that it contains, sorted."""
        root = ROOT / _FRAMEWORK
        sources = []
        for path in root.rglob("*"):
            name = path.relative_to(root).as_posix()
            if path.suffix in _SUFFIXES and _matches(name, self.include) and not _matches(name, self.exclude):
                sources.append(path)
        return sorted(sources)

    def inputs(self) -> dict[str, Path]:
        """Everything that it is built from: name in the build context -> path."""
        inputs = {
            "Dockerfile": DOCKERFILE,
            "requirements.txt": ROOT / "requirements" / f"{self.environment}.txt",
        }
        inputs |= {self.addition: DOCKERFILE.with_name(self.addition)} if self.addition else {}
        return inputs | {path.relative_to(ROOT).as_posix(): path for path in self.sources()}

    def context(self, build: Build | None = None) -> bytes:
        """The build context: a tar archive whose bytes depend only on names and contents, not on times or owners.

        Args:
            build: what the Dockerfile is to say; by default it stays as it is.
        """
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for name, path in self.inputs().items():
                content = build.dockerfile() if build and path == DOCKERFILE else path.read_bytes()
                if path == DOCKERFILE and self.addition:
                    content += DOCKERFILE.with_name(self.addition).read_bytes()
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        return archive.getvalue()

    def tag(self, build: Build | None = None) -> str:
        """The default tag: 12 hexadecimal digits of the SHA-256 hash of the build context, the base image and the user
        included, and the platform where it is not the usual one.
        """
        digest = hashlib.sha256(self.context(build)).hexdigest()[:12]
        return build.tag(digest) if build else digest

    def reference(self, registry: str, tag: str = "", build: Build | None = None) -> str:
        """`<registry>/<name>:<tag>`, with the default tag if `tag` is empty."""
        return f"{registry}/{self.name}:{tag or self.tag(build)}"


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


# The evaluate image contains all that the train image does: it imports the user's EstimatorSpec, whose module may
# import anything that training uses.
# Of what launches clusters, only what starts processes: so `python -m pipelines run --runner docker` does.
_PLATFORMS = tuple(f"launch/{name}.py" for name in ("kubernetes_api", "task_pods", "tfjob", "training_operator"))
_NOT_IN_EVALUATE = (*_PLATFORMS, "dataflow/*", "promotion/*", "vertex/*")
_NOT_IN_TRAIN = (*_NOT_IN_EVALUATE, "evaluate/*")
# What every step needs, and what reads metadata.
_BASE = (
    "__init__.py",
    "command_line.py",
    "errors.py",
    "flag_table.py",
    "flag_types.py",
    "flags.py",
    "image_limits.py",
    "library_output.py",
    "model_folder.py",
    "network_sizes.py",
    "recipes.py",
    "versions.py",
    "storage/*",
    "data/*",
)

IMAGES = {
    image.name: image
    for image in (
        Image("build_tfrecords", "build", include=(*_BASE, "build_tfrecords/*", "pages.py", "progress.py")),
        Image("train", "train", exclude=_NOT_IN_TRAIN),
        Image("evaluate", "train", exclude=_NOT_IN_EVALUATE),
        # The steps that are never cached, with Vertex AI's SDK. They have an image of their own because a tag is part
        # of the cache key: a change of theirs must not change the tags of the cached steps.
        Image(
            "vertex",
            "vertex",
            include=(
                *_BASE,
                "cluster.py",
                "cluster_exchange.py",
                "cluster_step.py",
                "estimator_code.py",
                "evaluation_folder.py",
                "imagenet_weights.py",
                "launch/*",
                "packages.py",
                "promotion/*",
                "task_log.py",
                "training_key.py",
                "training_run.py",
                "vertex/*",
            ),
        ),
        Image("train-gpu", "train-gpu", exclude=_NOT_IN_TRAIN, on_demand=True),
        Image("evaluate-gpu", "train-gpu", exclude=_NOT_IN_EVALUATE, on_demand=True),
        # The build step that launches a Dataflow job, and the job's workers.
        Image(
            "beam",
            "beam",
            include=(
                *_BASE,
                "build_tfrecords/*",
                "dataflow/*",
                "launch/__init__.py",
                "launch/stop_signal.py",
                "pages.py",
                "progress.py",
                "promotion/__init__.py",
                "promotion/google_errors.py",
            ),
            addition="Dockerfile.beam",
            on_demand=True,
        ),
    )
}

DEFAULT = [name for name, image in IMAGES.items() if not image.on_demand]

# The image of each pipeline step; a step with an accelerator runs in the GPU variant, and the build step that launches
# a Dataflow job in `beam`.
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
    """Checks a tag given by the user: tags are part of the cache keys, so `latest`, which moves, is refused.

    Args:
        option: name of the command-line option, without its dashes.
        tag: '' for the default tags.

    Raises:
        FlagError: the tag is invalid, or `latest`.
    """
    if tag == "latest" or (tag and not _TAG.fullmatch(tag)):
        raise FlagError(
            f"Invalid value for --{option}",
            received=tag,
            expected="a tag that always names the same image",
            hint="Omit it: by default each image's tag is a hash of everything that the image is built from.",
        )
