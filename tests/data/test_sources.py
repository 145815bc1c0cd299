from __future__ import annotations

from pathlib import Path

import pytest

from tf_image_classification.data import sources
from tf_image_classification.data.sources import BuiltDataSet, ClassFolder, CsvFile, Entry, Rejected, TFRecordFiles
from tf_image_classification.errors import DataError, FlagError


def write(path: Path, content: str | bytes = "x") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def entries(path: str, image_root: str | None = None) -> list[Entry | Rejected]:
    return list(sources.read_entries(sources.expand(path), sources.ReadOptions(image_root)))


def names(path: str, image_root: str | None = None) -> list[tuple[str, ...]]:
    return [(entry.filename, *entry.labels) for entry in entries(path, image_root) if isinstance(entry, Entry)]


def test_a_csv_a_folder_and_tfrecords_are_distinguished(tmp_path):
    table = write(tmp_path / "images.CSV", "a.jpg,cat\n")
    write(tmp_path / "photos" / "cat" / "a.jpg")
    record = write(tmp_path / "records" / "train-0.tfrecord")
    write(tmp_path / "records" / "readme.txt")
    kinds = [[type(source) for source in sources.expand(text)] for text in (table, str(tmp_path / "photos"), record)]
    assert kinds == [[CsvFile], [ClassFolder], [TFRecordFiles]]
    assert sources.expand(str(tmp_path / "records")) == [TFRecordFiles(str(tmp_path / "records"), (record,))]


def test_a_folder_with_a_manifest_is_a_built_data_set(tmp_path):
    write(tmp_path / "data" / "manifest.json", "{}")
    write(tmp_path / "data" / "train-00000-of-00001.tfrecord")
    assert sources.expand(str(tmp_path / "data")) == [BuiltDataSet(str(tmp_path / "data"))]


def test_globs_and_comma_separated_parts_name_several_sources(tmp_path):
    paths = [write(tmp_path / name) for name in ("train-1.tfrecord", "train-2.tfrecord", "other.gz")]
    found = sources.expand(f"{tmp_path}/train*, {tmp_path}/other.gz")
    assert [source.path for source in found] == paths


def test_a_path_that_contains_a_comma_is_one_source(tmp_path):
    table = write(tmp_path / "cats, dogs.csv", "a.jpg,cat\n")
    assert [source.path for source in sources.expand(table)] == [table]


@pytest.mark.parametrize("missing", ["nothing*", "nothing.csv", "nothing/", ",", "a,,"])
def test_metadata_that_names_nothing_is_a_wrong_call_and_is_quoted(tmp_path, monkeypatch, missing):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FlagError, match=missing.split(",")[0].replace("*", r"\*") or "','"):
        sources.expand(missing)


def test_images_mixed_with_tfrecords_are_refused(tmp_path):
    with pytest.raises(FlagError, match="mixes images with TFRecords"):
        sources.expand(f"{write(tmp_path / 'a.csv', 'a.jpg,cat')},{write(tmp_path / 'b.tfrecord')}")


def test_the_folder_of_a_single_class_is_refused_with_a_hint(tmp_path):
    write(tmp_path / "cat" / "a.jpg")
    with pytest.raises(FlagError, match=r"no class sub-folders.*give the folder that holds all of them"):
        sources.expand(str(tmp_path / "cat"))


def test_the_class_is_the_first_folder_however_deep_an_image_is(tmp_path):
    for name in ("dog/a.jpg", "cat/deep/er/b.jpg", "cat/README.txt", "cat/.hidden.jpg", ".git/c.jpg"):
        write(tmp_path / name)
    assert names(str(tmp_path)) == [("cat/README.txt", "cat"), ("cat/deep/er/b.jpg", "cat"), ("dog/a.jpg", "dog")]


def test_files_beside_the_class_folders_are_rejected(tmp_path):
    write(tmp_path / "cat" / "a.jpg")
    loose = write(tmp_path / "LICENSE")
    assert Rejected(loose, "not in a class folder") in entries(str(tmp_path))


def test_an_image_has_one_path_however_its_source_is_written(tmp_path, monkeypatch):
    write(tmp_path / "photos" / "cat" / "a.jpg")
    write(tmp_path / "images.csv", "photos/cat/a.jpg,cat\n")
    monkeypatch.chdir(tmp_path)
    found = entries("photos,images.csv") + entries(f"{tmp_path}/photos/../photos/")
    assert {entry.path for entry in found} == {str(tmp_path / "photos" / "cat" / "a.jpg")}


def test_a_dangling_link_is_an_entry_like_any_file(tmp_path):
    write(tmp_path / "cat" / "a.jpg")
    (tmp_path / "cat" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert ("cat/gone.jpg", "cat") in names(str(tmp_path))


@pytest.mark.parametrize("header", ["", "URIs,labels\n", "path,label\n", "\ufeffuris, labels\r\n"])
def test_a_csv_has_a_header_or_none(tmp_path, header):
    table = write(tmp_path / "images.csv", header + "a.jpg,cat\r\n\r\n  b.jpg , dog \r\n")
    assert names(table) == [("a.jpg", "cat"), ("b.jpg", "dog")]
    assert sources.task_names(sources.expand(table)) == ("label",)


def test_quoted_fields_hold_commas_and_any_language(tmp_path):
    table = write(tmp_path / "images.csv", '"a,b.jpg","cat, black"\nü/ж.jpg,猫\n')
    assert names(table) == [("a,b.jpg", "cat, black"), ("ü/ж.jpg", "猫")]


def test_several_label_columns_are_several_tasks(tmp_path):
    table = write(tmp_path / "faces.csv", "path,age,gender\na.jpg,30,f\nb.jpg,31\nc.jpg,32,m,x\n")
    assert sources.task_names(sources.expand(table)) == ("age", "gender")
    assert [entry[1:] for entry in entries(table)] == [
        ("a.jpg", ("30", "f"), None),
        ("2 columns instead of 3",),
        ("4 columns instead of 3",),
    ]
    assert [entry.path for entry in entries(table)[1:]] == [f"{table}:3", f"{table}:4"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("a.jpg,30,f\n", "3 columns and no header"),
        ("a.jpg\n", "single column"),
        ("", "empty"),
        ("path,age,age\n", "does not name its label columns"),
        (b"a.jpg,cat\nb.jpg,caf\xe9\n", "not UTF-8.*images.csv, line 2.*Windows-1252.*b.jpg,café"),
        ("a.jpg,cat\nb.jpg,\x93L\n".encode("latin-1"), "not UTF-8.*line 2.*Shift-JIS"),
    ],
)
def test_a_csv_without_usable_content_is_an_error(tmp_path, content, problem):
    with pytest.raises(DataError, match=problem):
        entries(write(tmp_path / "images.csv", content))


def test_sources_with_different_label_columns_are_refused(tmp_path):
    one, two = write(tmp_path / "1.csv", "a.jpg,cat\n"), write(tmp_path / "2.csv", "path,age,gender\na.jpg,3,f\n")
    with pytest.raises(DataError, match="different label columns"):
        sources.task_names(sources.expand(f"{one},{two}"))


def test_relative_paths_start_from_the_csvs_folder_and_stay_there(tmp_path):
    table = write(tmp_path / "sets" / "images.csv", "cat/./a.jpg,cat\n../b.jpg,cat\ncat/../../sets-b/c.jpg,cat\n")
    assert entries(table) == [
        Entry(str(tmp_path / "sets/cat/a.jpg"), "cat/a.jpg", ("cat",)),
        Rejected("../b.jpg", f"outside --image_root {tmp_path}/sets"),
        Rejected("cat/../../sets-b/c.jpg", f"outside --image_root {tmp_path}/sets"),
    ]


def test_without_image_root_an_absolute_path_keeps_the_name_that_decides_its_split(tmp_path):
    table = write(tmp_path / "images.csv", f"{tmp_path}/cat/a.jpg,cat\n")
    assert entries(table) == [Entry(f"{tmp_path}/cat/a.jpg", f"{tmp_path}/cat/a.jpg"[1:], ("cat",))]
    assert entries(table, str(tmp_path)) == [Entry(f"{tmp_path}/cat/a.jpg", "cat/a.jpg", ("cat",))]


def test_a_path_on_gs_that_names_no_bucket_is_rejected_alone(tmp_path):
    table = write(tmp_path / "images.csv", "gs:///a.jpg,cat\ngs://My Photos/b.jpg,cat\ngs://photos/c.jpg,dog\n")
    assert entries(table, "gs://photos") == [
        Rejected("gs:///a.jpg", "names no bucket"),
        Rejected("gs://My Photos/b.jpg", "names no bucket"),
        Entry("gs://photos/c.jpg", "c.jpg", ("dog",)),
    ]


def test_with_image_root_every_image_must_be_under_it(tmp_path):
    root = tmp_path / "root"
    table = write(
        tmp_path / "images.csv",
        f"cat/a.jpg,cat\n{root}/b.jpg,cat\n{tmp_path}/c.jpg,cat\n../root2/d.jpg,cat\ngs://b/e.jpg,cat\n",
    )
    found = entries(table, str(root))
    assert [entry.filename for entry in found if isinstance(entry, Entry)] == ["cat/a.jpg", "b.jpg"]
    assert [entry.reason for entry in found if isinstance(entry, Rejected)] == [f"outside --image_root {root}"] * 3


def test_image_root_may_be_a_bucket(tmp_path):
    table = write(
        tmp_path / "images.csv", "a.jpg,cat\ngs://bucket/root/b.jpg,cat\ngs://bucket/rooted/c.jpg,cat\n../d.jpg,cat\n"
    )
    found = entries(table, "gs://bucket/root/")
    assert [entry.path for entry in found] == [
        "gs://bucket/root/a.jpg",
        "gs://bucket/root/b.jpg",
        "gs://bucket/rooted/c.jpg",
        "../d.jpg",
    ]
    assert [type(entry) for entry in found] == [Entry, Entry, Rejected, Rejected]


def test_labels_that_a_labels_file_cannot_hold_are_rejected(tmp_path):
    table = write(tmp_path / "images.csv", "a.jpg,two\u2028lines\nb.jpg, \n,cat\n,\n")
    assert [entry.reason for entry in entries(table)] == ["label has a line break", "no label", "no path", "no path"]


def test_labels_are_sorted_and_numbers_by_their_value():
    assert sources.order_labels(["dog", "cat", "dog", "10"]) == ("10", "cat", "dog")
    assert sources.order_labels(["10", "9", "2"]) == ("2", "9", "10")


def test_the_split_depends_on_nothing_but_the_relative_path():
    splits = {f"cat/{number}.jpg": sources.split_of(f"cat/{number}.jpg", 0.2) for number in range(5000)}
    assert 0.18 < sum(split == "eval" for split in splits.values()) / 5000 < 0.22
    assert all(sources.split_of(name, 0.3) == "eval" for name, split in splits.items() if split == "eval")
    assert sources.split_of("cat/0.jpg", 0.0) == "train"
    assert sources.split_of("cat/0.jpg", 1.0) == "eval"


def test_tfrecords_that_are_named_twice_are_a_wrong_call(tmp_path):
    for name in ("a.tfrecord", "b.tfrecord"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(FlagError, match="twice"):
        sources.expand(f"{tmp_path}/*.tfrecord,{tmp_path}/./a.tfrecord")
