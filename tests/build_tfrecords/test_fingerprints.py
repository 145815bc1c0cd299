"""The fingerprint that a build computes from what its workers read is the one that fingerprint() gives."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.build_tfrecords.support import pictures
from tf_image_classification import build_tfrecords
from tf_image_classification.data import fingerprint as module
from tf_image_classification.data.manifest import Task
from tf_image_classification.data.sources import ReadOptions
from tf_image_classification.errors import UserError


def _clean(root: Path) -> dict:
    return {"train_metadata": str(pictures(root / "photos", {"cat": 20, "dog": 20}))}


def _with_eval(root: Path) -> dict:
    return {**_clean(root), "eval_metadata": str(pictures(root / "more", {"cat": 5, "dog": 5}, size=9))}


def _with_others(root: Path) -> dict:
    """A folder in which not all files are images that can be read."""
    photos = pictures(root / "photos", {"cat": 20, "dog": 20, "owl": 5})
    (photos / "read me.txt").write_text("not in a class folder")
    (photos / "cat" / "empty.png").touch()
    (photos / "cat" / "damaged.png").write_bytes(b"\x89PNG")
    (photos / "cat" / "gone.png").symlink_to("nowhere")
    (photos / "dog" / "\u00e9.png").write_bytes((photos / "dog" / "0000.png").read_bytes())
    (photos / "dog" / os.fsdecode(b"\xe9.png")).write_bytes((photos / "dog" / "0001.png").read_bytes())
    (root / "labels.txt").write_text("cat\ndog\n")
    return {"train_metadata": str(photos), "labels_file": str(root / "labels.txt")}


def _with_repetitions(root: Path) -> dict:
    """A list that names images twice, beside a folder that has some of them too."""
    photos = pictures(root / "photos", {"cat": 20, "dog": 20})
    names = [path.relative_to(root).as_posix() for path in sorted(photos.glob("*/*.png"))]
    lines = [f"{name},{name.split('/')[1]}" for name in [*names, *names[:9], "photos/cat/missing.png"]]
    (root / "list.csv").write_text("\n".join([*lines, "photos/cat/0000.png,dog"]) + "\n")
    return {"train_metadata": f"{root / 'list.csv'},{photos}"}


def _with_named_splits(root: Path) -> dict:
    photos = pictures(root / "photos", {"cat": 20, "dog": 20})
    names = [path.relative_to(root).as_posix() for path in sorted(photos.glob("*/*.png"))]
    splits = ["training", "validation", "test"]
    lines = [f"{name},{name.split('/')[1]},{splits[number % 3]}" for number, name in enumerate(names)]
    (root / "list.csv").write_text("path,label,split\n" + "\n".join(lines) + "\n")
    return {"train_metadata": str(root / "list.csv"), "options": ReadOptions(split_column="split")}


def _with_another_form(root: Path) -> dict:
    """A list of names in one Unicode form, of files in the other, and of one that has been split off."""
    given = _with_named_splits(root)
    (root / "photos" / "cat" / "0000.png").rename(root / "photos" / "cat" / "e\u0301.png")
    path = root / "list.csv"
    path.write_text(path.read_text().replace("cat/0000.png", "cat/\u00e9.png"))
    return given


GIVEN: dict[str, Callable[[Path], dict]] = {
    "folder": _clean,
    "folders": _with_eval,
    "folder with other files": _with_others,
    "repetitions": _with_repetitions,
    "named splits": _with_named_splits,
    "another Unicode form": _with_another_form,
}


def _expected(given: dict) -> str:
    return build_tfrecords.fingerprint(
        given["train_metadata"],
        given.get("eval_metadata"),
        labels_file=given.get("labels_file"),
        eval_fraction=0.2,
        options=given.get("options", ReadOptions()),
    )


@pytest.mark.parametrize("kind", GIVEN)
@pytest.mark.parametrize("limit", [module.CONTENT_FILES, 10])
def test_a_build_and_a_check_have_the_fingerprint_of_their_metadata(kind, limit, tmp_path, monkeypatch):
    given = GIVEN[kind](tmp_path)
    monkeypatch.setattr(module, "CONTENT_FILES", limit)  # above which modification times count
    expected = _expected(given)
    assert build_tfrecords.build(output_dir=str(tmp_path / "data"), **given).fingerprint == expected
    assert build_tfrecords.check(**given).fingerprint == expected


def test_other_workers_hash_too(tmp_path):
    given = {"train_metadata": str(pictures(tmp_path / "photos", {"cat": 150, "dog": 150}))}
    (tmp_path / "photos" / "notes.txt").touch()
    data = build_tfrecords.build(output_dir=str(tmp_path / "data"), workers=2, **given)
    assert data.fingerprint == _expected(given)


def test_evaluation_data_alone_has_the_fingerprint_of_its_metadata(tmp_path):
    photos = str(pictures(tmp_path / "photos", {"cat": 4, "dog": 4}))
    data = build_tfrecords.build_eval(photos, str(tmp_path / "data"), [Task("label", ("cat", "dog"))])
    assert data.fingerprint == build_tfrecords.fingerprint(photos)


def test_no_image_is_read_once_more_for_the_fingerprint(tmp_path, monkeypatch):
    read: list[str] = []
    of_contents = module.content_digests
    monkeypatch.setattr(
        module, "content_digests", lambda paths: of_contents(read.extend(given := list(paths)) or given)
    )
    given = _clean(tmp_path)
    (tmp_path / "photos" / "cat" / "damaged.png").write_bytes(b"\x89PNG")
    build_tfrecords.build(output_dir=str(tmp_path / "one"), **given)
    assert read == []
    (tmp_path / "photos" / "notes.txt").touch()
    build_tfrecords.build(output_dir=str(tmp_path / "two"), **given)
    assert read == [str(tmp_path / "photos" / "notes.txt")]


def test_what_is_wrong_with_the_call_or_a_list_is_said_before_an_image_is_read(tmp_path, monkeypatch):
    given = _clean(tmp_path)
    monkeypatch.setattr("tf_image_classification.build_tfrecords.images.read", lambda *_: pytest.fail("read"))
    (tmp_path / "list.csv").write_text("path,label\nphotos/cat/0000.png,cat,more\n")
    for arguments in (
        {**given, "labels_file": str(tmp_path / "labels.txt")},
        {"train_metadata": str(tmp_path / "list.csv")},
    ):
        with pytest.raises(UserError):
            build_tfrecords.build(output_dir=str(tmp_path / "data"), **arguments)
