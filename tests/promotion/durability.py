"""Promotions, builds and written folders: many at once, killed at any call, and recorded. Prints JSON.

python -m tests.promotion.durability promotions FOLDER ROUNDS PROCESSES same|different
                                     builds     FOLDER ROUNDS PROCESSES
                                     kills      FOLDER promotion|first|exchange|renames|new STEP
                                     record     FOLDER
"""

from __future__ import annotations

import collections
import functools
import json
import os
import re
import shutil
import sys
from pathlib import Path

from tests.build_tfrecords.support import pictures
from tests.promotion import forks
from tf_image_classification import build_tfrecords, storage
from tf_image_classification.data import manifest
from tf_image_classification.promotion import champion
from tf_image_classification.storage import local_folders

FILES = 24  # of a model, besides model.json


def model(folder: Path, name: str) -> str:
    """Creates a model folder of this name, whose files all hold the name."""
    (folder / name / "saved_model").mkdir(parents=True)
    for number in range(FILES):
        (folder / name / "saved_model" / str(number)).write_text(name)
    (folder / name / "model.json").write_text(json.dumps({"digest": name}))
    return str(folder / name)


def promote(service: Path, folder: str, compared_with: str) -> None:
    champion.promote(str(service), folder, compared_with=compared_with, reason="", run="run")


def model_in_service(service: Path) -> str:
    """The name of the model in service; fails unless it is whole."""
    found = champion.in_service(str(service))
    if found is None:
        return ""
    folder = Path(found.folder)
    name = json.loads((folder / "model.json").read_text())["digest"]
    assert f"models/{name}" == found.name
    assert [(folder / "saved_model" / str(number)).read_text() for number in range(FILES)] == [name] * FILES
    return str(name)


def hidden(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob(".*")]


def promotions(folder: Path, rounds: int, processes: int, which: str) -> object:
    """Rounds in which several processes promote at once; the outcomes of a round, with how often it occurred."""
    counts: collections.Counter[str] = collections.Counter()
    service, before = folder / "service", ""
    for number in range(rounds):
        names = [f"{number}-{process if which == 'different' else 0}" for process in range(processes)]
        folders = {name: model(folder / "new", name) for name in set(names)}
        calls = [
            functools.partial(promote, service, folders[name], f"models/{before}" if before else "") for name in names
        ]
        outcomes = forks.together(calls, functools.partial(model_in_service, service))
        counts[", ".join(sorted(re.sub(r"to \S+ ", "", outcome) for outcome in outcomes))] += 1
        before = model_in_service(service)
        assert before in names
        assert hidden(service) == []
        shutil.rmtree(folder / "new")
    return counts


def builds(folder: Path, rounds: int, processes: int) -> object:
    """Rounds in which several processes build into one folder; as `promotions`."""
    counts: collections.Counter[str] = collections.Counter()
    images, data = pictures(folder / "images", {"cat": 3, "dog": 3}), folder / "data"
    build = functools.partial(build_tfrecords.build, str(images), str(data), eval_fraction=0.25, workers=1)

    def check() -> None:
        if data.exists():
            manifest.read(str(data))

    for _ in range(rounds):
        counts[", ".join(sorted(forks.together([build] * processes, check)))] += 1
        splits = manifest.read(str(data)).splits.values()
        assert sum(split.examples for split in splits) == 6
        assert {shard.path for split in splits for shard in split.shards} <= {*os.listdir(data)}
        assert hidden(folder) == []
    return counts


def kills(folder: Path, what: str, step: int) -> object:
    """At how many calls a writer was killed, and the next reader found one whole folder and the next writer ended."""
    service, target = folder / "service", folder / "out" / "deep" / "model"
    before = "old" if what in ("promotion", "exchange", "renames") else ""
    if what == "renames":  # as on a file system that cannot exchange two folders
        local_folders._exchange = lambda *_: False

    def put(name: str, instead_of: str) -> None:
        if what in ("promotion", "first"):
            promote(service, str(folder / "models" / name), f"models/{instead_of}" if instead_of else "")
        else:
            write(target, name)

    def prepare() -> None:
        shutil.rmtree(folder)
        for name in ("old", "new"):
            model(folder / "models", name)
        if before:
            put(before, "")

    def check() -> None:
        found = model_in_service(service) if what in ("promotion", "first") else content(target)
        assert found in (before, "new")
        put("new", found)
        assert (model_in_service(service) if what in ("promotion", "first") else content(target)) == "new"
        (service / ".champion.json.lock").unlink(missing_ok=True)  # locks nothing, and is used again
        assert hidden(folder) == []

    return len(list(forks.killed_everywhere(prepare, functools.partial(put, "new", before), check, step)))


def write(target: Path, text: str) -> None:
    with storage.replacing_dir(str(target), "marker") as staging:
        os.mkdir(os.path.join(staging, "deep"))
        for name in ("marker", "deep/file"):
            Path(staging, name).write_text(text)


def content(target: Path) -> str:
    """The text of both of the folder's files."""
    storage.restore_dir(str(target))
    if not target.exists():
        return ""
    (text,) = {(target / name).read_text() for name in ("marker", "deep/file")}
    return text


def record(folder: Path) -> object:
    """The calls of a promotion."""
    source = model(folder, "new")
    return forks.recorded(functools.partial(promote, folder / "service", source, ""), str(folder))


if __name__ == "__main__":
    command, working_folder, *arguments = sys.argv[1:]
    values = [int(argument) if argument.isdigit() else argument for argument in arguments]
    print(json.dumps(globals()[command](Path(working_folder), *values)))
