"""One class has one name, whichever Unicode form it is written in."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.build_tfrecords.support import pictures
from tf_image_classification import build_tfrecords, storage
from tf_image_classification.data import class_names, manifest, sources, tfrecord
from tf_image_classification.data.sources import Entry
from tf_image_classification.errors import DataError

NFC, NFD = "café", "cafe\u0301"


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        (NFD, NFC),
        ("\u1112\u1161\u11ab", "\ud55c"),  # Hangul, as macOS writes it
        ("\u212b", "Å"),
        ("\ufeff cat\u00a0\u200b", "cat"),
        ("black  cat", "black  cat"),
        ("\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u200c\u062e"),  # a joiner belongs to the word
        ("❤\ufe0f", "❤\ufe0f"),
        ("ﬁg", "ﬁg"),  # only what Unicode calls the same text
        ("caf\udce9", "caf\udce9"),
        ("\u200b", ""),
    ],
)
def test_a_name_has_one_form(name, canonical):
    assert class_names.canonical(name) == canonical == class_names.canonical(canonical)


def test_folders_lists_labels_files_and_records_in_either_form_are_one_class(tmp_path, caplog):
    pictures(tmp_path / "photos", {NFC: 20, NFD: 20, "tea": 20})
    (tmp_path / "eval.csv").write_text(f"photos/{NFD}/0000.png,{NFD}\nphotos/tea/0000.png,tea\n")
    (tmp_path / "labels.txt").write_text(f"tea\n{NFD}\n")
    photos, table, labels = (str(tmp_path / name) for name in ("photos", "eval.csv", "labels.txt"))
    data = build_tfrecords.build(photos, str(tmp_path / "data"), eval_metadata=table, labels_file=labels)
    assert data.tasks[0].labels == ("tea", NFC)
    assert data.splits["train"].class_counts == {"label": {"tea": 20, NFC: 40}}
    assert data.splits["eval"].class_counts == {"label": {"tea": 1, NFC: 1}}
    assert "each of these classes has several folders, whose names differ in their Unicode form" in caplog.text
    again = build_tfrecords.build(
        data.shard_paths("train")[0],
        str(tmp_path / "more"),
        eval_metadata=data.shard_paths("eval")[0],
        labels_file=labels,
    )
    assert again.tasks == data.tasks


def test_the_texts_of_tfrecords_in_either_form_are_one_class(tmp_path):
    pictures(tmp_path / "photos", {NFC: 3, "tea": 3})
    data = build_tfrecords.build(
        str(tmp_path / "photos"), str(tmp_path / "data"), eval_metadata=str(tmp_path / "photos")
    )
    records = [tfrecord.parse_example(record) for record in tfrecord.read(data.shard_paths("train")[0])]
    for number, record in enumerate(records):
        text = record["image/class/text"][0].decode()
        record["image/class/text"] = [(text if number % 2 else text.replace(NFC, NFD)).encode()]
    path = tmp_path / "mixed.tfrecord"
    encoded = [tfrecord.encode_example({name: values[0] for name, values in record.items()}) for record in records]
    path.write_bytes(b"".join(map(tfrecord.frame, encoded)))
    mixed = build_tfrecords.build(str(path), str(tmp_path / "more"), eval_metadata=str(path))
    assert mixed.tasks[0].labels == (NFC, "tea")


def test_a_data_set_of_an_earlier_version_has_its_names_in_the_form_of_today(tmp_path):
    data = build_tfrecords.build(str(pictures(tmp_path / "photos", {NFC: 20, "tea": 20})), str(tmp_path / "data"))
    path = tmp_path / "data" / "manifest.json"
    content = json.loads(path.read_text().replace(NFC, NFD)) | {"quality": None}  # which it did not know
    path.write_text(json.dumps(content, ensure_ascii=False))
    assert manifest.read(str(tmp_path / "data")) == replace(data, quality=None)
    content = json.loads(path.read_text())
    content["tasks"][0]["labels"] = [NFC, NFD]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"two Unicode forms.*Build the data set again"):
        manifest.read(str(tmp_path / "data"))


def test_a_labels_file_with_both_forms_names_a_class_twice(tmp_path):
    (tmp_path / "labels.txt").write_text(f"{NFC}\n{NFD}\n")
    with pytest.raises(DataError, match="names a class twice"):
        manifest.read_labels(str(tmp_path / "labels.txt"))


def test_the_split_of_an_image_follows_its_name_as_the_source_gives_it(tmp_path):
    pictures(tmp_path / "photos", {NFD: 1, "tea": 1})
    found = {
        entry for entry in sources.read_entries(sources.expand(str(tmp_path / "photos"))) if isinstance(entry, Entry)
    }
    assert {(entry.filename, entry.labels) for entry in found} == {
        (f"{NFD}/0000.png", (NFC,)),
        ("tea/0000.png", ("tea",)),
    }


def test_characters_that_cannot_be_seen_are_announced(caplog):
    names = ("cat", "ca\u200bt", "black\u00a0cat", "plain name", "\u0645\u06cc\u200c\u062e", "do\u200dg", "dog")
    class_names.announce_unseen("label", names)
    assert r"'ca\u200bt', 'black\xa0cat', 'do\u200dg'" in caplog.text
    assert "plain" not in caplog.text
    assert r"\u200c" not in caplog.text


def test_an_image_is_read_in_the_other_unicode_form_of_its_path(tmp_path):
    pictures(tmp_path / "photos", {NFD: 20, "tea": 20})
    lines = [f"photos/{label}/{number:04}.png,{label}" for label in (NFC, "tea") for number in range(21)]
    (tmp_path / "images.csv").write_text("\n".join(lines))
    data = build_tfrecords.build(str(tmp_path / "images.csv"), str(tmp_path / "data"))
    assert sum(split.examples for split in data.splits.values()) == 40
    assert data.rejected_reasons == {"file not found": 2}
    before = build_tfrecords.fingerprint(str(tmp_path / "images.csv"))
    (tmp_path / "photos" / NFD / "0000.png").write_bytes(b"changed")
    assert build_tfrecords.fingerprint(str(tmp_path / "images.csv")) != before


def test_metadata_is_found_in_the_other_unicode_form(tmp_path):
    pictures(tmp_path / NFD, {"cat": 1, "dog": 1})
    assert [source.path for source in sources.expand(str(tmp_path / NFC))] == [str(tmp_path / NFD)]
    assert not storage.exists(str(tmp_path / NFC))
