"""Whatever folders, files and objects are called: no traceback, every image accounted for, and the pixels stored under
a label are those of the image that was named."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.standin import bucket as standin
from tf_image_classification import build_tfrecords, storage
from tf_image_classification.build_tfrecords.report import REJECTED_FILE
from tf_image_classification.data import class_names, tfrecord
from tf_image_classification.data.sources import ReadOptions
from tf_image_classification.errors import UserError

# Parts of names: what paths, URLs, globs, CSVs, shells and Unicode give a meaning to.
_VISIBLE = (
    "a b Z é e\u0301 ж 猫 \u1112\u1161\u11ab 👩\u200d🚀 "
    "/ // /./ /../ . .. ... \\ * ** ? [ ] [a] {a,b} ! # % %2F %20 + & = ; : , ' "
    '" $ ~ | < > - train test images annotations __MACOSX @eaDir .git .tfrecord .csv gs:/'
)
_PIECES = (*_VISIBLE.split(" "), " ", "  ", "\t", "\n", "\r", "\x01", "\x7f", "\u200b", "\ufeff", "\u00a0", "\u2028")


@pytest.fixture(scope="module")
def service() -> Iterator[None]:
    with standin.serving("b") as url, pytest.MonkeyPatch.context() as environment:
        environment.setenv("STORAGE_EMULATOR_HOST", url)
        yield


def _text(random: np.random.Generator, most: int) -> str:
    return "".join(random.choice(_PIECES, size=random.integers(1, most + 1)))


def _picture(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (2, 2), (number % 256, number // 256, 7)).save(file, "PNG")
    return file.getvalue()


def _put(root: str, names: set[str], first: int) -> dict[str, int]:
    """Writes a picture of its own colour under each name that storage takes, and returns name -> number."""
    put: dict[str, int] = {}
    for number, name in enumerate(sorted(names), first):
        try:
            if not storage.is_gcs(root):
                Path(f"{root}/{name}").parent.mkdir(parents=True, exist_ok=True)
            elif name in ("", ".", "..") or set("\r\n").intersection(name):
                continue
            storage.write_bytes(f"{root}/{name}", _picture(number))
        except (OSError, ValueError):  # no name for a file, or another one is its folder
            continue
        put[name] = number
    return put


def _stored(data: build_tfrecords.Manifest) -> dict[int, tuple[str, str]]:
    """Number of each picture in the shards -> its label and its filename."""
    found = {}
    for split in data.splits:
        for path in data.shard_paths(split):
            for record in map(tfrecord.parse_example, tfrecord.read(path)):
                red, green, blue = Image.open(io.BytesIO(record["image/encoded"][0])).getpixel((0, 0))
                assert blue == 7
                number = red + 256 * green
                assert number not in found, "an image is stored twice"
                found[number] = (record["image/class/text"][0].decode(), record["image/filename"][0].decode())
    return found


def _rejected(data: build_tfrecords.Manifest) -> list[tuple[str, str]]:
    text = Path(data.folder, REJECTED_FILE).read_bytes().decode(errors="surrogateescape")
    rows = [tuple(row) for row in csv.reader(io.StringIO(text, newline=""))][1:]
    assert len(rows) == sum(split.rejected for split in data.splits.values())
    assert all(split.images == split.examples + split.rejected for split in data.splits.values())
    return [(path, reason) for _, path, reason in rows]


def _check_folder(root: str, put: dict[str, int], data: build_tfrecords.Manifest) -> None:
    stored, rejected = _stored(data), _rejected(data)
    whole_folders = [path for path, reason in rejected if reason == "hidden file or folder" and path.endswith("/")]
    paths = {path for path, _ in rejected}
    for name, number in put.items():
        path = f"{root}/{name}"
        if number in stored:
            label, filename = stored[number]
            assert (label, filename) == (class_names.canonical(name.partition("/")[0]), name)
        else:
            assert path in paths or path.startswith(tuple(whole_folders)), f"{path!r} is not accounted for"


def _names(random: np.random.Generator) -> set[str]:
    names = {f"{label}/{number}" for label in ("cat", "dog") for number in range(3)}
    classes = [_text(random, 2) for _ in range(4)]
    return names | {f"{random.choice(classes)}/{_text(random, 3)}" for _ in range(12)}


def _build_folder(root: str, random: np.random.Generator, output: str) -> None:
    names = _names(random)
    if not storage.is_gcs(root):  # where `..` leads out of the folder
        names = {name for name in names if ".." not in name.split("/")}
    put = _put(root, names, 0)
    if not storage.is_gcs(root):  # where `a//b` and `a/b` are one file, and the last picture is in it
        put = {name: n for name, n in put.items() if storage.read_bytes(f"{root}/{name}") == _picture(n)}
        put = {str(Path(f"{root}/{name}").resolve().relative_to(Path(root).resolve())): n for name, n in put.items()}
    evaluation = f"{root}-eval"
    held_out = _put(evaluation, {"cat/1", "dog/1"}, 1000)
    try:
        data = build_tfrecords.build(root, output, eval_metadata=evaluation, workers=1)
    except UserError as error:
        assert any(words in str(error) for words in ("splits", "no training image", "no classes")), error
        return
    _check_folder(root, put, data)
    assert {number for number in _stored(data) if number >= 1000} == set(held_out.values())


def _build_list(root: str, random: np.random.Generator, output: str, table: str) -> None:
    """A list of exact names. Some are put, some are not, some are named twice."""
    names = {_text(random, 4) for _ in range(16)} | {"cat1", "dog1"}
    put = _put(root, names, 0)
    lines = [(name, "cat" if number % 2 else "dog") for number, name in enumerate(sorted(names | {"gone"}))]
    text = io.StringIO()
    csv.writer(text).writerows((f"{root}/{name}", label) for name, label in lines)
    storage.write_text(table, "path,label\n" + text.getvalue())
    storage.write_text(f"{table}.eval.csv", f"path,label\n{root}/cat1,cat\n{root}/dog1,dog\n")
    try:
        options = ReadOptions(image_root=root)
        data = build_tfrecords.build(table, output, eval_metadata=f"{table}.eval.csv", options=options, workers=1)
    except UserError as error:
        assert any(words in str(error) for words in ("line break", "line ends", "no training image")), error
        return
    labels: dict[str, str] = {}
    for name, label in lines:
        labels.setdefault(f"{root}/{name}".strip(), label)  # a list's fields are without the spaces around them
    rejected = {path for path, _ in _rejected(data)}
    numbers = {number: f"{root}/{name}" for name, number in put.items()}
    pictures = [record for path in data.shard_paths("train") for record in tfrecord.read(path)]
    for record in map(tfrecord.parse_example, pictures):
        red, green, _ = Image.open(io.BytesIO(record["image/encoded"][0])).getpixel((0, 0))
        path = numbers[red + 256 * green]
        assert labels[path] == record["image/class/text"][0].decode()
        assert path.removeprefix(f"{root}/") == record["image/filename"][0].decode()
    assert len(pictures) + data.splits["train"].rejected >= len(labels)
    assert not [path for path in labels if path not in rejected and path not in numbers.values()]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("where", ["local", "bucket"])
def test_a_folder_of_any_names_is_accounted_for(service, tmp_path, where, seed):
    root = str(tmp_path / "photos") if where == "local" else f"gs://b/{seed}"
    _build_folder(root, np.random.default_rng(seed), str(tmp_path / "data"))


@pytest.mark.parametrize("seed", range(4))
def test_a_list_of_any_objects_stores_the_pixels_that_it_names(service, tmp_path, seed):
    _build_list(f"gs://b/list{seed}", np.random.default_rng(seed), str(tmp_path / "data"), str(tmp_path / "list.csv"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 104))
def test_many_folders_and_lists_of_any_names_are_accounted_for(service, tmp_path, seed):
    for number in range(20):
        random = np.random.default_rng(1000 * seed + number)
        _build_folder(f"gs://b/many{seed}-{number}", random, str(tmp_path / f"b{number}"))
        _build_folder(str(tmp_path / f"photos{number}"), random, str(tmp_path / f"l{number}"))
        name = str(tmp_path / f"{number}.csv")
        _build_list(f"gs://b/listed{seed}-{number}", random, str(tmp_path / f"c{number}"), name)
