"""The model in service (the champion), kept in a folder, local or in a bucket: a new model that beats it is promoted.

    <folder>/models/<digest>/   model folders; none of them is ever changed or replaced
    <folder>/champion.json      pointer: which of them is in service, since when and why

The pointer is written by compare-and-swap: of two runs that compared their models with the same champion, only one
promotes its own. To roll back, edit the pointer. (tf_image_classification.vertex.registry keeps the champion in Vertex
AI's Model Registry instead, with the same functions.)
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from tf_image_classification import model_folder, storage
from tf_image_classification.errors import ConflictError, DataError, FlagError, UserError
from tf_image_classification.imagenet_weights import IMAGENET

POINTER, MODELS = "champion.json", "models"
WARM_START = "champion"  # value of --checkpoint_path that means the model in service
REGISTRY_FORM = "projects/P/locations/L/models/ID"
ENDPOINT_FORM = "projects/P/locations/L/endpoints/ID"
# A model's id is chosen by the user, or a number that Vertex AI chose.
_REGISTRY = re.compile(r"(projects/[^/]+/locations/[^/]+)/models/([a-z_][a-z0-9_-]{0,62}|[0-9]+)")
_ENDPOINT = re.compile(r"(projects/[^/]+/locations/[^/]+)/endpoints/[a-z0-9][a-z0-9-]*")
_DIGEST_LENGTH = 16  # of a model folder's name
_DIGEST = re.compile("[0-9A-Za-z-]+")
# A folder that is not `.` or `..`, and has no separator of any system: the pointer leads to no other place.
_NAME = re.compile(rf"{MODELS}/(?!\.{{1,2}}$)[^/\\\0]+")

_log = logging.getLogger(__name__)


class InService(NamedTuple):
    """The model in service.

    Attributes:
        name: identifies it among those before and after it.
        folder: its model folder.
    """

    name: str
    folder: str


def check(
    checkpoint_path: str | None, champion: str | None, endpoint: str | None = None, *, promote: bool = True
) -> None:
    """Checks --champion, and the flags that need it.

    Raises:
        FlagError: --champion is missing or invalid, or the endpoint is invalid or elsewhere.
    """
    if not champion:
        warm_start = checkpoint_path if checkpoint_path == WARM_START else None
        for name, value in (
            ("checkpoint_path", warm_start),
            ("endpoint", endpoint),
            ("promote", "" if promote else "false"),
        ):
            if value:
                raise FlagError(
                    f"--{name} needs a --champion",
                    received=f"--{name} {value}",
                    expected="the folder or the registered model of the model in service, as --champion",
                )
        return
    if not is_registry(champion):
        if endpoint:
            raise FlagError(
                "--endpoint needs a --champion in Vertex AI's Model Registry",
                received=f"--champion {champion}",
                expected=REGISTRY_FORM,
            )
        return
    match = _ENDPOINT.fullmatch(endpoint) if endpoint else None
    if endpoint and not match:
        raise FlagError("Invalid value for --endpoint", received=endpoint, expected=ENDPOINT_FORM)
    if match and match[1] != champion.partition("/models/")[0]:
        raise FlagError(
            "--endpoint and --champion have different projects or locations",
            received=f"{endpoint} and {champion}",
            expected="the same project and location",
        )


def is_registry(champion: str) -> bool:
    """Whether --champion is a model of Vertex AI's Model Registry, and not a folder.

    Raises:
        FlagError: it begins with projects/, but is not the name of a model.
    """
    if not champion.startswith("projects/"):
        return False
    if not _REGISTRY.fullmatch(champion):
        raise FlagError("Invalid value for --champion", received=champion, expected=REGISTRY_FORM)
    return True


def names_a_path(flag: str, value: str) -> bool:
    """Whether the value of a flag for paths is one, and not a word for a checkpoint or a model of the Model Registry.

    Args:
        flag: name of a flag that takes paths; only --checkpoint_path and --champion take anything else.

    Raises:
        FlagError: see `is_registry`.
    """
    if flag == "checkpoint_path":
        return value not in (WARM_START, IMAGENET)
    return flag != "champion" or not is_registry(value)


def in_service(champion_dir: str) -> InService | None:
    """The model in service; None before the first promotion.

    Raises:
        FlagError: the folder has other content.
        DataError: the pointer cannot be read, or its model was not found.
    """
    return _read_pointer(champion_dir)[0]


def promote(champion_dir: str, model_dir: str, *, compared_with: str, reason: str, run: str) -> InService:
    """Copies a model folder into the champion folder and makes it the model in service.

    Does nothing if it is in service already. Killed between the copy and the pointer, it can be called again.

    Args:
        champion_dir: created if it does not exist.
        model_dir: the new model's folder, local.
        compared_with: name of the model in service that the new one was compared with; '' for none.
        reason: why it was promoted; recorded in the pointer.
        run: name or resource name of the run that trained it; recorded in the pointer.

    Returns:
        The model in service from now on.

    Raises:
        DataError: the model folder has no digest.
        UserError: another model has been promoted since.
    """
    name = read_digest(model_folder.read_facts(model_dir), model_dir)[:_DIGEST_LENGTH]
    new = InService(f"{MODELS}/{name}", storage.join(champion_dir, MODELS, name))
    current, version = _read_pointer(champion_dir)
    if current == new:
        _log.info("Already in service: %s", new.folder)
        return new
    if (current.name if current else "") != compared_with:
        raise _promoted_meanwhile(champion_dir, current.name if current else "none", compared_with)
    # Synced to disk before the pointer is: after a power cut too, the pointer names a whole model.
    storage.copy_dir_once(model_dir, new.folder, model_folder.FACTS)
    content = {
        "model": new.name,
        "since": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "run": run.rpartition("/")[2],
        "reason": reason,
    }
    pointer = storage.join(champion_dir, POINTER)
    try:
        storage.write_text(pointer, json.dumps(content, indent=2) + "\n", if_version=version)
    except ConflictError:
        current, _ = _read_pointer(champion_dir)
        if current != new:
            raise _promoted_meanwhile(champion_dir, current.name if current else "none", compared_with) from None
    _log.info("Promoted; in service now: %s", new.folder)
    return new


def read_digest(facts: Mapping[str, Any], folder: str) -> str:
    """The digest in the content of a model.json.

    Args:
        folder: the model folder, for the message.

    Raises:
        DataError: there is none, or it is none that could name a folder.
    """
    digest = facts.get("digest")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise DataError(
            f"{storage.join(folder, model_folder.FACTS)} has no valid digest",
            received=repr(digest),
            expected="`digest`, a hexadecimal hash, as training exports it",
            hint="Export the model again.",
        )
    return digest


def _read_pointer(champion_dir: str) -> tuple[InService | None, storage.Version]:
    """The model in service, and the pointer's version for compare-and-swap."""
    path = storage.join(champion_dir, POINTER)
    try:
        content, version = storage.read_version(path)
    except IsADirectoryError:
        raise DataError(f"{path} cannot be read", received="a folder", expected="a JSON file") from None
    if content is None:
        _check_empty(champion_dir)
        return None, version
    expected = f'{{"model": "{MODELS}/..."}}'
    name = storage.parse_json(content, path, expected=expected).get("model")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise DataError(
            f"{path} names no model of its folder",
            received=f"{name!r:.200}",
            expected=f"{expected}, a folder in {storage.join(champion_dir, MODELS)}",
        )
    model = InService(name, storage.join(champion_dir, name))
    if not storage.exists(storage.join(model.folder, model_folder.FACTS)):
        raise DataError(
            "The model in service was not found",
            received=model.folder,
            hint=f"Set another model of {champion_dir} in {path}.",
        )
    return model, version


def _check_empty(champion_dir: str) -> None:
    """Without a pointer there are at most models, of a promotion that was interrupted, and a pointer written since."""
    names = storage.names_in(champion_dir)
    others = [name for name in names if name not in (MODELS, POINTER) and not name.startswith(".")]
    if others:
        raise FlagError(
            f"The --champion folder is not empty and has no {POINTER}",
            received=f"{champion_dir} with {', '.join(others[:3])}",
            expected="a new or empty folder, or one that this pipeline has promoted a model to",
        )


def _promoted_meanwhile(champion_dir: str, current: str, compared_with: str) -> UserError:
    return UserError(
        f"Another model was promoted to {champion_dir} since this run began",
        received=current,
        expected=compared_with or "none",
        hint="Run again: the new model is then compared with that one.",
    )
