"""Little data asks for little work: names, lists and files that would take hours, all memory, or a traceback."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.build_tfrecords import records
from tests.build_tfrecords.support import pictures
from tests.time_limit import ends_within
from tf_image_classification import build_tfrecords, storage
from tf_image_classification.build_tfrecords import class_spellings, record_tasks
from tf_image_classification.build_tfrecords.image_index import ImageIndex
from tf_image_classification.build_tfrecords.worker_messages import Contents, LabelValues
from tf_image_classification.data import class_names, manifest, sources
from tf_image_classification.data.class_names import MAX_CHARACTERS
from tf_image_classification.data.manifest import Task
from tf_image_classification.data.sources import Entry, Rejected, folder_layout, path_list
from tf_image_classification.data.stored_images import StoredImages
from tf_image_classification.errors import DataError, FlagError, UserError
from tf_image_classification.promotion import champion, gate

DEEP = "[" * 100_000


@pytest.fixture(autouse=True)
def _time_limit() -> Iterator[None]:
    with ends_within(120):
        yield


def growth(work: Callable[[int], object], size: int) -> float:
    """How many times as long four times the size takes: about 4 if the time is linear, 16 if it is quadratic. The least
    of three: other programs on the machine empty its caches."""
    found = []
    for _ in range(3):
        seconds = []
        for times in (1, 4):
            started = time.process_time()
            work(times * size)
            seconds.append(time.process_time() - started)
        found.append(seconds[1] / seconds[0])
    return min(found)


def labels(count: int) -> tuple[str, ...]:
    return tuple(f"class \u200c{number}" if number % 2 else f"class {number}" for number in range(count))


def test_the_time_to_read_a_labels_file_is_linear(tmp_path):
    def read(count: int) -> None:
        manifest.write_labels(str(tmp_path / "labels.txt"), labels(count))
        assert len(manifest.read_labels(str(tmp_path / "labels.txt"), numbered=True)) == count

    assert growth(read, 20_000) < 8


def test_the_time_to_find_names_that_look_alike_is_linear(caplog):
    caplog.set_level(logging.ERROR)

    def warn(count: int) -> None:
        class_names.announce_unseen("label", labels(count))
        class_spellings.warn([Task("label", labels(count))])

    assert growth(warn, 10_000) < 8


def test_the_time_to_reject_images_of_unknown_classes_is_linear_in_images_and_classes():
    def reject(count: int) -> None:
        index = ImageIndex()
        index.add("train", (Entry(f"/{n}", f"{n}", (f"class {n}",)) for n in range(count)), 0.2)
        index.reject_unknown([Task("label", ("class 7",))])
        assert index.count("train") + index.count("eval") == 1
        assert index.reasons("train", "eval")["label class 8 is not in labels"] == 1
        index.close()

    assert growth(reject, 3000) < 8


def test_the_page_of_a_build_shows_the_first_of_many_reasons(tmp_path):
    pictures(tmp_path / "photos", {"cat": 20} | {f"unknown {n}": 1 for n in range(150)} | {"dog": 20})
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    data = build_tfrecords.build(
        str(tmp_path / "photos"), str(tmp_path / "data"), labels_file=str(tmp_path / "labels.txt")
    )
    assert len(data.rejected_reasons) == 150
    page = (tmp_path / "data" / "statistics.html").read_text()
    assert "The 100 most frequent reasons" in page
    assert page.count("is not in labels") == 200  # 100 reasons and 100 images


def test_messages_about_many_names_are_short(tmp_path, caplog):
    (tmp_path / "labels.txt").write_text("".join(f"{n}\n{n}\n" for n in range(10_000)))
    with pytest.raises(DataError, match="names a class twice") as error:
        manifest.read_labels(str(tmp_path / "labels.txt"))
    class_spellings.warn([Task("label", tuple("-" * n + "x" for n in range(3000)))])
    assert max(map(len, (str(error.value), caplog.text))) < 1000


def test_more_classes_than_a_model_can_have_are_refused(tmp_path, monkeypatch):
    (tmp_path / "labels.txt").write_text("\n".join(map(str, range(100_001))))
    with pytest.raises(DataError, match=r"too many classes\. Received: 100,001 in .*Expected: at most 100,000"):
        manifest.read_labels(str(tmp_path / "labels.txt"))
    monkeypatch.setattr(class_names, "MAX_CLASSES", 1000)  # 100,001 lines take seconds
    (tmp_path / "images.csv").write_text("".join(f"{number}.jpg,{number}\n" for number in range(1001)))
    with pytest.raises(DataError, match=r"images have too many classes of label\. Received: 1,001, such as 0, 1, "):
        build_tfrecords.build(str(tmp_path / "images.csv"), str(tmp_path / "data"))


BAD_NAMES = {
    "a\0b": "label has a control character",
    "a\x1b[31mb": "label has a control character",
    "a\x9bb": "label has a control character",
    "a\x7f": "label has a control character",
    "a\u2028b": "label has a line break",
    "x" * (MAX_CHARACTERS + 1): "label has more than 1,000 characters",
    "a" + "\u0301\u0316" * 50_000: "label has more than 1,000 characters",
}


@pytest.mark.parametrize(("name", "reason"), BAD_NAMES.items(), ids=range(len(BAD_NAMES)))
def test_a_name_that_no_class_can_have_is_rejected_by_every_way_in(tmp_path, name, reason):
    line = {"imageGcsUri": "1.jpg", "classificationAnnotation": {"displayName": name}}
    (tmp_path / "list.jsonl").write_text(json.dumps(line))
    found = list(sources.read_entries(sources.expand(str(tmp_path / "list.jsonl"))))
    assert [entry.reason for entry in found if isinstance(entry, Rejected)] == [reason]
    if "\u2028" not in name:  # a line break to a labels file, too
        (tmp_path / "labels.txt").write_text(f"cat\n{name}\n")
        with pytest.raises(DataError, match=f"no class name. Received: .*labels.txt, line 2: {reason}"):
            manifest.read_labels(str(tmp_path / "labels.txt"))
    data = manifest.Manifest((Task("label", ("cat", name)),), {})
    (tmp_path / "manifest.json").write_text(data.to_json())
    with pytest.raises(DataError, match=reason):
        manifest.read(str(tmp_path))


def test_tabs_and_marks_of_direction_are_part_of_a_name():
    for name in ("n01440764\ttench", "a\u202eb", "\u0645\u06cc\u200c\u062e"):
        assert class_names.fault(class_names.canonical(name)) is None


def test_a_record_whose_class_name_none_can_have_is_named(tmp_path):
    path = records.write(tmp_path / "a.tfrecord", [records.slim(0, "cat"), records.slim(1, "d\x1b[2Jog")])
    with pytest.raises(DataError, match=r"text is no class name: label has a control character: .*record 1, counted"):
        build_tfrecords.build(path, str(tmp_path / "data"), eval_metadata=path)


def test_the_time_to_name_classes_that_records_name_twice_is_linear():
    def refuse(count: int) -> None:
        texts = {number: f"class {number // 2}" for number in range(count)}
        values = LabelValues(dict.fromkeys(map(float, range(count)), 1), texts)
        stored, labels = StoredImages({"jpeg": count}, 1, 1), {"image/class/label": values}
        file = Contents("/a", count, 1, 1, "", "", "slim", "image/encoded", stored, False, labels, ())
        with pytest.raises(DataError, match="two classes the same name"):
            record_tasks.tasks_of([file], None, (), allow_missing=False)

    assert growth(refuse, 10_000) < 8


def test_images_of_a_class_whose_name_has_control_characters_are_rejected_with_the_reason(tmp_path):
    pictures(tmp_path / "photos", {"cat": 10, "dog": 10, "\x1b[2J": 1})
    data = build_tfrecords.build(str(tmp_path / "photos"), str(tmp_path / "data"))
    assert data.rejected_reasons == {"label has a control character": 1}


@pytest.mark.parametrize("content", [DEEP, '{"a":' * 100_000, "[]", "null", '"x"', "{", "\udcff", "1" * 10_000])
def test_json_that_is_nested_too_deeply_or_none_is_one_paragraph_wherever_it_is_read(tmp_path, content):
    def write(name: str) -> None:
        (tmp_path / name).write_text(content, errors="surrogateescape")

    readers: dict[str, Callable[[str], object]] = {
        "manifest.json": manifest.read,
        "champion.json": champion.in_service,
        "metrics.json": gate.read_metrics,
    }
    for name, read in readers.items():
        write(name)
        with pytest.raises(DataError, match=rf"{name} cannot be read\. Received: .* Expected: ") as error:
            read(str(tmp_path))
        assert len(str(error.value)) < 1000


def test_pipes_and_devices_are_refused_wherever_a_file_is_named(tmp_path):
    for name in ("labels.txt", "images.csv", "images.jsonl", "shard.tfrecord", "manifest.json"):
        os.mkfifo(tmp_path / name)
    for name in ("images.csv", "images.jsonl", "shard.tfrecord"):
        with pytest.raises(UserError, match="pipe"):
            build_tfrecords.build(str(tmp_path / name), str(tmp_path / "data"), eval_metadata=str(tmp_path / name))
    with pytest.raises(DataError, match=r"leads to a pipe or a device\. Received: .*labels\.txt"):
        manifest.read_labels(str(tmp_path / "labels.txt"))
    with pytest.raises(DataError, match="pipe or a device"):
        manifest.read(str(tmp_path))
    with pytest.raises(DataError, match="pipe or a device"):
        manifest.read_labels("/dev/zero")


def test_a_flag_that_lists_thousands_of_paths_takes_few_look_ups_for_each(tmp_path, monkeypatch):
    looked_up = []
    monkeypatch.setattr(storage, "exists", lambda path: looked_up.append(path) or os.path.exists(path))
    monkeypatch.setattr(storage, "is_dir", lambda path: looked_up.append(path) or os.path.isdir(path))
    (tmp_path / "a, b").mkdir()
    (tmp_path / "a, b" / "1, 2.tfrecord").write_text("")
    monkeypatch.chdir(tmp_path)
    for name in ("shards/{:05}.tfrecord", "{:05}.tfrecord", "../{:05}/x.tfrecord"):
        paths = [name.format(number) for number in range(2000)]
        looked_up.clear()
        assert path_list.split_metadata(",".join(paths)) == paths
        assert len(looked_up) < 200 * len(paths)
        assert path_list.split_metadata(f"{paths[0]}, a, b/1, 2.tfrecord,{paths[1]}") == [
            paths[0],
            "a, b/1, 2.tfrecord",
            paths[1],
        ]


def test_a_nul_in_the_name_of_a_file_is_a_file_that_does_not_exist(tmp_path):
    with pytest.raises(FlagError, match="labels file does not exist"):
        manifest.read_labels(f"{tmp_path}/a\0b")
    shard = manifest.Shard("a\0b.tfrecord", 1, 1, "00000000")
    data = manifest.Manifest((Task("label", ("a", "b")),), dict.fromkeys(("train", "eval"), manifest.Split((shard,))))
    (tmp_path / "built").mkdir()
    data.write(str(tmp_path / "built"))
    with pytest.raises(UserError, match=r"missing|does not exist"):
        build_tfrecords.build(str(tmp_path / "built"), str(tmp_path / "data"))


def test_a_sparse_file_of_a_terabyte_is_refused_not_read(tmp_path):
    for name in ("labels.txt", "images.csv", "manifest.json"):
        with open(tmp_path / name, "wb") as file:
            file.truncate(2**40)
    with pytest.raises(DataError, match="too large"):
        manifest.read_labels(str(tmp_path / "labels.txt"))
    with pytest.raises(DataError, match="too large"):
        manifest.read(str(tmp_path))
    with pytest.raises(UserError, match=r"too large|NUL bytes|longer than"):
        build_tfrecords.build(str(tmp_path / "images.csv"), str(tmp_path / "data"))


def test_a_line_of_megabytes_is_refused(tmp_path):
    (tmp_path / "images.csv").write_text("a.jpg,cat\n" + "x" * 2**21)
    with pytest.raises(DataError, match=r"line that is longer than .*Received: .*images\.csv, line 2"):
        list(sources.read_entries(sources.expand(str(tmp_path / "images.csv"))))


def test_a_header_of_a_hundred_thousand_columns_is_refused_in_few_words(tmp_path):
    columns = [f"c{number}" for number in range(100_000)]
    (tmp_path / "images.csv").write_text(f"path,{','.join(columns)}\n1.jpg{',1' * 100_000}\n")
    with pytest.raises(DataError, match=r"too many label columns.* Received: 100,000 in .*Expected: at most 100"):
        build_tfrecords.build(str(tmp_path / "images.csv"), str(tmp_path / "data"))
    (tmp_path / "images.csv").write_text(",".join(columns))
    with pytest.raises(DataError) as error:
        build_tfrecords.build(str(tmp_path / "images.csv"), str(tmp_path / "data"))
    assert len(str(error.value)) < 10_000


def test_a_folder_of_forking_links_ends_and_every_folder_left_out_is_rejected_and_counted(tmp_path, caplog):
    for number in range(60):  # more than the 40 links that the system follows in a path, too
        (tmp_path / "photos" / "cat" / f"{number:02}").mkdir(parents=True)
        (tmp_path / "photos" / "dog" / f"{number:02}").mkdir(parents=True)
    for number in range(59):
        for link in ("a", "b"):
            (tmp_path / "photos" / "cat" / f"{number:02}" / link).symlink_to(f"../{number + 1:02}")
    (tmp_path / "photos" / "dog" / "up").symlink_to("../..")
    for name in ("cat/59", "dog/01"):
        (tmp_path / "photos" / name / "1.jpg").write_text("")
    found = list(sources.read_entries(sources.expand(str(tmp_path / "photos"))))
    reasons = [entry.reason for entry in found if isinstance(entry, Rejected)]
    assert set(reasons) == {"link to a folder above it, or to one that is reached by another link"}
    assert len(found) < 250
    assert {Path(entry.path).name for entry in found if isinstance(entry, Entry)} >= {"1.jpg"}
    assert f"{len(reasons)} left out: link to a folder above it" in caplog.text


def test_the_hint_of_a_folder_around_the_classes_is_found_below_1010_folders(tmp_path):
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1010):
        os.mkdir("d", dir_fd=here)
        here, outer = os.open("d", os.O_RDONLY, dir_fd=here), here
        os.close(outer)
    os.close(os.open("1.jpg", os.O_CREAT, dir_fd=here))
    os.close(here)
    try:
        assert folder_layout.inner_folder(str(tmp_path)) == str(tmp_path) + "/d" * 1009
    finally:
        os.system(f"rm -rf {tmp_path}/d")  # noqa: S605 - what pytest could not remove
