"""What each image contains, and that its tag changes with that and with nothing else."""

from __future__ import annotations

import ast
import io
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from images import build as image_build
from images import catalog
from tests.conftest import REPOSITORY

FRAMEWORK = "tf_image_classification"


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A copy of everything that images are built from, which tests may change."""
    root = tmp_path / "checkout"
    root.mkdir()
    for folder in ("images", "requirements", FRAMEWORK):
        shutil.copytree(REPOSITORY / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "README.md", root)
    return root


def tags(checkout: Path) -> dict[str, str]:
    answer = subprocess.run(
        [sys.executable, "-m", "images", "tags", *catalog.IMAGES],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(re.findall(r"^tf-image-classification/(\S+):(\S+)$", answer.stdout, re.MULTILINE))


@pytest.mark.parametrize(
    ("changed", "images"),
    [
        ("README.md", set()),
        ("images/__main__.py", set()),
        ("requirements/dev.txt", set()),
        ("requirements/build.txt", {"build_tfrecords"}),
        ("requirements/beam.txt", {"beam"}),
        ("images/Dockerfile.beam", {"beam"}),
        (f"{FRAMEWORK}/dataflow/job.py", {"beam"}),
        (f"{FRAMEWORK}/launch/stop_signal.py", set(catalog.IMAGES) - {"build_tfrecords"}),
        ("requirements/vertex.txt", {"vertex"}),
        ("requirements/train.txt", {"train", "evaluate"}),
        ("requirements/train-gpu.txt", {"train-gpu", "evaluate-gpu"}),
        (f"{FRAMEWORK}/promotion/resolve.py", {"vertex"}),
        (f"{FRAMEWORK}/promotion/notify.py", {"vertex"}),
        (f"{FRAMEWORK}/evaluate/report.py", {"evaluate", "evaluate-gpu"}),
        (f"{FRAMEWORK}/evaluate/templates/report.css", {"evaluate", "evaluate-gpu"}),
        (f"{FRAMEWORK}/nets/vgg.py", {"train", "evaluate", "train-gpu", "evaluate-gpu"}),
        (f"{FRAMEWORK}/storage/paths.py", set(catalog.IMAGES)),
        (f"{FRAMEWORK}/storage/gcs.py", set(catalog.IMAGES)),
        ("images/Dockerfile", set(catalog.IMAGES)),
    ],
)
def test_a_changed_file_changes_the_tags_of_the_images_that_are_built_from_it_and_no_others(checkout, changed, images):
    before = tags(checkout)
    with (checkout / changed).open("a") as file:
        file.write("\n# changed\n")
    after = tags(checkout)
    assert {name for name in before if before[name] != after[name]} == images


def test_a_new_file_changes_the_tag_too(checkout):
    before = tags(checkout)
    (checkout / FRAMEWORK / "nets" / "new.py").write_text("")
    assert tags(checkout)["train"] != before["train"]
    assert tags(checkout)["build_tfrecords"] == before["build_tfrecords"]


def test_the_tag_does_not_depend_on_byte_code_times_or_permissions_of_the_checkout(checkout):
    (checkout / FRAMEWORK / "__pycache__").mkdir()
    (checkout / FRAMEWORK / "__pycache__" / "flags.cpython-311.pyc").write_bytes(b"x")
    (checkout / FRAMEWORK / "flags.py").touch()
    (checkout / FRAMEWORK / "flags.py").chmod(0o600)
    assert tags(checkout) == {name: image.tag() for name, image in catalog.IMAGES.items()}


@pytest.mark.parametrize("image", catalog.IMAGES.values(), ids=str)
def test_an_image_is_built_from_nothing_but_its_inputs(image):
    with tarfile.open(fileobj=io.BytesIO(image.context())) as tar:
        assert tar.getnames() == list(image.inputs())
        assert {(member.mtime, member.uid, member.mode) for member in tar} == {(0, 0, 0o644)}


def test_every_file_of_the_framework_is_in_some_image():
    files = {
        path
        for path in (REPOSITORY / FRAMEWORK).rglob("*")
        if path.is_file() and path.suffix != ".pyc" and path.name != "py.typed"
    }
    assert files == {path for image in catalog.IMAGES.values() for path in image.sources()}


@pytest.mark.parametrize("image", catalog.IMAGES.values(), ids=str)
def test_an_image_contains_what_its_modules_import_at_the_top_level(image):
    contained = {module_name(path) for path in image.sources() if path.suffix == ".py"}
    everything = {module_name(path) for path in (REPOSITORY / FRAMEWORK).rglob("*.py")}
    for path in image.sources():
        if path.suffix == ".py":
            assert top_imports(path) & everything <= contained, path


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


def top_imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_the_build_tfrecords_image_installs_no_tensorflow():
    pinned = set(re.findall(r"^([a-z0-9-]+)==", (REPOSITORY / "requirements" / "build.txt").read_text(), re.MULTILINE))
    assert {"kfp", "pillow"} <= pinned
    assert pinned.isdisjoint({"tensorflow", "tensorflow-cpu", "keras", "matplotlib"})


# Beam asks for other versions than the checkout has: its image is compared with that of the other build.
@pytest.mark.parametrize("environment", sorted({image.environment for image in catalog.IMAGES.values()} - {"beam"}))
def test_an_image_installs_the_versions_that_the_checkout_is_tested_with(environment):
    checkout, image = (pins(REPOSITORY / "requirements" / f"{name}.txt") for name in ("dev", environment))
    assert {
        name: versions for name, versions in image.items() if not name.startswith("nvidia-")
    }.items() <= checkout.items()


def test_both_images_that_build_install_the_same_versions_of_what_builds():
    local, beam = (pins(REPOSITORY / "requirements" / f"{name}.txt") for name in ("build", "beam"))
    # Beam admits no newer NumPy, which carries pixels here and computes none.
    shared = {name: versions for name, versions in local.items() if name in beam and name != "numpy"}
    assert {"pillow", "simplejpeg", "protobuf", "kfp", "google-cloud-storage"} <= set(shared)
    assert shared.items() <= beam.items()


def test_the_program_that_starts_a_worker_is_of_the_version_of_beam_that_is_installed():
    installed = pins(REPOSITORY / "requirements" / "beam.txt")
    (version,) = installed["apache-beam"]
    assert "pip" in installed, "without `python -m pip show apache-beam` the program starts no worker"
    with tarfile.open(fileobj=io.BytesIO(catalog.IMAGES["beam"].context(image_build.choose()))) as tar:
        dockerfile = tar.extractfile("Dockerfile").read().decode()
    assert dockerfile.startswith((REPOSITORY / "images" / "Dockerfile").read_text())
    copied = re.findall(r"^COPY --from=(\S+?)(?:@\S+)? /opt/apache/beam /opt/apache/beam$", dockerfile, re.MULTILINE)
    assert copied == [f"apache/beam_python3.11_sdk:{version}"]
    assert dockerfile.rstrip().endswith('ENTRYPOINT ["/opt/apache/beam/boot"]')


def pins(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", path.read_text(), re.MULTILINE):
        found.setdefault(name, []).append(version)
    return found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tags", "--tag", "latest"], "latest"),
        (["bild"], "Invalid value for command. Received: bild. Expected: build or tags or pin. Did you mean build?"),
        (["build", "trian"], "train-gpu"),
        (["build", "--user", "0:0", "trian"], "Unknown image. Received: trian"),
        (["build", "--platfrom", "linux/arm64"], "Did you mean --platform?"),
        (["pin", "train"], "pin takes no IMAGE"),
        (["build", "--push", "--base", "debian"], "--push needs a base image by its digest"),
    ],
)
def test_a_wrong_call_is_refused_before_anything_is_built(arguments, message):
    answer = subprocess.run(
        [sys.executable, "-m", "images", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 2
    assert message in " ".join(answer.stderr.split())


def test_a_build_without_docker_is_an_error(tmp_path):
    answer = subprocess.run(
        [sys.executable, "-m", "images", "build"],
        cwd=REPOSITORY,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 2
    assert "Docker is not installed" in answer.stderr
