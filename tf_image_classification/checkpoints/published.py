"""The published weights of a network of keras.applications: found in --weights_dir, or downloaded there by Keras."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import logging
import os
import sys
import tempfile
from collections.abc import Iterator

import keras

from tf_image_classification import storage
from tf_image_classification.errors import CheckpointError, ConflictError
from tf_image_classification.imagenet_weights import PublishedFile

_log = logging.getLogger(__name__)

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EACCES, errno.EPERM, errno.EROFS)


@contextlib.contextmanager
def open_file(file: PublishedFile, weights_dir: str | None) -> Iterator[str]:
    """The published weights as a local file, of which the hash has been checked.

    If `weights_dir` does not have the file yet, it is downloaded and kept there.

    Args:
        weights_dir: a local or gs:// folder; None: the folder where Keras keeps such files.

    Yields:
        Path of the file, until the block ends.

    Raises:
        CheckpointError: a file of this name has other content, or it cannot be downloaded or kept.
    """
    folder = weights_dir or _keras_folder()
    kept = storage.join(folder, file.name)
    with storage.temporary_dir() as temporary:
        if storage.exists(kept):
            path = storage.fetch(kept, temporary)
            _check_hash(file, path, kept)
        elif storage.is_remote(folder):
            path = _download(file, temporary)
            with contextlib.suppress(ConflictError):  # another training has kept the same file meanwhile
                storage.upload(path, kept)
            _log.info("Kept as %s", kept)
        else:
            path = kept
            with _staging_folder(folder) as staging:
                os.replace(_download(file, staging), kept)
            _log.info("Kept as %s", kept)
        yield path


def _keras_folder() -> str:
    """Where keras.utils.get_file keeps the files of keras.applications (its `cache_dir` and "models")."""
    return os.path.join(os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras"), "models")


@contextlib.contextmanager
def _staging_folder(folder: str) -> Iterator[str]:
    """A new folder in `folder`, so that a file appears there whole or not at all. It is removed in the end."""
    try:
        os.makedirs(folder, exist_ok=True)
        staging = tempfile.TemporaryDirectory(prefix=".partial-", dir=folder)
    except OSError as error:
        raise CheckpointError(
            f"The folder {folder} for published weights cannot be written to",
            received=error.strerror or str(error),
            hint="Give a folder, local or on gs://, as --weights_dir.",
        ) from error
    with staging as path:
        yield path


def _download(file: PublishedFile, folder: str) -> str:
    """Downloads into a local folder; returns the path."""
    _log.info("Downloading %s", file.url)
    shown = sys.stderr if sys.stderr.isatty() else io.StringIO()
    try:
        with contextlib.redirect_stdout(shown):  # Keras prints a progress bar; standard output is for results
            return str(
                keras.utils.get_file(
                    file.name, file.url, file_hash=file.file_hash or None, cache_dir=folder, cache_subdir=""
                )
            )
    except ValueError as error:  # of get_file: the hash is another
        raise CheckpointError(
            f"The download of {file.url} has other content than Keras states",
            received=f"another {file.hash_algorithm} hash",
            expected=f"{file.hash_algorithm} {file.file_hash}",
            hint="A proxy may have answered in its place. Run again, or put the file into --weights_dir by hand.",
        ) from error
    except Exception as error:  # get_file raises this very class if the server cannot be reached or refuses
        if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
            raise CheckpointError(
                f"The published weights {file.name} cannot be written to {os.path.dirname(folder)}",
                received=error.strerror,
                hint="Free some space, or give another folder as --weights_dir, and run again.",
            ) from error
        raise CheckpointError(
            f"The published weights cannot be downloaded from {file.url}",
            received=error,
            hint=f"Without internet, put the file as {file.name} into a folder by hand, local or on gs://, and give "
            "that as --weights_dir.",
        ) from error


def _check_hash(file: PublishedFile, path: str, kept: str) -> None:
    """Checks the content of the local file `path`; `kept` is what messages call it."""
    if not file.file_hash:
        return
    with open(path, "rb") as content:
        found = hashlib.file_digest(content, file.hash_algorithm).hexdigest()
    if found != file.file_hash:
        raise CheckpointError(
            f"{kept} is not the published file",
            received=f"{file.hash_algorithm} {found}",
            expected=f"{file.hash_algorithm} {file.file_hash}",
            hint=f"Remove it: it is downloaded again from {file.url}. To start from your own weights, give their path "
            "as --checkpoint_path.",
        )
