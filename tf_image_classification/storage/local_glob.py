"""Local globs. `**` enters each folder as `local_walk` does, so that links which fork do not make it endless."""

from __future__ import annotations

import fnmatch
import glob as standard
import os
from collections.abc import Iterable

from tf_image_classification.flag_types import GLOB_CHARACTERS
from tf_image_classification.storage import local_walk

_ANY_FOLDERS = "**"


def glob(pattern: str) -> list[str]:
    """The files and folders that match a glob, sorted; as Python's `glob.glob(recursive=True)` finds them.

    Raises:
        FlagError: `**` stands for a folder that cannot be listed.
    """
    parts = pattern.split("/")
    if _ANY_FOLDERS not in parts:
        return sorted(standard.glob(pattern))
    begin = next(index for index, part in enumerate(parts) if not GLOB_CHARACTERS.isdisjoint(part))
    root, parts = "/".join(parts[:begin]) or ("/" if begin else ""), parts[begin:]
    only_folders = parts[-1] == ""
    try:
        return sorted(_below(root, parts[:-1] if only_folders else parts, only_folders))
    except PermissionError as error:
        raise local_walk.cannot_list(error.filename, error) from error


def _below(root: str, parts: list[str], only_folders: bool) -> set[str]:
    """The paths below a folder that match parts of a glob. Each folder's path so far has matched up to some of them."""
    found, done = set(), len(parts)
    positions = {root or ".": _skipping(parts, {0})}
    if root and done in positions[root]:
        found.add(os.path.join(root, ""))
    for folder in local_walk.folders_below(root or "."):
        at = positions.pop(folder.path)
        entered = []
        for entry in folder.folders:
            if after := _after(parts, at, entry.name):
                positions[entry.path] = after
                entered.append(entry)
            if done in after:
                found.add(os.path.join(entry.path, "") if only_folders else entry.path)
        folder.folders[:] = entered
        if not only_folders:
            found.update(entry.path for entry in folder.files if _matches_file(parts, at, entry.name))
    return found if root else {path.removeprefix("./") for path in found}


def _matches_file(parts: list[str], positions: Iterable[int], name: str) -> bool:
    """Whether a file's name ends a match. As in Python's globs, `data*/**` matches no file `data.csv`."""
    for position in positions:
        if len(parts) in _after(parts, [position], name):
            is_any = parts[position] == _ANY_FOLDERS
            if is_any or position + 1 == len(parts) or GLOB_CHARACTERS.isdisjoint(parts[position]):
                return True
    return False


def _after(parts: list[str], positions: Iterable[int], name: str) -> set[int]:
    """How many of the parts may have matched behind a further name."""
    after = set()
    for position in positions:
        if position == len(parts):
            continue
        part = parts[position]
        if name.startswith(".") and not part.startswith("."):
            continue
        if part == _ANY_FOLDERS:
            after.add(position)
        elif fnmatch.fnmatchcase(name, part):
            after.add(position + 1)
    return _skipping(parts, after)


def _skipping(parts: list[str], positions: Iterable[int]) -> set[int]:
    """The positions, and those behind each `**`, which also stands for no folder."""
    found = set()
    for position in positions:
        found.add(position)
        while position < len(parts) and parts[position] == _ANY_FOLDERS:
            position += 1
            found.add(position)
    return found
