"""The forms of a path: local, below the /gcs/ mount of a bucket, or remote: gs:// or s3://.

Remote is what is accessed through a service's client library. Kubeflow calls its own object store, which speaks S3's
protocol, minio://: another name for s3://.

A bucket that gcsfuse has mounted, as in Vertex AI's containers, has two names for each file: gs://BUCKET/OBJECT and
/gcs/BUCKET/OBJECT.
"""

from __future__ import annotations

import os
import re

from tf_image_classification.errors import FlagError
from tf_image_classification.storage import mounts

GCS_SCHEME = "gs://"
S3_SCHEME = "s3://"
REMOTE_SCHEMES = (GCS_SCHEME, S3_SCHEME, "minio://")
GCS_MOUNT = "/gcs/"
_NO_FILE_NAMES = frozenset(("", ".", ".."))
_BUCKET_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,220}[a-z0-9])?")


def is_gcs(path: str) -> bool:
    """Whether a path is a gs:// address, which is accessed through google-cloud-storage."""
    return path.startswith(GCS_SCHEME)


def is_remote(path: str) -> bool:
    """Whether a path is the address of an object or a folder in a bucket, on gs:// or s3://."""
    return path.startswith(REMOTE_SCHEMES)


def split_remote(path: str) -> tuple[str, str, str]:
    """gs://bucket/some/object -> (gs://, bucket, some/object).

    Raises:
        FlagError: the bucket's name is invalid, or the object's no Unicode.
    """
    service, _, rest = path.partition("://")
    bucket, _, name = rest.partition("/")
    expected = f"{service}://BUCKET/OBJECT"
    if not is_unicode(name):
        raise FlagError("The name of an object is no UTF-8", received=ascii(path), expected=expected)
    if not _BUCKET_NAME.fullmatch(bucket):
        raise FlagError("Invalid bucket name", received=path, expected=expected)
    return f"{service}://", bucket, name


def split_gcs(path: str) -> tuple[str, str]:
    """gs://bucket/some/object -> (bucket, some/object).

    Raises:
        FlagError: as of `split_remote`.
    """
    return split_remote(path)[1:]


def is_unicode(text: str) -> bool:
    """Whether UTF-8 can hold a text; it cannot where Python stands in for bytes of a file name that are none."""
    return text.isascii() or text.encode(errors="replace") == text.encode(errors="surrogatepass")


def join(folder: str, *parts: str) -> str:
    """Joins path parts, for local and remote paths alike."""
    return as_prefix(folder) + "/".join(parts) if is_remote(folder) else os.path.join(folder, *parts)


def mounted(path: str) -> str:
    """The /gcs/ path of a gs:// path whose bucket is mounted; any other path unchanged.

    Objects whose names are no paths of files, such as `a//b`, `a/../b` and `a/`, are not in a mount: the file system
    would show another one in their place.
    """
    if is_gcs(path):
        bucket, name = split_gcs(path)
        if (not name or _NO_FILE_NAMES.isdisjoint(name.split("/"))) and _is_mounted(bucket):
            return f"{GCS_MOUNT}{bucket}/{name}"
    return path


def canonical(path: str) -> str:
    """One form for each path: gs:// or s3:// for everything in a bucket, mounted or not, else an absolute local path.

    The name of an object stays as it is: `//`, `.` and `..` are parts of it like any other.
    """
    if is_remote(path):
        return path if is_gcs(path) else S3_SCHEME + path.partition("://")[2]
    path = os.path.abspath(path)
    if path.startswith("//"):  # POSIX leaves two slashes at the beginning to the system, for which they are one
        path = path[1:]
    below_mount = path.removeprefix(GCS_MOUNT)
    if below_mount != path and _is_mounted(below_mount.partition("/")[0]):
        return GCS_SCHEME + below_mount
    return path


def as_prefix(folder: str) -> str:
    """A folder's path as all paths below it begin: with a slash at its end.

    In a bucket each further slash is a part of the names of the objects: `gs://bucket/a//` is another folder than
    `gs://bucket/a/`.
    """
    if is_remote(folder):
        return folder if folder.endswith("/") else f"{folder}/"
    return folder.rstrip("/") + "/"


def _is_mounted(bucket: str) -> bool:
    return mounts.is_mounted(GCS_MOUNT + bucket)
