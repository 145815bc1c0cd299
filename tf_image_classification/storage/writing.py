"""Writing whole files and folders, local, mounted or remote.

A file or folder appears whole or not at all: it is written to a staging path and renamed. Folders in a bucket, mounted
or not, cannot be renamed: one is whole when its marker exists, see bucket_folders. Writes to remote paths always go to
the service: a mount has no conditional writes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType

from tf_image_classification.errors import ConflictError, FlagError
from tf_image_classification.storage import bucket_folders, gcs_requests, local_files, local_folders, paths
from tf_image_classification.storage.leftovers import tidying
from tf_image_classification.storage.local_files import Stat, Version
from tf_image_classification.storage.object_names import is_placeholder
from tf_image_classification.storage.paths import as_prefix, canonical, is_remote, join
from tf_image_classification.storage.reading import exists, is_dir, walk
from tf_image_classification.storage.stores import store_of, transfers_of
from tf_image_classification.storage.write_check import check_overwritable

_THREADS = 8  # of requests at once
_MAX_DEPTH = 100  # of the files of a folder that is written or copied


def write_bytes(path: str, content: bytes, if_version: Version | None = None) -> None:
    """Writes a file; readers see the old content or the new one, never a part.

    Args:
        if_version: write only if the file still has this version, as returned by `read_version`; 0: only if it does
            not exist. By default, of two concurrent writers either may win.

    Raises:
        ConflictError: the file has another version.
    """
    if if_version is not None:
        if is_remote(path):
            store_of(path).write(path, content, if_version)
        else:
            local_files.write_if_version(path, content, if_version)
    elif is_remote(path):
        store = store_of(path)
        found = store.find(path)
        # A concurrent writer's content stays: the result is the same as if this one had been written just before it.
        with contextlib.suppress(ConflictError):
            store.write(path, content, found.version if found else 0)
    else:
        local_files.write(path, content)


def write_text(path: str, text: str, if_version: Version | None = None) -> None:
    """Writes a UTF-8 text file, as `write_bytes` does."""
    write_bytes(path, text.encode(), if_version)


def upload(file: str, path: str) -> None:
    """Copies a local file of any size to an object, which it replaces; it appears whole or not at all.

    Raises:
        ConflictError: another process has written it meanwhile.
    """
    transfers_of(path).upload(file, path)


def delete(path: str) -> None:
    """Deletes an object of a bucket; does nothing if it does not exist.

    Args:
        path: of the object, gs:// or s3://.

    Raises:
        ConflictError: another process has written it meanwhile.
    """
    store = store_of(path)
    if (found := store.find(path)) is not None:
        store.delete([found])


def delete_dir(folder: str) -> None:
    """Deletes all objects below a folder in a bucket, as far as the bucket allows that."""
    store = store_of(folder)

    def delete_object(item: Stat) -> None:
        with tidying(item.path):
            store.delete([item])

    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(delete_object, store.list_objects(folder, hidden=True)))


@contextlib.contextmanager
def replacing_dir(path: str, marker: str, elsewhere: Mapping[str, str] = MappingProxyType({})) -> Iterator[str]:
    """A staging folder that replaces `path` when the block ends without an error.

    On an error the staging folder is removed. If the process is killed, it stays under a hidden name that nothing
    reads, and the next writer of `path` removes it. All files are synced to disk before the folder appears.

    Args:
        path: a new or empty folder, or an older one with this marker. If it is a link, the folder that it leads to.
        marker: name of a file or folder that every folder of this kind has.
        elsewhere: names of further files -> objects of the same service that they are copied from when the block ends.
            For folders in a bucket that is not mounted.

    Yields:
        The path of the local staging folder.

    Raises:
        FlagError: `path` cannot be written to, or has other content, or another process of this machine is writing it,
            or it has to be replaced in a bucket that does not allow that.
        ConflictError: another process is writing to `path`, in a bucket.
        UserError: the disk is full.
    """
    check_replaceable(path, marker)
    path = _only_name(path)
    if not is_remote(path) and not path.startswith(paths.GCS_MOUNT):
        with local_folders.replacing_dir(path) as staging:
            yield staging
        return
    if is_remote(path) and is_dir(path):
        check_overwritable(path, "An older folder is replaced")
    with local_files.temporary_dir() as staging:
        yield staging
        if is_remote(path):
            bucket_folders.replace_dir(staging, _names(staging), path, marker, elsewhere=elsewhere)
        else:
            _replace_mounted_dir(staging, _names(staging), path, marker)


def copy_dir_once(source: str, path: str, marker: str) -> None:
    """Copies a local folder to `path`, unless a whole folder is there: that one is never touched.

    For folders whose name stands for their content. Of several processes that do so at once, one copies.

    Args:
        source: has the marker.
        path: a new or empty folder, or one with this marker.
        marker: a file that every folder of this kind has.

    Raises:
        FlagError: `path` cannot be written to, or has other content.
        ConflictError: another process is writing to `path`, in a bucket.
        UserError: the disk is full.
    """
    check_replaceable(path, marker)
    path = _only_name(path)
    if not is_remote(path) and not path.startswith(paths.GCS_MOUNT):
        local_folders.copy_dir_once(source, _names(source), path, marker)
    elif _is_whole(path, marker):
        return
    elif is_remote(path):
        bucket_folders.replace_dir(source, _names(source), path, marker, keep_whole=True)
    else:
        _replace_mounted_dir(source, _names(source), path, marker)


def restore_dir(path: str) -> None:
    """Before a local folder is read: puts it back if its writer was killed while it was replaced.

    Only where a file system cannot exchange two folders in one step; elsewhere a folder is never missing.
    """
    if not is_remote(path):
        local_folders.restore_dir(_only_name(path))


def check_replaceable(path: str, marker: str, keep: Iterable[str] = ()) -> None:
    """Checks that a folder at `path` may be written or replaced: it is new, empty, or an older one of its kind.

    Args:
        path: the folder that is going to be written.
        marker: see `replacing_dir`.
        keep: inputs, files or folders, that must not be `path` or below it.

    Raises:
        FlagError: it may not be, or its bucket does not exist.
    """
    if is_remote(path):
        target = path
        has_other_content = _bucket_has_other_content(target, marker)
    else:
        target = os.path.abspath(path)
        has_other_content = _local_has_other_content(target, marker)
    if has_other_content and not exists(join(target, bucket_folders.unfinished_marker(marker))):
        raise FlagError(
            f"{path} has other content", expected=f"a new or empty folder, or one with {marker}, which is replaced"
        )
    for other in keep:
        if as_prefix(canonical(other)).startswith(as_prefix(canonical(target))):
            raise FlagError(f"Writing {path} would replace {other}, which is an input", expected="separate folders")


def _replace_mounted_dir(folder: str, names: Sequence[str], destination: str, marker: str) -> None:
    """Replaces a folder in a mounted bucket by a local one. Nothing can be renamed there, so the marker comes last.

    Killed at any moment, it leaves no marker without all other files; see bucket_folders.

    Args:
        folder: the local folder.
        names: of its files, relative to it.
        destination: the folder to replace, below /gcs/.
        marker: the file, or folder of files, that is removed first and copied last.
    """
    unfinished_marker = bucket_folders.unfinished_marker(marker)
    os.makedirs(destination, exist_ok=True)
    marker_path = os.path.join(destination, unfinished_marker)
    with open(marker_path, "wb"):  # not renamed from a staging file: a mount would have to delete that one
        pass
    for name in sorted(os.listdir(destination), key=lambda name: name != marker):
        if name != unfinished_marker:
            local_files.remove(os.path.join(destination, name))
    marker_last = sorted(names, key=lambda name: name.split("/")[0] == marker)
    local_files.copy_files(folder, marker_last, destination)
    with tidying(marker_path):
        os.unlink(marker_path)


def _only_name(path: str) -> str:
    """A folder's path: in a bucket as it is, a local one absolute and without links."""
    return path if is_remote(path) else os.path.realpath(path)


def _is_whole(path: str, marker: str) -> bool:
    """Whether a folder in a bucket has its marker, and no writer has left or is leaving it unfinished."""
    return exists(join(path, marker)) and not exists(join(path, bucket_folders.unfinished_marker(marker)))


def _names(folder: str) -> list[str]:
    """The files below a local folder, relative to it, with slashes.

    What is copied or uploaded is as deep as models are: of more, the system's calls fail in a way of their own each.

    Raises:
        FlagError: they are nested more deeply.
    """
    names = [os.path.relpath(file.path, folder).replace(os.sep, "/") for file in walk(folder)]
    if deepest := next((name for name in names if name.count("/") > _MAX_DEPTH), None):
        raise FlagError(
            f"Folders are nested too deeply in {folder}",
            received=f"{deepest.count('/'):,} folders around a file",
            expected=f"at most {_MAX_DEPTH}",
        )
    return names


def _bucket_has_other_content(path: str, marker: str) -> bool:
    store = store_of(path)
    try:
        with gcs_requests.translate_storage_errors(path, writing=True):
            store.check_bucket(path)
    except FileNotFoundError:
        raise gcs_requests.bucket_not_found(path) from None
    found = store.find(as_prefix(path)[:-1])  # an object of the folder's own name
    is_file = found is not None and not is_placeholder(found)
    return is_file or (is_dir(path) and not exists(join(path, marker)))


def _local_has_other_content(path: str, marker: str) -> bool:
    try:
        names = os.listdir(path)  # in one call: another process may be replacing it
    except FileNotFoundError:
        return os.path.islink(path)  # not lexists: another process may have written it since
    except NotADirectoryError:
        return os.path.lexists(path)  # a file, and not below one
    return bool(names) and marker not in names
