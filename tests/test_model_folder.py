"""A model folder is what was exported, byte for byte, or is refused: a SavedModel is code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.model_folders import DIGEST, FILES, write
from tests.standin.bucket import Buckets, client, fill
from tf_image_classification import model_folder, storage
from tf_image_classification.data import model_tasks
from tf_image_classification.errors import DataError


@pytest.fixture
def folder(tmp_path) -> Path:
    return write(tmp_path / "model")


def _change(name: str, content: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)

    return change


def _link(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).rename(folder.parent / name)
        (folder / name).symlink_to(folder.parent / name)

    return change


def _folder_of_facts(folder: Path) -> None:
    (folder / "model.json").unlink()
    (folder / "model.json").mkdir()


def _pipe(folder: Path) -> None:
    (folder / "model.keras").unlink()
    os.mkfifo(folder / "model.keras")


CHANGES = {
    "a changed byte": (
        _change("saved_model/saved_model.pb", b"grapg"),
        r"saved_model\.pb with the SHA-256 \w+ instead",
    ),
    "an exchanged shard": (_change("saved_model/variables/variables.data-00000-of-00001", b"other!"), "instead of"),
    "an additional file": (_change("saved_model/assets/words.txt", b""), "words.txt, which model.json does not list"),
    "notes of a user": (_change("README.md", b"Mine"), r"README\.md, which .* If you put it there, move it elsewhere"),
    "a text graph": (_change("saved_model/saved_model.pbtxt", b""), "pbtxt, which model.json does not list"),
    "a missing file": (lambda folder: (folder / "model.keras").unlink(), r"no model\.keras, which model\.json lists"),
    "a link": (_link("labels.txt"), r"labels\.txt, a link to"),
    "a link to the list of files": (_link("model.json"), r"model\.json, which is a link"),
    "a folder for the list of files": (_folder_of_facts, r"Not a model folder: model\.json not found"),
    "a link to a folder": (lambda folder: (folder / "saved_model" / "assets").symlink_to("/etc"), "assets, which is a"),
    "a pipe": (_pipe, "which is no regular file"),
}


def test_a_folder_as_it_was_exported_is_verified_and_copied(folder, tmp_path):
    (folder / "saved_model" / ".DS_Store").write_bytes(b"of a file browser")
    verified = model_folder.verify(str(folder), str(tmp_path / "copy"))
    assert (verified.digest, verified.local) == (DIGEST, str(tmp_path / "copy"))
    copied = {name: (tmp_path / "copy" / name).read_bytes() for name in [*FILES, "model.json"]}
    assert copied == {**FILES, "model.json": (folder / "model.json").read_bytes()}
    assert not list((tmp_path / "copy").rglob(".*"))


@pytest.mark.parametrize("change", CHANGES)
def test_a_folder_that_is_not_as_it_was_exported_is_refused(folder, tmp_path, change):
    apply, message = CHANGES[change]
    apply(folder)
    for copy_to in ("", str(tmp_path / "copy")):
        with pytest.raises(DataError, match=message):
            model_folder.verify(str(folder), copy_to)


@pytest.mark.parametrize("change", ["a changed byte", "an additional file", "a missing file"])
def test_a_folder_in_a_bucket_is_verified_as_downloaded(folder, tmp_path, monkeypatch, change):
    with Buckets("bucket") as service:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", service.url)
        fill(service.url, "bucket", "model", folder)
        assert model_folder.verify("gs://bucket/model", str(tmp_path / "copy")).digest == DIGEST
        assert model_folder.verify("gs://bucket/model").local == ""
        for file in list(storage.walk("gs://bucket/model")):
            client(service.url).bucket("bucket").blob(storage.split_gcs(file.path)[1]).delete()
        apply, message = CHANGES[change]
        apply(folder)
        fill(service.url, "bucket", "model", folder)
        with pytest.raises(DataError, match=message):
            model_folder.verify("gs://bucket/model")


@pytest.mark.parametrize(
    "name",
    [
        "../labels.txt",
        "/etc/passwd",
        "a/../../b",
        "",
        ".",
        "saved_model//x",
        "a\\b",
        "a\0b",
        "a\ud800",
        "a" * 256,
        7,
        None,
    ],
)
def test_names_in_model_json_stay_inside_the_folder(folder, name):
    with pytest.raises(DataError, match="names a file outside of the model folder"):
        model_folder.inside(str(folder), name)
    if isinstance(name, str):
        write(folder, files={**model_folder.hashes(str(folder)), name: DIGEST})
        with pytest.raises(DataError, match="names a file outside of the model folder"):
            model_folder.verify(str(folder))


def test_labels_outside_of_the_folder_are_not_read(folder):
    (folder.parent / "secret.txt").write_text("a\nb\n")
    (folder / "link.txt").symlink_to(folder.parent / "secret.txt")
    for name in ("../secret.txt", str(folder.parent / "secret.txt"), "link.txt"):
        facts = {"tasks": [{"name": "label", "labels_file": name}]}
        with pytest.raises(DataError, match="names a file outside of the model folder"):
            model_tasks.tasks_of(str(folder / "model.json"), facts)


@pytest.mark.parametrize("value", [7, True, [[]], ["x"], "x" * 10_000, 1e400])
@pytest.mark.parametrize("name", ["digest", "files", "tasks", "flags", "versions", "warm_start", "packages"])
def test_a_model_json_of_wrong_types_is_one_paragraph(folder, name, value):
    write(folder, **{name: value})
    with pytest.raises(DataError) as refused:
        model_tasks.tasks_of(str(folder / "model.json"), model_folder.verify(str(folder)).facts)
    assert name in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("digest", ["../../../../../etc", "0" * 63, DIGEST.upper()])
def test_a_digest_that_is_none_is_refused(folder, digest):
    write(folder, digest=digest)
    with pytest.raises(DataError, match="the digest"):
        model_folder.verify(str(folder))


def test_two_names_of_one_file_are_refused(folder):
    write(folder, files={"caf\u00e9": DIGEST, "cafe\u0301": DIGEST})
    with pytest.raises(DataError, match="one file on some systems"):
        model_folder.verify(str(folder))
    (folder / "model.json").write_text('{"files": {}, "files": {}}')
    with pytest.raises(DataError, match="a name twice"):
        model_folder.verify(str(folder))


def test_a_folder_that_lists_no_files_is_accepted_with_a_warning_where_asked(tmp_path, caplog):
    folder = write(tmp_path / "model", files=None)
    facts = json.loads((folder / "model.json").read_text())
    del facts["files"]
    (folder / "model.json").write_text(json.dumps(facts))
    with pytest.raises(DataError, match=r"lists no files.*Export the model again"):
        model_folder.verify(str(folder))
    assert model_folder.verify(str(folder), accept_unlisted=True).digest == DIGEST
    assert "without being verified" in caplog.text


def test_a_changed_model_is_refused_before_tensorflow_is_loaded(folder):
    (folder / "saved_model" / "saved_model.pb").write_bytes(b"other")
    program = (
        "import sys\n"
        "from tf_image_classification.errors import DataError\n"
        "from tf_image_classification.evaluate import served_model\n"
        "try:\n"
        f"    with served_model.load({str(folder)!r}): pass\n"
        "except DataError as error:\n"
        "    assert 'is not as it was exported' in str(error), error\n"
        "    print('tensorflow' in sys.modules)\n"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert answer.stdout == "False\n", answer.stderr
