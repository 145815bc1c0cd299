"""Only what is inside --image_root is read, whatever paths and links a list or a folder holds."""

from __future__ import annotations

import io
import json
import os
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.data.test_sources import entries, write
from tests.data.test_vertex_import import line
from tests.standin.bucket import Buckets
from tf_image_classification import build_tfrecords, storage
from tf_image_classification.build_tfrecords import images
from tf_image_classification.data import manifest, sources, tfrecord
from tf_image_classification.data.sources import Entry, ImageRoots, ReadOptions, Rejected, listing
from tf_image_classification.errors import DataError, FlagError
from tf_image_classification.storage import mounts, paths

NFC, NFD = (unicodedata.normalize(form, "café.png") for form in ("NFC", "NFD"))
SECRET = (255, 0, 255)


def png(colour: tuple[int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def sets(tmp_path) -> Path:
    """A folder with images of its own, beside one with an image that its list should not reach."""
    for number in range(20):
        write(tmp_path / "sets" / ["cat", "dog"][number % 2] / f"{number}.png", png((number, 0, 0)))
    write(tmp_path / "private" / "secret.png", png(SECRET))
    (tmp_path / "sets" / "link.png").symlink_to("../private/secret.png")
    (tmp_path / "sets" / "chain.png").symlink_to("link.png")
    (tmp_path / "sets" / "folder").symlink_to(tmp_path / "private")
    (tmp_path / "sets" / NFD).symlink_to("../private/secret.png")
    (tmp_path / "sets" / "inside.png").symlink_to("cat/0.png")
    return tmp_path / "sets"


def outside(folder: Path) -> list[str]:
    """Paths by which a list in the folder names the image that is not in it."""
    private = folder.parent / "private"
    return [
        f"{private}/secret.png",
        "../private/secret.png",
        "cat/../../private/secret.png",
        f"{folder}/../private/secret.png",
        "link.png",
        "chain.png",
        "folder/secret.png",
        f"{folder}/folder/secret.png",
        NFD,
        NFC,  # which is found in the other form
        f"/proc/self/root{private}/secret.png",
        "gs://b/secret.png",
    ]


def table(path: Path, names: list[str]) -> str:
    inside = [f"{label}/{number}.png" for number in range(20) for label in [["cat", "dog"][number % 2]]]
    lines = [f"{name},cat" for name in names] + [f"{name},{name[:3]}" for name in inside]
    return write(path, "\n".join(lines))


@pytest.mark.parametrize("is_link", [False, True], ids=["root", "root that is a link"])
@pytest.mark.parametrize("is_named", [False, True], ids=["default", "named"])
def test_what_is_outside_is_rejected_with_the_option_and_the_root(sets, is_link, is_named):
    root = sets
    if is_link:
        (root := sets.parent / "current").symlink_to("sets")
    found = entries(table(root / "images.csv", outside(root)), str(root) if is_named else None)
    reason = f"outside --image_root {root}"
    assert [entry for entry in found if isinstance(entry, Rejected)] == [
        Rejected(text, reason) for text in outside(root)
    ]
    assert len(found) == len(outside(root)) + 20


def test_neither_a_build_nor_a_fingerprint_reads_what_is_outside(sets, tmp_path):
    lists = table(sets / "images.csv", outside(sets))
    data = build_tfrecords.build(lists, str(tmp_path / "data"), eval_fraction=0.5, workers=1)
    assert data.rejected_reasons == {f"outside --image_root {sets}": len(outside(sets))}
    for split in data.splits:
        for path in data.shard_paths(split):
            for record in map(tfrecord.parse_example, tfrecord.read(path)):
                assert Image.open(io.BytesIO(record["image/encoded"][0])).getpixel((0, 0)) != SECRET
    before = build_tfrecords.fingerprint(lists)
    write(tmp_path / "private" / "secret.png", "another size")
    assert build_tfrecords.fingerprint(lists) == before


def test_paths_and_links_that_stay_inside_are_followed(sets):
    names = ["inside.png", f"{sets}/cat/0.png", "cat/../cat/0.png", "missing.png"]
    found = entries(write(sets / "images.csv", "\n".join(f"{name},cat" for name in names)))
    assert [entry.path for entry in found if isinstance(entry, Entry)] == [
        f"{sets}/inside.png",
        f"{sets}/cat/0.png",
        f"{sets}/cat/0.png",
        f"{sets}/missing.png",
    ]


def test_a_path_of_windows_leads_nowhere(sets):
    found = entries(write(sets / "images.csv", "..\\private\\secret.png,cat\nC:\\secret.png,cat\ncat/0.png,cat\n"))
    assert [entry.reason for entry in found[:2]] == ["file not found: Windows path, with backslashes"] * 2


def test_a_file_of_a_class_folder_that_is_a_link_to_elsewhere_is_rejected(sets, caplog):
    (sets / "cat" / "link.png").symlink_to("../../private/secret.png")
    (sets / "cat" / "inside.png").symlink_to("0.png")
    prints = [build_tfrecords.fingerprint(str(sets))]
    found = {entry.path: entry for entry in entries(str(sets))}
    assert found[f"{sets}/cat/link.png"] == Rejected(f"{sets}/cat/link.png", f"outside --image_root {sets}")
    assert isinstance(found[f"{sets}/cat/inside.png"], Entry)
    allowed = f"{sets},{sets.parent}/private"
    assert f"5 images are outside of the folders that may be read, such as {sets}/" in caplog.text
    assert f"Give --image_root {allowed} if they may be read" in caplog.text
    assert Entry(f"{sets}/cat/link.png", "cat/link.png", ("cat",)) in entries(str(sets), allowed)
    prints += [build_tfrecords.fingerprint(str(sets), options=ReadOptions(image_root=allowed))]
    write(sets.parent / "private" / "secret.png", "another size")
    prints += [build_tfrecords.fingerprint(str(sets), options=ReadOptions(image_root=allowed))]
    assert build_tfrecords.fingerprint(str(sets)) == prints[0]
    assert len(set(prints)) == 3


def test_several_roots_allow_what_is_in_any_of_them_and_paths_are_relative_to_the_first(sets):
    found = entries(table(sets / "images.csv", outside(sets)), f"{sets},{sets.parent}/private, gs://b")
    names = {entry.filename for entry in found[: len(outside(sets))] if isinstance(entry, Entry)}
    assert names == {"secret.png", "link.png", "chain.png", "folder/secret.png", NFD, NFC, _through_proc(sets)}
    assert len([entry for entry in found if isinstance(entry, Entry)]) == len(found)


def _through_proc(sets: Path) -> str:
    """The name of an image whose path leads into a root by a link alone: its whole path."""
    return f"proc/self/root{sets.parent}/private/secret.png"


@pytest.mark.parametrize(
    ("lines", "image_root", "flag"),
    [
        (["{tmp}/images/cat/1.png", "{tmp}/images/dog/2.png"], None, "{tmp}/images"),
        (["../images/cat/1.png", "../images/cat/2.png"], None, "{tmp}/lists,{tmp}/images/cat"),
        (["gs://b/images/cat/1.png", "gs://b/images/dog//2.png"], None, "gs://b/images"),
        (["gs://b/1.png", "gs://b/images/2.png", "gs://c/x/3.png"], None, "gs://b,gs://c/x"),
        (["gs://b/images/1.png"], "{tmp}/other", "gs://b/images"),
        (["linked/1.png"], None, "{tmp}/lists,{tmp}/blobs"),
        (["gs://b/my images/1.png"], None, "'gs://b/my images'"),
        (["1.png"] + ["gs://b/images/1.png"] * 10, None, "{tmp}/lists,gs://b/images"),
    ],
)
def test_a_list_of_images_elsewhere_is_one_error_with_the_flag_that_reads_them(tmp_path, lines, image_root, flag):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "linked").symlink_to(tmp_path / "blobs")
    path = write(tmp_path / "lists" / "images.csv", "\n".join(f"{text},cat".format(tmp=tmp_path) for text in lines))
    root = image_root and image_root.format(tmp=tmp_path)
    expected = f"Give --image_root {flag.format(tmp=tmp_path)} if the list may read there."
    with pytest.raises(FlagError) as raised:
        entries(path, root)
    assert expected in str(raised.value)
    assert f"{path}: {len([text for text in lines if text != '1.png'])} of {len(lines)} images" in str(raised.value)
    given = flag.format(tmp=tmp_path).strip("'")
    assert all(isinstance(entry, Entry) for entry in entries(path, given))


def test_a_tenth_of_the_images_inside_is_no_mistake_in_the_flag(tmp_path):
    found = entries(write(tmp_path / "images.csv", "1.png,cat\n" + "gs://b/1.png,cat\n" * 9))
    assert [type(entry) for entry in found] == [Entry] + [Rejected] * 9


def test_roots_are_folders_that_commas_separate_and_may_hold_commas_themselves(tmp_path):
    for name in ("a, b", "c"):
        write(tmp_path / name / "1.png")
    path = write(tmp_path / "images.csv", f"1.png,x\n{tmp_path}/c/1.png,x\n")
    assert [entry.path for entry in entries(path, f"{tmp_path}/a, b,{tmp_path}/c")] == [
        f"{tmp_path}/a, b/1.png",
        f"{tmp_path}/c/1.png",
    ]
    with pytest.raises(FlagError, match="--image_root names no folder"):
        entries(path, ",")


@pytest.fixture
def bucket(monkeypatch) -> Iterator[Buckets]:
    """A bucket of images, with a private one, and import files of Vertex AI in another folder."""
    with Buckets("b") as service:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", service.url)
        rows = []
        for number in range(20):
            storage.write_bytes(f"gs://b/images/{number}.png", png((number, 0, 0)))
            rows.append((f"gs://b/images/{number}.png", ["cat", "dog"][number % 2]))
        storage.write_bytes("gs://b/private/secret.png", png(SECRET))
        rows.append(("gs://b/private/secret.png", "cat"))
        storage.write_text("gs://b/lists/import.csv", "\n".join(f"training,{uri},{label}" for uri, label in rows))
        storage.write_text("gs://b/lists/import.jsonl", "\n".join(line(uri, label) for uri, label in rows))
        service.requests.clear()
        yield service


@pytest.mark.parametrize("name", ["import.csv", "import.jsonl"])
def test_an_import_file_of_vertex_ai_takes_one_flag_which_the_error_names(bucket, tmp_path, name):
    with pytest.raises(FlagError, match=r"21 of 21 images.*Give --image_root gs://b if the list may read there"):
        build_tfrecords.build(f"gs://b/lists/{name}", str(tmp_path / "data"))
    options = ReadOptions(image_root="gs://b/images")
    data = build_tfrecords.build(f"gs://b/lists/{name}", str(tmp_path / "data"), eval_fraction=0.5, options=options)
    assert sum(split.examples for split in data.splits.values()) == 20
    assert data.rejected_reasons == {"outside --image_root gs://b/images": 1}
    assert not [request for request in bucket.requests if "private" in str(request)]


def test_a_mounted_bucket_is_the_same_root_in_both_spellings(tmp_path, monkeypatch):
    gcs = tmp_path / "gcs"
    for name in ("photos/in/1.png", "photos/out/2.png", "other/3.png"):
        write(gcs / name)
    monkeypatch.setattr(paths, "GCS_MOUNT", f"{gcs}/")
    monkeypatch.setattr(mounts, "TABLE", write(tmp_path / "mounts", f"gcsfuse {gcs} fuse.gcsfuse rw 0 0\n"))
    (tmp_path / "link").symlink_to(gcs / "photos")
    names = ["1.png", "gs://photos/in/1.png", f"{gcs}/photos/in/1.png", f"{tmp_path}/link/in/1.png"]
    names += ["../out/2.png", "gs://photos/out/2.png", f"{gcs}/photos/out/2.png", f"{gcs}/other/3.png"]
    path = write(tmp_path / "images.csv", "\n".join(f"{name},cat" for name in names))
    for root in ("gs://photos/in", f"{gcs}/photos/in"):
        assert [type(entry) for entry in entries(path, root)] == [Entry] * 4 + [Rejected] * 4


@pytest.mark.parametrize("has_proc", [True, False], ids=["with /proc", "without"])
def test_a_link_that_is_swapped_after_it_was_listed_is_not_read(sets, monkeypatch, has_proc):
    def readlink(path: str, real: Callable[[str], str] = os.readlink) -> str:
        if path.startswith("/proc/"):
            raise FileNotFoundError(path)
        return real(path)

    if not has_proc:
        monkeypatch.setattr(os, "readlink", readlink)
    (sets / "swapped.png").symlink_to("cat/0.png")
    (sets / "images").symlink_to("cat")
    names = ["swapped.png", "images/0.png", "cat/2.png", NFC]
    path = write(sets / "images.csv", "\n".join(f"{name},cat" for name in names[:3]))
    roots = sources.roots_of(sources.expand(path), sources.AS_GIVEN)
    listed = [entry.path for entry in entries(path) if isinstance(entry, Entry)]
    assert [images.read(path, roots=roots) for path in listed] == [png((number, 0, 0)) for number in (0, 0, 2)]
    for name, target in (
        ("swapped.png", "../private/secret.png"),
        ("images", "../private"),
        ("cat/2.png", "../link.png"),
    ):
        (sets / name).unlink()
        (sets / name).symlink_to(target)
    (sets.parent / "private" / "0.png").write_bytes(png(SECRET))
    for name in names:
        with pytest.raises(images.RejectedImage, match=f"outside --image_root {sets}"):
            images.read(f"{sets}/{name}", roots=roots)


def test_an_object_that_a_mounted_bucket_shows_as_a_link_is_not_followed(tmp_path, monkeypatch):
    """gcsfuse makes a link of an object with the metadata gcsfuse_symlink_target."""
    gcs = tmp_path / "gcs"
    write(gcs / "photos" / "images" / "1.png", png((1, 0, 0)))
    (gcs / "photos" / "images" / "2.png").symlink_to(write(tmp_path / "private.png", png(SECRET)))
    monkeypatch.setattr(paths, "GCS_MOUNT", f"{gcs}/")
    monkeypatch.setattr(mounts, "TABLE", write(tmp_path / "mounts", f"gcsfuse {gcs} fuse.gcsfuse rw 0 0\n"))
    roots = sources.ImageRoots("gs://photos/images")
    assert images.read("gs://photos/images/1.png", roots=roots) == png((1, 0, 0))
    with pytest.raises(images.RejectedImage, match="outside --image_root gs://photos/images"):
        images.read("gs://photos/images/2.png", roots=roots)


def test_a_manifest_names_no_shard_above_its_folder(tmp_path):
    for number in range(20):
        write(tmp_path / "photos" / ["cat", "dog"][number % 2] / f"{number}.png", png((number, 0, 0)))
    build_tfrecords.build(str(tmp_path / "photos"), str(tmp_path / "data"), eval_fraction=0.5, workers=1)
    path = tmp_path / "data" / "manifest.json"
    content = json.loads(path.read_text())
    content["splits"]["train"]["shards"][0]["path"] = "../other/train-00000-of-00001.tfrecord"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"not a manifest.*a shard outside the folder: \.\./other"):
        manifest.read(str(tmp_path / "data"))


def test_a_file_in_a_folder_whose_files_are_inside_is_outside_if_it_is_a_link(tmp_path):
    write(tmp_path / "photos" / "cat" / "1.png")
    write(tmp_path / "private" / "secret.png")
    (tmp_path / "photos" / "cat" / "2.png").symlink_to(tmp_path / "private" / "secret.png")
    (tmp_path / "photos" / "dog").symlink_to(tmp_path / "private")
    roots = ImageRoots(None, str(tmp_path / "photos"))
    found = {file.filename: roots.contain(file.path, file.may_be_link) for file in listing.walk(f"{tmp_path}/photos")}
    assert found == {"cat/1.png": True, "cat/2.png": False, "dog/secret.png": False}
    assert not roots.contain(str(tmp_path / "private" / "secret.png"), may_be_link=False)
