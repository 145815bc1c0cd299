"""The model in service, kept in a folder, local or in a bucket: the new model has to beat it, and takes its place.

    <folder>/models/<digest>/   model folders, none of them ever changed
    <folder>/champion.json      which of them is in service, since when and why

The pointer is written by compare-and-swap: of two runs that have judged their models against the same one, one takes
its place. Going back is editing the pointer. (tf_image_classification.vertex.registry keeps it in Vertex AI's registry
instead, with the same functions.)
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import re
import shutil
from typing import NamedTuple

from tf_image_classification import model_folder, storage
from tf_image_classification.errors import ConflictError, DataError, FlagError, UserError

POINTER, MODELS = "champion.json", "models"
WARM_START = "champion"  # of --checkpoint_path: the model in service
REGISTRY_FORM = "projects/P/locations/L/models/ID"
ENDPOINT_FORM = "projects/P/locations/L/endpoints/ID"
# A model's id is chosen, or a number that the service chose.
_REGISTRY = re.compile(r"(projects/[^/]+/locations/[^/]+)/models/([a-z_][a-z0-9_-]{0,62}|[0-9]+)")
_ENDPOINT = re.compile(r"(projects/[^/]+/locations/[^/]+)/endpoints/[a-z0-9][a-z0-9-]*")
_NAME_DIGITS = 16

_log = logging.getLogger(__name__)


class InService(NamedTuple):
    """The model in service.

    Attributes:
        name: tells it from those before and after it.
        folder: its model folder.
    """

    name: str
    folder: str


def check(checkpoint_path: str | None, champion: str | None, endpoint: str | None = None) -> None:
    """Checks that what asks for the model in service comes with the place where it is kept.

    Raises:
        FlagError: it does not, or a name has another form.
    """
    if not champion:
        for name, given in (
            ("checkpoint_path", checkpoint_path if checkpoint_path == WARM_START else None),
            ("endpoint", endpoint),
        ):
            if given:
                raise FlagError(
                    f"--{name} needs a --champion",
                    received=f"--{name} {given}",
                    expected="the place where the model in service is kept",
                )
        return
    if not is_registry(champion):
        if endpoint:
            raise FlagError(
                "--endpoint serves a model of Vertex AI's registry",
                received=f"--champion {champion}",
                expected=REGISTRY_FORM,
            )
        return
    found = _ENDPOINT.fullmatch(endpoint) if endpoint else None
    if endpoint and not found:
        raise FlagError("--endpoint names no endpoint", received=endpoint, expected=ENDPOINT_FORM)
    if found and found[1] != champion.partition("/models/")[0]:
        raise FlagError(
            "--endpoint and --champion are in different places",
            received=f"{endpoint} and {champion}",
            expected="one location",
        )


def is_registry(champion: str) -> bool:
    """Whether --champion is a model of Vertex AI's registry, and not a folder.

    Raises:
        FlagError: it begins like one, and is none.
    """
    if not champion.startswith("projects/"):
        return False
    if not _REGISTRY.fullmatch(champion):
        raise FlagError("--champion names no model", received=champion, expected=REGISTRY_FORM)
    return True


def in_service(home: str) -> InService | None:
    """The model that is in service; None as long as there has been none.

    Raises:
        FlagError: the folder holds something else.
        DataError: the pointer cannot be read, or its model is gone.
    """
    return _look(home)[0]


def _look(home: str) -> tuple[InService | None, int]:
    """The model in service, and the pointer's version."""
    path = storage.join(home, POINTER)
    content, version = storage.read_version(path)
    if content is None:
        if others := [name for name in storage.names_in(home) if name != MODELS and not name.startswith(".")]:
            raise FlagError(
                f"--champion holds something else: it has no {POINTER}",
                received=f"{home} with {', '.join(others[:3])}",
                expected="a new or empty folder, or one that this pipeline has put a model into",
            )
        return None, version
    try:
        name = json.loads(content)["model"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} cannot be read", received=repr(error), expected=f'{{"model": "{MODELS}/..."}}'
        ) from error
    found = InService(name, storage.join(home, name))
    if not storage.exists(storage.join(found.folder, model_folder.FACTS)):
        raise DataError(
            "The model in service is gone", received=found.folder, hint=f"Name another one of {home} in {path}."
        )
    return found, version


def promote(home: str, folder: str, *, instead_of: str, reason: str, run: str) -> InService:
    """Puts a copy of a model folder in service; does nothing when it is in service already.

    Args:
        folder: the new model's, local.
        instead_of: name of the one that it was compared with; '' for none.
        reason: why, for whoever looks.
        run: the run that made it, a name or a resource name.

    Raises:
        UserError: another model has come into service meanwhile.
    """
    digest = model_folder.read_facts(folder)["digest"]
    new = InService(f"{MODELS}/{digest[:_NAME_DIGITS]}", storage.join(home, MODELS, digest[:_NAME_DIGITS]))
    pointer = storage.join(home, POINTER)
    current, version = _look(home)
    if current == new:
        _log.info("%s is in service already", new.folder)
        return new
    if (current.name if current else "") != instead_of:
        raise _overtaken(home, current.name if current else "none", instead_of)
    if not storage.exists(storage.join(new.folder, model_folder.FACTS)):
        with storage.replacing_dir(new.folder, model_folder.FACTS) as aside:
            shutil.copytree(folder, aside, dirs_exist_ok=True)
    content = {
        "model": new.name,
        "since": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "run": run.rpartition("/")[2],
        "reason": reason,
    }
    try:
        storage.write_text(pointer, json.dumps(content, indent=2) + "\n", if_version=version)
    except ConflictError:
        raise _overtaken(home, "another one", instead_of) from None
    _log.info("%s is in service now", new.folder)
    return new


def _overtaken(home: str, found: str, compared: str) -> UserError:
    return UserError(
        f"Another model has come into service in {home} since this run began",
        received=found,
        expected=compared or "none",
        hint="Run again: the new model is then compared with that one.",
    )
