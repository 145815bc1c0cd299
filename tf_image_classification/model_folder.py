"""The model folder that training exports: its files, and the content of model.json. Imports no TensorFlow.

saved_model/   TensorFlow SavedModel that is evaluated and served: encoded images -> scores (see `export.Serving`)
model.keras    the Keras model, to continue from: images -> logits
labels.txt     one class name per line, by class id; of several tasks labels.<task>.txt
model.json     JSON object: `format` (1), `tasks`, `image_size`, `digest` of the weights, `files` (name -> SHA-256 of
               each other file), and as training adds them flags, data fingerprint, warm start, metrics, versions of
               packages, and of an --estimator SHA-256 hashes: `packages` (file name -> hash of each of --packages),
               `estimator_source` ('' where not known)

A SavedModel is a program that TensorFlow runs. So `verify` compares the folder with `files` before anything loads it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import re
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tf_image_classification import storage
from tf_image_classification.errors import DataError, abridged, printable

EXPORT_DIR = "export"  # the model folder in a --model_dir
SAVED_MODEL, KERAS_MODEL, FACTS = "saved_model", "model.keras", "model.json"
# The SavedModel's signature and its names, as servers and `evaluate` call it, see `export.Serving`.
SIGNATURE, INPUT = "serving_default", "image_bytes"
SCORES, CLASSES = "scores", "classes"  # outputs, each after `output_prefix`
_TYPES = {
    "digest": str,
    "data_fingerprint": str,
    "estimator": str | None,
    "estimator_source": str,
    "files": dict,
    "flags": dict,
    "model_name": str | None,
    "packages": dict,
    "tasks": list,
    "versions": dict,
    "warm_start": dict | None,
}
EXPECTED = f"a folder with {SAVED_MODEL}/, {FACTS} and labels, as training exports it"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_BLOCK_BYTES = 2**20
_MAX_NAME_LENGTH = 255  # of a file or folder, on most systems
_HINT = "A SavedModel is code: do not load this one. Find out what changed it, and export the model again."

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model folder whose files are those that training exported.

    Attributes:
        folder: as given.
        local: local path of the verified files: the copy, where `verify` made one; '' for one on gs:// without a copy.
        facts: the content of model.json.
        digest: identifies what the model computes, see `export.digest`: 64 hexadecimal digits. '' where a folder that
            lists no files has none.
        sha256: of model.json, which lists that of each other file: identifies the folder. Hexadecimal.
    """

    folder: str
    local: str
    facts: dict[str, Any]
    digest: str
    sha256: str


def output_prefix(task: str, num_tasks: int) -> str:
    """The prefix of a task's output names, in a model of so many tasks: `<task>_`, or nothing for the only one."""
    return f"{task}_" if num_tasks > 1 else ""


def read_facts(folder: str) -> dict[str, Any]:
    """The content of a model folder's model.json.

    Args:
        folder: local, mounted or gs:// path.

    Raises:
        DataError: model.json is not found, is not a JSON object, or an entry has another type than training writes.
    """
    storage.restore_dir(folder)
    return _parse(folder, _content(folder, folder))


def verify(folder: str, copy_to: str = "", *, accept_unlisted: bool = False) -> ModelFolder:
    """Checks that a model folder holds the files that its model.json lists, byte for byte, and no others.

    Each file is read once. Hidden files are left out: no reader of a model opens them. This finds what was damaged,
    exchanged or added; whoever may write model.json as well can make any folder pass.

    Args:
        folder: local, mounted or gs:// path.
        copy_to: a new local folder for the bytes that were verified, which nobody else can change meanwhile; '' for
            none. A folder on gs:// is downloaded, and its copy is verified.
        accept_unlisted: a folder that lists no files, as version 2.0 exported it, is accepted with a warning.

    Raises:
        DataError: the folder is not as it was exported, or is no model folder.
    """
    storage.restore_dir(folder)
    if not storage.is_remote(folder):
        return _verify(folder, folder, copy_to, accept_unlisted)
    _check_names(folder, _names_in_bucket(folder), _listed(folder, read_facts(folder), accept_unlisted))
    with storage.temporary_dir() as temporary:
        try:
            local = storage.fetch_dir(folder, copy_to or os.path.join(temporary, "model"))
        except FileNotFoundError:
            raise _not_a_model_folder(folder) from None
        verified = _verify(folder, local, "", accept_unlisted)
        return verified if copy_to else dataclasses.replace(verified, local="")


def hashes(folder: str) -> dict[str, str]:
    """The value of `files` for a local folder without model.json: name -> hexadecimal SHA-256, sorted."""
    return {name: _sha256(folder, name) for name in sorted(_names_in(folder, folder))}


def inside(folder: str, name: object, listed_in: str = FACTS) -> str:
    """The path of a file that model.json names.

    Args:
        folder: the model folder; local, mounted or gs:// path.
        name: as it was read: any JSON value.
        listed_in: what names it, for the message.

    Raises:
        DataError: it is no relative name of a file, or leads out of the folder, by `..` or a link.
    """
    is_name = isinstance(name, str) and storage.is_unicode(name) and not set("\\\0") & set(name)
    parts = str(name).split("/")
    if not is_name or not {"", ".", ".."}.isdisjoint(parts) or max(map(len, parts)) > _MAX_NAME_LENGTH:
        raise DataError(
            f"{listed_in} of {folder} names a file outside of the model folder, or none",
            received=f"{name!r:.200}",
            expected="a relative name without .. and links",
        )
    path = storage.join(folder, str(name))
    if not storage.is_remote(path) and os.path.lexists(path):
        real = os.path.realpath(path)
        if not real.startswith(storage.as_prefix(os.path.realpath(folder))):
            raise DataError(
                f"{listed_in} of {folder} names a file outside of the model folder",
                received=f"{name}, a link to {printable(real)}",
                expected="a file without links",
            )
    return path


def _verify(folder: str, local: str, copy_to: str, accept_unlisted: bool) -> ModelFolder:
    """`verify`, for the local path of the folder or of its download."""
    content = _content(folder, local)
    facts = _parse(folder, content)
    listed = _listed(folder, facts, accept_unlisted)
    if listed is None:
        _log.warning(
            "%s lists no files in its %s, as of version 2.0: it is loaded without being verified", folder, FACTS
        )
    digest = facts.get("digest", "")
    if not _DIGEST.fullmatch(digest) and (digest or listed is not None):  # it becomes the name of a folder
        raise _changed(folder, f"the digest {digest!r} in {FACTS}")
    try:
        found = _check_names(folder, _names_in(folder, local), listed)
        for name in sorted(found):
            sha256 = _sha256(local, name, copy_to)
            if listed is not None and sha256 != listed[name]:
                raise _changed(folder, f"{name} with the SHA-256 {sha256} instead of {listed[name]}")
    except OSError as error:
        raise DataError(
            f"{folder} cannot be {'copied to a temporary folder' if copy_to else 'read'}",
            received=error,
            hint="Free some disk space there, or set TMPDIR to a folder that has more." if copy_to else "",
        ) from error
    if copy_to:
        storage.write_bytes(os.path.join(copy_to, FACTS), content)
    return ModelFolder(folder, copy_to or local, facts, digest, hashlib.sha256(content).hexdigest())


def _check_names(folder: str, names: Iterable[str], listed: dict[str, str] | None) -> set[str]:
    """The names of a folder's files, which are those that are listed; None lists any."""
    found = set()
    for name in names:
        if listed is not None and name not in listed:  # at once: there may be any number of them, of any size
            raise _changed(
                folder,
                f"{printable(name)}, which {FACTS} does not list",
                "If you put it there, move it elsewhere: a SavedModel is code, and only a folder as it was exported is "
                "loaded. Else find out who added it, and export the model again.",
            )
        found.add(name)
    if listed is not None and found != set(listed):
        raise _changed(folder, f"no {abridged(sorted(set(listed) - found))}, which {FACTS} lists")
    return found


def _listed(folder: str, facts: dict[str, Any], accept_unlisted: bool) -> dict[str, str] | None:
    """`files` of model.json, checked; None for a folder that lists none and is accepted."""
    files = facts.get("files")
    if files is None:
        if accept_unlisted:
            return None
        raise DataError(
            f"{folder} cannot be verified: its {FACTS} lists no files",
            received="a model that version 2.0 or older exported, or a changed one",
            expected="`files`, with the SHA-256 of each file",
            hint="Export the model again: the same training, run again, only exports its last checkpoint.",
        )
    for name, sha256 in files.items():
        inside(folder, name)
        if not isinstance(sha256, str):
            raise _changed(folder, f"the SHA-256 {sha256!r} of {name} in {FACTS}")
    if len({unicodedata.normalize("NFC", name) for name in files}) < len(files):
        raise _changed(folder, f"two names in {FACTS} that are one file on some systems")
    return files


def _names_in(folder: str, local: str) -> Iterator[str]:
    """The files below a local folder, relative to it, without hidden ones and model.json.

    Args:
        folder: its name in messages.
    """
    pending = [""]
    while pending:
        parent = pending.pop()
        with os.scandir(os.path.join(local, parent)) as entries:
            for entry in entries:
                name = f"{parent}{entry.name}"
                if entry.name.startswith(".") or name == FACTS:
                    continue
                if entry.is_symlink():
                    raise _changed(folder, f"{printable(name)}, which is a link")
                if entry.is_dir():
                    pending.append(f"{name}/")
                else:
                    yield name


def _names_in_bucket(folder: str) -> Iterator[str]:
    """`_names_in`, of a folder in a bucket."""
    for item in storage.walk(folder):
        if (name := item.path.removeprefix(storage.as_prefix(folder))) != FACTS:
            yield name


def _sha256(folder: str, name: str, copy_to: str = "") -> str:
    """The SHA-256 of a file of a local folder; its content is copied to the same name below `copy_to`, if given."""
    sha256 = hashlib.sha256()
    # A link, or a pipe that blocks, may have taken the file's place since it was listed.
    descriptor = os.open(os.path.join(folder, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _changed(folder, f"{printable(name)}, which is no regular file")
        if not copy_to:
            return hashlib.file_digest(file, "sha256").hexdigest()
        target = os.path.join(copy_to, name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "wb") as copy:
            while block := file.read(_BLOCK_BYTES):
                sha256.update(block)
                copy.write(block)
    return sha256.hexdigest()


def _content(folder: str, local: str) -> bytes:
    """The bytes of model.json of a folder, whose name is for messages, at its path or that of its download."""
    path = storage.join(local, FACTS)
    if not storage.is_remote(path) and os.path.islink(path):
        raise _changed(folder, f"{FACTS}, which is a link")
    try:
        return storage.read_bytes(path, storage.MAX_TEXT_BYTES)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise _not_a_model_folder(folder) from None


def _parse(folder: str, content: bytes) -> dict[str, Any]:
    """The content of a folder's model.json, checked."""
    path = storage.join(folder, FACTS)
    facts = storage.parse_json(content, path, expected="JSON as training writes it", hint="Export the model again.")
    for name, kind in _TYPES.items():
        if name in facts and not isinstance(facts[name], kind):
            raise DataError(
                f"{path} cannot be read",
                received=f"`{name}` of type {type(facts[name]).__name__}",
                expected=f"{getattr(kind, '__name__', kind)}, as training writes it",
                hint="Export the model again.",
            )
    return facts


def _not_a_model_folder(folder: str) -> DataError:
    return DataError(f"Not a model folder: {FACTS} not found", received=folder, expected=EXPECTED)


def _changed(folder: str, received: str, hint: str = _HINT) -> DataError:
    return DataError(
        f"The model folder {folder} is not as it was exported",
        received=received,
        expected=f"the files that {FACTS} lists, byte for byte, and no others",
        hint=hint,
    )
