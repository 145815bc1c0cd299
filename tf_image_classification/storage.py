"""One view of local paths, /gcs/ mounts and gs:// objects.

A gs:// path is read through its /gcs/ mount where there is one (Vertex containers have it), else through google-cloud-storage.
Everything that is written appears whole or not at all: files and folders are written aside and renamed.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import glob as local_glob
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tf_image_classification.errors import FlagError, UserError

if TYPE_CHECKING:
    from google.cloud import storage as gcs

GCS_SCHEME = "gs://"
GCS_MOUNT = "/gcs/"
_GLOB_CHARACTERS = frozenset("*?[")


class Stat(NamedTuple):
    """What can be known of a file without reading it.

    Attributes:
        path: as it can be opened by this module.
        size: bytes.
        version: changes whenever the content does: modification time in nanoseconds, or the object's generation.
    """

    path: str
    size: int
    version: int


def is_gcs(path: str) -> bool:
    """Whether this module reaches `path` over the network, through google-cloud-storage."""
    return path.startswith(GCS_SCHEME)


def mounted(path: str) -> str:
    """The /gcs/ path of a gs:// path where its bucket is mounted; any other path unchanged."""
    if is_gcs(path):
        bucket, name = split_gcs(path)
        if os.path.isdir(GCS_MOUNT + bucket):
            return f"{GCS_MOUNT}{bucket}/{name}"
    return path


def split_gcs(path: str) -> tuple[str, str]:
    """gs://bucket/some/object -> (bucket, some/object)."""
    bucket, _, name = path.removeprefix(GCS_SCHEME).partition("/")
    if not bucket:
        raise FlagError("A gs:// path names no bucket", received=path, expected="gs://BUCKET/OBJECT")
    return bucket, name


def exists(path: str) -> bool:
    """Whether a file or folder is there."""
    path = mounted(path)
    if is_gcs(path):
        bucket, name = split_gcs(path)
        return (bool(name) and _bucket(bucket).blob(name).exists()) or is_dir(path)
    return os.path.exists(path)


def is_dir(path: str) -> bool:
    """Whether `path` is a folder (on gs://: whether an object lies under it)."""
    path = mounted(path)
    if is_gcs(path):
        return next(walk(path), None) is not None
    return os.path.isdir(path)


def check_bucket(path: str) -> None:
    """Makes sure that the bucket of a gs:// path is there and may be listed.

    Raises:
        FileNotFoundError: it is not there.
        google.api_core.exceptions.GoogleAPICallError: the service refuses.
    """
    from google.api_core.exceptions import NotFound

    bucket, _ = split_gcs(path)
    try:
        next(iter(_client().list_blobs(bucket, max_results=1)), None)
    except NotFound:
        raise FileNotFoundError(path) from None


def glob(pattern: str) -> list[str]:
    """The files and folders that match a path or glob, sorted. A path that does not exist gives an empty list."""
    pattern = mounted(pattern)
    if is_gcs(pattern):
        bucket, name = split_gcs(pattern)
        if _GLOB_CHARACTERS.isdisjoint(name):
            return [pattern] if exists(pattern) else []
        return sorted(f"{GCS_SCHEME}{bucket}/{blob.name}" for blob in _bucket(bucket).list_blobs(match_glob=name))
    if os.path.exists(pattern):  # also a file whose own name holds a *
        return [pattern]
    return sorted(local_glob.glob(pattern, recursive=True))


def names_in(folder: str) -> list[str]:
    """The names of the files and folders directly in a folder, sorted; none when it does not exist."""
    folder = mounted(folder)
    if is_gcs(folder):
        bucket, prefix = split_gcs(folder)
        prefix = prefix.rstrip("/") + "/" if prefix else ""
        listing = _bucket(bucket).list_blobs(prefix=prefix, delimiter="/")
        found = {blob.name for blob in listing} | set(listing.prefixes)  # the folders are known when all pages are read
        return sorted(name[len(prefix) :].rstrip("/") for name in found)
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


def stat(path: str) -> Stat:
    """Size and version of one file.

    Raises:
        FileNotFoundError: there is no such file.
    """
    path = mounted(path)
    if is_gcs(path):
        bucket, name = split_gcs(path)
        blob = _bucket(bucket).get_blob(name)
        if blob is None:
            raise FileNotFoundError(path)
        return Stat(path, blob.size or 0, blob.generation or 0)
    status = os.stat(path)
    return Stat(path, status.st_size, status.st_mtime_ns)


def walk(folder: str) -> Iterator[Stat]:
    """All files below a folder, in the order of their paths. Hidden files and folders are passed over.

    A file that cannot be looked at, such as a dangling link, has size and version 0: whoever opens it learns why.

    Raises:
        PermissionError: a folder may not be listed.
    """
    folder = mounted(folder)
    if is_gcs(folder):
        bucket, prefix = split_gcs(folder)
        prefix = prefix.rstrip("/") + "/" if prefix else ""
        for blob in _bucket(bucket).list_blobs(prefix=prefix):
            relative = blob.name[len(prefix) :]
            if relative and not relative.endswith("/") and not any(part.startswith(".") for part in relative.split("/")):
                yield Stat(f"{GCS_SCHEME}{bucket}/{blob.name}", blob.size or 0, blob.generation or 0)
        return

    def refuse(error: OSError) -> None:
        if isinstance(error, PermissionError):
            raise error

    ancestors = {folder: frozenset((_identity(folder),))}
    for directory, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        above = ancestors.pop(directory)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in list(folders):
            path = os.path.join(directory, name)
            if (identity := _identity(path)) in above:
                folders.remove(name)  # a link to a folder that it lies in
            else:
                ancestors[path] = above | {identity}
        for name in sorted(names):
            if not name.startswith("."):
                path = os.path.join(directory, name)
                try:
                    yield stat(path)
                except OSError:
                    yield Stat(path, 0, 0)


def join(folder: str, *parts: str) -> str:
    """Joins path parts, for local and gs:// paths alike."""
    return "/".join([folder.rstrip("/"), *parts]) if is_gcs(folder) else os.path.join(folder, *parts)


def read_bytes(path: str) -> bytes:
    """The content of a file.

    Raises:
        FileNotFoundError: there is no such file.
        PermissionError: it may not be read.
    """
    path = mounted(path)
    if is_gcs(path):
        from google.api_core.exceptions import Forbidden, NotFound

        bucket, name = split_gcs(path)
        try:
            return _bucket(bucket).blob(name).download_as_bytes()
        except NotFound:
            raise FileNotFoundError(path) from None
        except Forbidden:
            raise PermissionError(path) from None
    return Path(path).read_bytes()


def read_text(path: str) -> str:
    """The content of a UTF-8 text file, with or without a byte-order mark."""
    return read_bytes(path).decode("utf-8-sig")


def write_bytes(path: str, content: bytes) -> None:
    """Writes a file: readers see the old content or the new, never a part."""
    path = mounted(path)
    if is_gcs(path):
        bucket, name = split_gcs(path)
        _bucket(bucket).blob(name).upload_from_string(content, checksum="crc32c")
        return
    aside = _aside(path)
    try:
        with open(aside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside)
        raise


def write_text(path: str, text: str) -> None:
    """Writes a UTF-8 text file: readers see the old content or the new, never a part."""
    write_bytes(path, text.encode())


@contextlib.contextmanager
def replacing_dir(path: str, marker: str) -> Iterator[str]:
    """A folder to write into, which takes the place of `path` when the block ends without an error.

    Args:
        marker: a file or folder that every folder of this kind has: one without it is not replaced.

    On an error what was written is removed; when the process is killed it stays under a hidden name that nothing reads, and the
    next writer of `path` removes it.

    Yields:
        The local folder to write into.

    Raises:
        FlagError: the place cannot be written to, or holds something else.
        UserError: the disk is full.
    """
    check_replaceable(path, marker)
    path = mounted(path.rstrip("/"))
    if is_gcs(path) or path.startswith(GCS_MOUNT):
        # Folders in a bucket cannot be renamed, mounted or not: the marker comes last instead, and says that the rest is there.
        with temporary_dir() as aside:
            yield aside
            _publish(aside, path, marker)
        return
    aside = _aside(path)
    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        for leftover in local_glob.glob(_leftovers_of(path)):
            shutil.rmtree(leftover, ignore_errors=True)
        os.mkdir(aside)
    except OSError as error:
        raise FlagError(
            f"Cannot write to {path}", received=error.strerror, expected="a folder that can be created and written to"
        ) from error
    try:
        yield aside
        previous = _aside(path)
        if os.path.lexists(path):
            os.rename(path, previous)
        os.rename(aside, path)
        shutil.rmtree(previous, ignore_errors=True)
    except BaseException as error:
        shutil.rmtree(aside, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EBUSY):
            raise UserError(f"{path} cannot be written", received=error.strerror, hint="Make room, or choose another place.") from error
        raise


def check_replaceable(path: str, marker: str, keep: Iterable[str] = ()) -> None:
    """Checks that writing a folder to `path` destroys nothing: it is new, empty, or an older one of its kind.

    Args:
        marker: see `replacing_dir`.
        keep: files and folders that must neither be replaced nor lie in what is.

    Raises:
        FlagError: it would.
    """
    path = mounted(path)
    if is_gcs(path):
        return
    target = os.path.abspath(path)
    if os.path.lexists(target) and not (
        os.path.isdir(target) and (not os.listdir(target) or os.path.lexists(os.path.join(target, marker)))
    ):
        raise FlagError(f"{path} holds something else", expected=f"a new or empty folder, or one with {marker}, which is replaced")
    for other in map(mounted, keep):
        if not is_gcs(other) and os.path.join(os.path.abspath(other), "").startswith(os.path.join(target, "")):
            raise FlagError(f"Writing {path} would replace {other}, which is read", expected="folders apart from each other")


@contextlib.contextmanager
def exclusive(folder: str) -> Iterator[None]:
    """Keeps a second process of this machine out of a local folder for as long as the block runs; makes the folder.

    Raises:
        FlagError: another process is at work in it, or it cannot be written to.
    """
    import fcntl

    lock = os.path.join(folder, ".lock")
    try:
        os.makedirs(folder, exist_ok=True)
        file = open(lock, "w")  # noqa: SIM115 - closed below, which releases the lock
    except OSError as error:
        raise FlagError(
            f"Cannot write to {folder}", received=error.strerror, expected="a folder that can be created and written to"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FlagError(
                "Another process is at work here", received=folder, hint="Wait for it to end, or choose another folder."
            ) from None
        except OSError:  # a mounted bucket may have no locks
            pass
        yield


@contextlib.contextmanager
def temporary_dir() -> Iterator[str]:
    """A local folder that is removed when the block ends."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="tfic-") as folder:
        yield folder


def _publish(folder: str, destination: str, marker: str) -> None:
    """Copies a local folder to one in a bucket: first an older marker goes, then the files come, last the marker."""
    names = [os.path.relpath(file.path, folder) for file in walk(folder)]
    last = [name for name in names if name.split(os.sep)[0] == marker]
    first = [name for name in names if name not in last]
    if is_gcs(destination):
        bucket, prefix = split_gcs(destination)
        for file in list(walk(destination)):
            _bucket(bucket).blob(split_gcs(file.path)[1]).delete()
        for part in (first, last):
            _upload(folder, part, bucket, prefix)
        return
    shutil.rmtree(os.path.join(destination, marker), ignore_errors=True)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        os.unlink(os.path.join(destination, marker))
    shutil.rmtree(destination, ignore_errors=True)
    for name in [*first, *last]:
        target = os.path.join(destination, name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copyfile(os.path.join(folder, name), target)


def _upload(folder: str, names: list[str], bucket: str, prefix: str) -> None:
    from google.cloud.storage import transfer_manager

    results = transfer_manager.upload_many_from_filenames(
        _bucket(bucket), names, source_directory=folder, blob_name_prefix=prefix.rstrip("/") + "/", worker_type="thread"
    )
    for result in results:
        if isinstance(result, Exception):
            raise result


def fetch(path: str, folder: str) -> str:
    """A local path with the content of `path`: itself when it is local, else a copy in `folder`."""
    path = mounted(path)
    if not is_gcs(path):
        return path
    bucket, name = split_gcs(path)
    target = os.path.join(folder, bucket, name)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    aside = _aside(target)
    _bucket(bucket).blob(name).download_to_filename(aside, checksum="crc32c")
    os.replace(aside, target)
    return target


def _aside(path: str) -> str:
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.partial-{uuid.uuid4().hex[:8]}")


def _identity(folder: str) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _leftovers_of(path: str) -> str:
    """A pattern for what killed writers of `path` left beside it."""
    folder, name = os.path.split(path)
    return os.path.join(local_glob.escape(folder), f".{local_glob.escape(name)}.partial-*")


@functools.cache
def _client() -> gcs.Client:
    from google.cloud import storage as gcs

    if os.environ.get("STORAGE_EMULATOR_HOST"):
        from google.auth.credentials import AnonymousCredentials

        return gcs.Client(project="local", credentials=AnonymousCredentials())
    return gcs.Client()


def _bucket(name: str) -> gcs.Bucket:
    return _client().bucket(name)
