"""One view of local paths, /gcs/ mounts and gs:// objects.

The content of gs:// paths is read through their /gcs/ mount where there is one (Vertex containers have it), else
through google-cloud-storage. What is there, in which version, and what is written goes through google-cloud-storage in
any case: a mount knows no generations, cannot write on a condition, and may show for a while what was there before.

Everything that is written appears whole or not at all: files and folders are written aside and renamed; folders in a
bucket, where nothing can be renamed, are whole when their marker is there.
"""

from __future__ import annotations

import contextlib
import glob as local_glob
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from tf_image_classification.errors import ConflictError, FlagError
from tf_image_classification.storage import gcs, gcs_folders, gcs_requests, local_files, mounts
from tf_image_classification.storage.local_files import Stat

GCS_SCHEME = gcs.SCHEME
GCS_MOUNT = "/gcs/"
_GLOB_CHARACTERS = frozenset("*?[")


def is_gcs(path: str) -> bool:
    """Whether this module reaches `path` over the network, through google-cloud-storage."""
    return path.startswith(GCS_SCHEME)


def mounted(path: str) -> str:
    """The /gcs/ path of a gs:// path where its bucket is mounted; any other path unchanged."""
    if is_gcs(path):
        bucket, name = gcs.split(path)
        if _is_mounted(bucket):
            return f"{GCS_MOUNT}{bucket}/{name}"
    return path


def canonical(path: str) -> str:
    """One form for one place: the gs:// path of what lies in a mounted bucket, any other gs:// path unchanged, else an
    absolute path."""
    if is_gcs(path):
        return path
    path = os.path.abspath(path)
    inside = path.removeprefix(GCS_MOUNT)
    return GCS_SCHEME + inside if inside != path and _is_mounted(inside.partition("/")[0]) else path


def _is_mounted(bucket: str) -> bool:
    folder = GCS_MOUNT + bucket
    return (
        os.path.isdir(folder)
        and os.path.exists(mounts.TABLE)
        and mounts.is_fuse(folder, Path(mounts.TABLE).read_text())
    )


def split_gcs(path: str) -> tuple[str, str]:
    """gs://bucket/some/object -> (bucket, some/object)."""
    return gcs.split(path)


def exists(path: str) -> bool:
    """Whether a file or folder is there."""
    if is_gcs(path):
        return gcs.find(path) is not None or is_dir(path)
    return os.path.exists(path)


def is_dir(path: str) -> bool:
    """Whether `path` is a folder (on gs://: whether an object lies under it)."""
    if is_gcs(path):
        return next(walk(path), None) is not None
    return os.path.isdir(path)


def check_bucket(path: str) -> None:
    """Makes sure that the bucket of a gs:// path is there and may be listed.

    Raises:
        FileNotFoundError: it is not there.
        google.api_core.exceptions.GoogleAPICallError: the service refuses.
    """
    gcs.check_bucket(path)


def glob(pattern: str) -> list[str]:
    """The files and folders that match a path or glob, sorted. A path that does not exist gives an empty list."""
    if is_gcs(pattern):
        if _GLOB_CHARACTERS.isdisjoint(pattern):
            return [pattern] if exists(pattern) else []
        return gcs.matching(pattern)
    if os.path.exists(pattern):  # also a file whose own name holds a *
        return [pattern]
    return sorted(local_glob.glob(pattern, recursive=True))


def names_in(folder: str) -> list[str]:
    """The names of the files and folders directly in a folder, sorted; none when it does not exist."""
    if is_gcs(folder):
        return gcs.names_in(folder)
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


def stat(path: str) -> Stat:
    """Size and version of one file.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if is_gcs(path):
        return gcs.stat(path)
    return local_files.stat(path)


def walk(folder: str) -> Iterator[Stat]:
    """All files below a folder, in the order of their paths. Hidden files and folders are passed over.

    A file that cannot be looked at, such as a dangling link, has size and version 0: whoever opens it learns why.

    Raises:
        PermissionError: a folder may not be listed.
    """
    return gcs.objects(folder) if is_gcs(folder) else local_files.walk(folder)


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
        return gcs.read(path)
    return Path(path).read_bytes()


def read_text(path: str) -> str:
    """The content of a UTF-8 text file, with or without a byte-order mark."""
    return read_bytes(path).decode("utf-8-sig")


def read_version(path: str) -> tuple[bytes | None, int]:
    """The content of a file and its version, for `write_bytes(if_version=)`; None and 0 where there is no file."""
    with contextlib.suppress(FileNotFoundError):
        if is_gcs(path):
            return gcs.read_version(path)
        version = stat(
            path
        ).version  # first: a content that is newer than its version makes a later write fail, not succeed
        return read_bytes(path), version
    return None, 0


def write_bytes(path: str, content: bytes, if_version: int | None = None) -> None:
    """Writes a file: readers see the old content or the new, never a part.

    Args:
        if_version: write only if the file still has this version, as `read_version` gave it; 0: if there is none.
            Without it, of two writers at the same time either may be the last.

    Raises:
        ConflictError: there is another version.
    """
    if if_version is not None:
        if is_gcs(path):
            gcs.write(path, content, if_version)
        else:
            local_files.write_if_version(path, content, if_version)
    elif is_gcs(path):
        found = gcs.find(path)
        with contextlib.suppress(
            ConflictError
        ):  # another writer was at it too: that its content stays is as good as that ours came first
            gcs.write(path, content, found.version if found else 0)
    else:
        local_files.write(path, content)


def write_text(path: str, text: str, if_version: int | None = None) -> None:
    """Writes a UTF-8 text file, as `write_bytes` does."""
    write_bytes(path, text.encode(), if_version)


@contextlib.contextmanager
def replacing_dir(path: str, marker: str) -> Iterator[str]:
    """A folder to write into, which takes the place of `path` when the block ends without an error.

    Args:
        marker: a file or folder that every folder of this kind has: one without it is not replaced.

    On an error what was written is removed; when the process is killed it stays under a hidden name that nothing reads,
    and the next writer of `path` removes it.

    Yields:
        The local folder to write into.

    Raises:
        FlagError: the place cannot be written to, or holds something else.
        UserError: the disk is full.
    """
    check_replaceable(path, marker)
    path = path.rstrip("/")
    if is_gcs(path) or path.startswith(GCS_MOUNT):
        # Folders in a bucket cannot be renamed, mounted or not: the marker comes last instead, and says that the rest
        # is there.
        with temporary_dir() as aside:
            yield aside
            names = [os.path.relpath(file.path, aside).replace(os.sep, "/") for file in walk(aside)]
            if is_gcs(path):
                gcs_folders.publish(aside, names, path, marker)
            else:
                local_files.publish(aside, names, path, marker, gcs_folders.sign(marker))
    else:
        with local_files.replacing_dir(path) as aside:
            yield aside


def check_replaceable(path: str, marker: str, keep: Iterable[str] = ()) -> None:
    """Checks that writing a folder to `path` destroys nothing: it is new, empty, or an older one of its kind.

    Args:
        marker: see `replacing_dir`.
        keep: files and folders that must neither be replaced nor lie in what is.

    Raises:
        FlagError: it would.
    """
    if is_gcs(path):
        target = path = path.rstrip("/")
        try:
            with gcs_requests.translate_storage_errors(path, writing=True):
                gcs.check_bucket(path)
        except FileNotFoundError:
            raise FlagError("The bucket does not exist", received=path, expected="a bucket that is there") from None
        occupied = gcs.find(path) is not None or (is_dir(path) and not exists(join(path, marker)))
    else:
        target = os.path.abspath(path)
        occupied = os.path.lexists(target) and not (
            os.path.isdir(target) and (not os.listdir(target) or os.path.lexists(os.path.join(target, marker)))
        )
    if occupied and not exists(join(target, gcs_folders.sign(marker))):
        raise FlagError(
            f"{path} holds something else", expected=f"a new or empty folder, or one with {marker}, which is replaced"
        )
    for other in keep:
        if _below(canonical(other)).startswith(_below(canonical(target))):
            raise FlagError(
                f"Writing {path} would replace {other}, which is read", expected="folders apart from each other"
            )


def fetch(path: str, folder: str) -> str:
    """A local path with the content of `path`: itself when it is local, else a copy in `folder`.

    Raises:
        FileNotFoundError: there is no such file.
    """
    path = mounted(path)
    if not is_gcs(path):
        return path
    target = gcs_folders.local_path(folder, path.removeprefix(GCS_SCHEME))
    aside = local_files.staging_path(target)
    try:
        gcs_folders.fetch(path, aside)
        os.replace(aside, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside)
        raise
    return target


def fetch_dir(folder: str, target: str) -> str:
    """A local folder with the content of `folder`: itself when it is local, else a copy at `target`, which appears
    whole or not at all.

    Raises:
        FileNotFoundError: nothing lies in it.
        ConflictError: it has been replaced while it was being copied.
    """
    folder = mounted(folder)
    if not is_gcs(folder):
        return folder
    found = list(gcs.objects(folder))
    if not found:
        raise gcs_requests.missing(folder)
    aside = local_files.staging_path(target)
    files = [gcs_folders.local_path(aside, item.path[len(_below(folder)) :]) for item in found]
    try:
        gcs_folders.download(found, files)
        os.rename(aside, target)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return target


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


def upload(file: str, path: str) -> None:
    """Copies a local file of any size to gs://, where it appears whole or not at all.

    Raises:
        ConflictError: another process has written there meanwhile.
    """
    gcs_folders.send(file, path)


def delete(path: str) -> None:
    """Removes an object of a bucket; one that is gone already is no error.

    Raises:
        ConflictError: another process has written it meanwhile.
    """
    if (found := gcs.find(path)) is not None:
        gcs.delete([found])


def _below(folder: str) -> str:
    return folder.rstrip("/") + "/"
