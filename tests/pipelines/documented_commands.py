"""The cloud's command lines as a page of the documentation calls them: gcloud and kubectl, in front of the stand-ins.

`gcloud` creates buckets and endpoints, and copies and deletes objects. What sets up accounts, services and registries
has no stand-in: such a command is only checked to be one that the page may use. `make images` and Docker are tested
with the images themselves.
"""

from __future__ import annotations

import fnmatch
import os
import sys
from pathlib import Path

# The groups of commands that are accepted and do nothing here.
_ACCEPTED = {
    "gcloud": (
        "auth",
        "artifacts repositories create",
        "config set project",
        "container",
        "iam",
        "projects add-iam-policy-binding",
        "projects remove-iam-policy-binding",
        "pubsub topics",
        "services enable",
        "storage buckets add-iam-policy-binding",
    ),
    "kubectl": ("annotate", "apply", "config", "create", "get", "port-forward", "version"),
    "docker": ("build", "pull", "push"),
    "make": ("images", "demo-schedule"),
}


def install(folder: Path) -> None:
    """Writes the programs to a folder, for PATH."""
    folder.mkdir()
    for name in _ACCEPTED:
        program = folder / name
        program.write_text(
            f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
            "from tests.pipelines import documented_commands\n"
            f"sys.exit(documented_commands.main({name!r}, sys.argv[1:]))\n"
        )
        program.chmod(0o755)


def main(program: str, words: list[str]) -> int:
    """Carries out a command; returns its exit code, 2 of one that is unknown."""
    line = " ".join(words)
    given = [word for word in words if not word.startswith("-")]
    if program == "gcloud" and line.startswith("storage buckets create"):
        _bucket_client().create_bucket(given[3].removeprefix("gs://"))
    elif program == "gcloud" and line.startswith("storage cp"):
        _copy(Path(given[2]), given[3])
    elif program == "gcloud" and line.startswith("storage rm"):
        _remove(given[2])
    elif program == "gcloud" and line.startswith("storage ls"):
        print(_newest(given[2]))
    elif program == "gcloud" and line.startswith("ai endpoints create"):
        _create_endpoint(words[words.index("--region") + 1], words[words.index("--display-name") + 1])
    elif not line.startswith(_ACCEPTED[program]):
        print(f"{program}: unknown here: {line}", file=sys.stderr)
        return 2
    return 0


def _bucket_client():
    from tests.standin import bucket

    return bucket.client(os.environ["STORAGE_EMULATOR_HOST"])


def _copy(source: Path, target: str) -> None:
    name, _, prefix = target.removeprefix("gs://").partition("/")
    bucket = _bucket_client().bucket(name)
    files = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
    for file in files:
        bucket.blob(prefix + file.relative_to(source.parent).as_posix()).upload_from_filename(str(file))


def _remove(folder: str) -> None:
    name, _, prefix = folder.removeprefix("gs://").partition("/")
    for blob in _bucket_client().list_blobs(name, prefix=f"{prefix}/"):
        blob.delete()


def _newest(pattern: str) -> str:
    name, _, inside = pattern.removeprefix("gs://").partition("/")
    found = [blob for blob in _bucket_client().list_blobs(name) if fnmatch.fnmatch(blob.name, inside)]
    return f"gs://{name}/{max(found, key=lambda blob: blob.time_created).name}"


def _create_endpoint(region: str, display_name: str) -> None:
    from google.cloud import aiplatform_v1

    from tf_image_classification.vertex.client import client_options

    parent = f"projects/{os.environ['PROJECT']}/locations/{region}"
    endpoint = aiplatform_v1.Endpoint(display_name=display_name)
    service = aiplatform_v1.EndpointServiceClient(**client_options(region))
    created = service.create_endpoint(parent=parent, endpoint=endpoint, endpoint_id="1234567890")
    print(created.result(timeout=60).name.rpartition("/")[2])
