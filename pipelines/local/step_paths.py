"""The paths that a step of a run needs: those that flags name for it, and none that only a list or a manifest names."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tf_image_classification import flag_table, flags, storage
from tf_image_classification.data import dates, sources
from tf_image_classification.flag_types import EVALUATE_STEP, RESOLVE_STEP, TRAIN_STEP
from tf_image_classification.promotion import champion

METADATA = ("train_metadata", "eval_metadata")
_LIST_SUFFIXES = tuple(suffix for kind in sources.KINDS for suffix in kind.suffixes)


class StepPath(NamedTuple):
    """A path that a step needs.

    Attributes:
        flag: name of the flag that names it.
        path: of a file or folder, local and absolute or gs://.
        is_written: whether the step writes to it.
    """

    flag: str
    path: str
    is_written: bool = False


def of_flags(access: str, parameters: Mapping[str, object]) -> list[str]:
    """The parameters that name a path which is read, or one which is written to."""
    names = [flag.name for flag in flag_table.FLAGS if flag.steps and flag.path == access and parameters.get(flag.name)]
    return [name for name in names if champion.names_a_path(name, str(parameters[name]))]


def of_step(step: str, parameters: Mapping[str, Any]) -> list[StepPath]:
    """The paths that a step needs.

    Args:
        parameters: of the pipeline; their paths are absolute.

    Raises:
        FlagError: the metadata of TFRecords cannot be used.
    """
    taken = {flag.name for flag in flags.of_step(step)}
    read = [name for name in of_flags("read", parameters) if name in taken]
    written = [name for name in of_flags("write", parameters) if name in taken and step != RESOLVE_STEP]
    paths = [StepPath(name, parameters[name], is_written=True) for name in written]
    paths += [StepPath(name, path) for name in read for path in _paths(name, parameters)]
    if _reads_champion(step, parameters):
        paths.append(StepPath("champion", parameters["champion"]))
    if step in (TRAIN_STEP, EVALUATE_STEP):  # TFRecords are read where they are, images from the shards built of them
        given = [(name, part) for name in METADATA for part in sources.split_metadata(parameters.get(name) or "")]
        paths += [StepPath(name, path) for name, part in given if _is_records(part) for path in _source_paths(part)]
    return paths


def _reads_champion(step: str, parameters: Mapping[str, Any]) -> bool:
    """Whether a step reads the model in service, which resolve has found for it."""
    is_warm_start = parameters.get("checkpoint_path") == champion.WARM_START
    return bool(parameters.get("champion")) and (
        step in (RESOLVE_STEP, EVALUATE_STEP) or (step == TRAIN_STEP and is_warm_start)
    )


def _paths(name: str, parameters: Mapping[str, Any]) -> Iterator[str]:
    """The folders and files that the value of a flag for reading names."""
    value: str = parameters[name]
    if name in METADATA:
        for part in sources.split_metadata(value):
            yield from _source_paths(part, has_root=bool(parameters.get("image_root")))
        return
    for path in sources.split_metadata(value) if flags.BY_NAME[name].is_list else [value]:
        stem = os.path.splitext(path)[0]
        if not storage.is_remote(path) and os.path.exists(f"{stem}.index"):  # one of a checkpoint's files
            yield from glob.glob(f"{glob.escape(stem)}.*")
        elif storage.is_remote(path) or os.path.exists(path):
            yield path
        else:  # the prefix of a checkpoint's files, or nothing
            yield from glob.glob(f"{glob.escape(path)}.*")


def _source_paths(part: str, has_root: bool = True) -> Iterator[str]:
    """What one path or glob of the metadata names: itself, or the deepest folder that a glob spells out.

    The images of a list are in its folder, unless --image_root names theirs.
    """
    if storage.is_remote(part):
        yield part
        return
    path = part if os.path.exists(part) else storage.other_form(part) or part
    if os.path.exists(path):
        yield path
        if path.lower().endswith(_LIST_SUFFIXES) and os.path.isfile(path) and not has_root:
            yield os.path.dirname(path)
    elif storage.glob(_dated_glob(part)):
        while not os.path.isdir(path):
            path = os.path.dirname(path)
        yield path


def _is_records(part: str) -> bool:
    """Whether a path or glob of the metadata names TFRecords, and not images. No list is opened."""
    if part.lower().endswith(_LIST_SUFFIXES):
        return False
    matches = storage.glob(_dated_glob(part))
    return bool(matches) and isinstance(sources.expand(matches[0])[0], sources.RecordSource)


def _dated_glob(part: str) -> str:
    return part.replace(dates.PLACEHOLDER, "*")
