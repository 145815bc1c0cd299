"""The image that is read is the one that was named, whatever characters its name has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.standin import bucket as standin
from tf_image_classification import storage
from tf_image_classification.data import sources
from tf_image_classification.data.sources import Entry, Rejected, image_paths
from tf_image_classification.data.sources.listed_image import ListedImages
from tf_image_classification.errors import FlagError
from tf_image_classification.promotion.resolve import absolute_paths


@pytest.fixture
def bucket(monkeypatch) -> Iterator[str]:
    with standin.serving("b") as url:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        yield "gs://b"


OUTSIDE = "outside --image_root"


def located(text: str, folder: str, image_root: str | None = None) -> str:
    """The path of an image that a list in a folder names, or the first words of the reason why it has none."""
    images = ListedImages(storage.join(folder, "list.csv"), sources.ReadOptions(image_root))
    found = images.entry(text, ("cat",), None)
    return found.path if isinstance(found, Entry) else found.reason[: len(OUTSIDE)]


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("gs://b/dd//x.png", "gs://b/dd//x.png"),
        ("gs://b//x.png", "gs://b//x.png"),
        ("gs://b/a/../x.png", "gs://b/a/../x.png"),
        ("gs://b/./x.png", "gs://b/./x.png"),
        ("gs://b/x.png/", "gs://b/x.png/"),
        ("gs://b/a[1]#?*%2F \\x.png", "gs://b/a[1]#?*%2F \\x.png"),
        ("dd//x.png", "gs://b/sets/dd//x.png"),
        ("./cat/../dog/./x.png", "gs://b/sets/dog/x.png"),
        ("a//../x.png", "gs://b/sets/a/x.png"),
        ("..x/...", "gs://b/sets/..x/..."),
        ("../x.png", OUTSIDE),
        ("a/../../x.png", OUTSIDE),
        ("a/..", OUTSIDE),
        (".", OUTSIDE),
    ],
)
def test_a_list_in_a_bucket_names_objects_exactly_and_relative_paths_as_a_person_means_them(text, path):
    assert located(text, "gs://b/sets/", "gs://b" if text.startswith("gs://") else None) == path


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("gs://b/root//x", "gs://b/root//x"),
        ("gs://b/root/../x", "gs://b/root/../x"),  # the object's name begins so
        ("gs://b/rooted/x", OUTSIDE),
        ("gs://b//root/x", OUTSIDE),
        ("x", "gs://b/root/x"),
    ],
)
def test_an_image_root_in_a_bucket_is_the_exact_beginning_of_names(text, path):
    for root in ("gs://b/root", "gs://b/root/"):
        assert located(text, "/data", root) == path


def test_the_folder_of_a_list_keeps_every_slash(tmp_path, monkeypatch):
    assert image_paths.folder_of("gs://b/dd//images.csv") == "gs://b/dd//"
    assert image_paths.folder_of("gs://b//images.csv") == "gs://b//"
    assert located("x", image_paths.folder_of("gs://b//images.csv")) == "gs://b//x"
    monkeypatch.chdir(tmp_path)
    assert image_paths.folder_of("images.csv") == str(tmp_path)
    assert image_paths.folder_of("/images.csv") == "/"
    assert located("x", "/") == located("//x", "/elsewhere", "/") == "/x"


def test_a_path_that_is_no_unicode_or_has_a_nul_is_rejected():
    assert image_paths.locate("a\ud800", "/data") == Rejected(r"'a\ud800'", "path is not UTF-8")
    assert image_paths.locate("a\0/b", "/data") == Rejected(r"'a\x00/b'", "path has a NUL byte")


def test_metadata_that_is_no_unicode_is_refused_and_names_below_it_are_not(tmp_path):
    for name in ("photos\udcff/cat/1", "photos/cat/\udcff", "photos/\udcff/1"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    with pytest.raises(FlagError, match=r"not UTF-8.*\\udcff"):
        sources.expand(f"{tmp_path}/photos\udcff")
    found = list(sources.read_entries(sources.expand(f"{tmp_path}/photos")))
    assert sorted(entry.path for entry in found if isinstance(entry, Entry)) == [f"{tmp_path}/photos/cat/\udcff"]
    assert Rejected(f"{tmp_path}/photos/\udcff/1", "label is not UTF-8") in found


def test_class_folders_in_a_bucket_are_read_exactly(bucket):
    for name in (
        "cat/x",
        "cat//x",
        "cat/../x",
        "a[1]/x",
        "a%2Fb/x",
        "a#b/x",
        "a\\b/x",
        "cat/x/",
        "cat/",
        "dog//",
        "/x",
    ):
        storage.write_bytes(f"{bucket}/photos/{name}", b"" if name in ("cat/", "dog//") else b"x")
    found = list(sources.read_entries(sources.expand(f"{bucket}/photos")))
    labels = {entry.path.removeprefix(f"{bucket}/photos/"): entry.labels[0] for entry in found if len(entry) > 2}
    assert labels == {
        "cat/x": "cat",
        "cat//x": "cat",
        "cat/../x": "cat",
        "cat/x/": "cat",
        "a[1]/x": "a[1]",
        "a%2Fb/x": "a%2Fb",
        "a#b/x": "a#b",
        "a\\b/x": "a\\b",
    }
    assert [entry for entry in found if isinstance(entry, Rejected)] == [Rejected(f"{bucket}/photos//x", "no label")]


def test_tfrecords_with_unusual_names_are_different_files(bucket, tmp_path):
    for root in (bucket, str(tmp_path)):
        for name in ("a[1].tfrecord", "a1.tfrecord", "data?.tfrecord", "data1.tfrecord"):
            storage.write_text(f"{root}/{name}", "x")
        names = f"{root}/a[1].tfrecord,{root}/data?.tfrecord"
        assert [source.path for source in sources.expand(names)] == names.split(",")
    storage.write_text(f"{bucket}/d//a.tfrecord", "x")
    storage.write_text(f"{bucket}/d/a.tfrecord", "x")
    assert len(sources.expand(f"{bucket}/d//a.tfrecord,{bucket}/d/a.tfrecord")) == 2
    with pytest.raises(FlagError, match="twice"):
        sources.expand(f"{bucket}/d//a.tfrecord,{bucket}/d//a.tfrecord")


@pytest.mark.parametrize(
    ("metadata", "parts"),
    [
        ("a,b.csv,c.csv", ["a,b.csv", "c.csv"]),
        ("c.csv, a,b.csv", ["c.csv", "a,b.csv"]),
        ("a, b/d.csv,c.csv,a,b.csv", ["a, b/d.csv", "c.csv", "a,b.csv"]),
        (" c.csv ,c.csv", ["c.csv", "c.csv"]),
        ("e .csv,c.csv", ["e .csv", "c.csv"]),
        ("c.csv, e ", ["c.csv", " e "]),
        ("c.csv,,", ["c.csv"]),
        ("a,b", ["a", "b"]),
        ("a", ["a"]),
        (",", []),
    ],
)
def test_commas_and_spaces_belong_to_a_path_that_exists_with_them(tmp_path, monkeypatch, metadata, parts):
    for name in ("a,b.csv", "a, b/d.csv", "c.csv", "e .csv", " e ", "a"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x,y\n")
    monkeypatch.chdir(tmp_path)
    assert sources.split_metadata(metadata) == parts
    assert absolute_paths(metadata) == ",".join(str(tmp_path / part) for part in parts)
    assert sources.split_metadata(absolute_paths(metadata)) == [str(tmp_path / part) for part in parts]


def test_commas_in_the_names_of_objects_are_found_too(bucket):
    storage.write_text(f"{bucket}/x,y.csv", "a,b\n")
    assert sources.split_metadata(f"{bucket}/x,y.csv, {bucket}/z.csv") == [f"{bucket}/x,y.csv", f"{bucket}/z.csv"]


def test_local_files_with_wildcards_in_their_names_are_read_exactly(tmp_path):
    for name in ("cat[1]/a*.png", "cat[1]/a?.png", "cat1/ab.png"):
        Path(tmp_path, name).parent.mkdir(exist_ok=True)
        Path(tmp_path, name).write_text("x")
    (tmp_path / "i[1].csv").write_text("cat[1]/a*.png,cat\n")
    (tmp_path / "i1.csv").write_text("cat1/ab.png,dog\n")
    found = list(sources.read_entries(sources.expand(f"{tmp_path}/i[1].csv")))
    assert found == [Entry(f"{tmp_path}/cat[1]/a*.png", "cat[1]/a*.png", ("cat",))]
    (tmp_path / "i[1].csv").unlink()
    (tmp_path / "i1.csv").unlink()
    labels = {entry.filename: entry.labels[0] for entry in sources.read_entries(sources.expand(str(tmp_path)))}
    assert labels == {"cat[1]/a*.png": "cat[1]", "cat[1]/a?.png": "cat[1]", "cat1/ab.png": "cat1"}
