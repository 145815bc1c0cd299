from __future__ import annotations

import csv
import json
import os
import shutil

import pytest

from tests.build_tfrecords.support import command, digests, filenames, pictures
from tf_image_classification import build_tfrecords, command_line
from tf_image_classification.data import manifest, tfrecord
from tf_image_classification.data.manifest import Task
from tf_image_classification.data.sources import ReadOptions


def test_shards_are_byte_identical_whatever_the_number_of_workers(many, tmp_path):
    for workers in (1, 2, 3):
        build_tfrecords.build(str(many), str(tmp_path / str(workers)), workers=workers, shard_bytes=20_000)
    one, two, three = (digests(tmp_path / str(workers)) for workers in (1, 2, 3))
    assert one == two == three
    assert sum(name.startswith("train-") for name in one) > 1


def test_tensorflow_reads_the_shards_by_slims_feature_names(many, tmp_path):
    import tensorflow as tf

    data = build_tfrecords.build(str(many), str(tmp_path / "data"), shard_bytes=20_000)
    names = {
        "image/encoded": tf.string,
        "image/format": tf.string,
        "image/class/label": tf.int64,
        "image/class/text": tf.string,
        "image/height": tf.int64,
        "image/width": tf.int64,
        "image/filename": tf.string,
    }
    features = {name: tf.io.FixedLenFeature([], kind) for name, kind in names.items()}
    seen = []
    for split in ("train", "eval"):
        records = tf.data.TFRecordDataset(data.shard_paths(split)).batch(64)
        for batch in records.map(lambda serialised: tf.io.parse_example(serialised, features)).as_numpy_iterator():
            for index, name in enumerate(batch["image/filename"]):
                assert batch["image/encoded"][index] == (many / name.decode()).read_bytes()
                assert (
                    batch["image/class/text"][index]
                    == [b"cat", b"dog"][batch["image/class/label"][index]]
                    == name.split(b"/")[0]
                )
                assert (batch["image/height"][index], batch["image/width"][index]) == (8, 8)
                assert batch["image/format"][index] == b"png"
                seen.append(name.decode())
    assert sorted(seen) == sorted(path.relative_to(many).as_posix() for path in many.glob("*/*.png"))
    first = next(iter(tf.data.TFRecordDataset(data.shard_paths("train"))))
    assert set(tf.train.Example.FromString(first.numpy()).features.feature) == set(names)


def test_shards_are_named_counted_and_within_their_sizes(many, tmp_path):
    data = build_tfrecords.build(str(many), str(tmp_path / "data"), shard_bytes=20_000)
    shards = data.splits["train"].shards
    assert [shard.path for shard in shards] == [
        f"train-{index:05}-of-{len(shards):05}.tfrecord" for index in range(len(shards))
    ]
    for shard in shards:
        path = str(tmp_path / "data" / shard.path)
        assert 20_000 <= shard.bytes == os.path.getsize(path) < 40_000
        assert shard.crc32c == tfrecord.file_crc32c(path)
        assert shard.examples == sum(1 for _ in tfrecord.read(path))


def test_the_manifest_is_read_back_as_it_was_returned(many, tmp_path):
    data = build_tfrecords.build(str(many), str(tmp_path / "data"))
    assert manifest.read(str(tmp_path / "data")) == data
    assert data.fingerprint == build_tfrecords.fingerprint(str(many), eval_fraction=0.2)
    assert sorted(digests(tmp_path / "data")) == [
        "eval-00000-of-00001.tfrecord",
        "labels.txt",
        "manifest.json",
        "rejected.csv",
        "statistics.html",
        "train-00000-of-00001.tfrecord",
    ]
    assert (tmp_path / "data" / "labels.txt").read_text() == "cat\ndog\n"


def test_images_are_shuffled_over_the_classes(many, tmp_path):
    order = filenames(build_tfrecords.build(str(many), str(tmp_path / "data")), "train")
    assert 20 < sum(name.startswith("cat") for name in order[:60]) < 40


def test_adding_images_moves_none_to_the_other_split(tmp_path):
    root = pictures(tmp_path / "photos", {"cat": 40, "dog": 40})
    before = build_tfrecords.build(str(root), str(tmp_path / "before"))
    names_before = {split: set(filenames(before, split)) for split in before.splits}
    pictures(root, {"cat": 80, "dog": 60, "owl": 30})
    shutil.copytree(root, tmp_path / "elsewhere")
    for where in (root, tmp_path / "elsewhere"):
        after = build_tfrecords.build(str(where), str(tmp_path / "after"))
        assert all(names < set(filenames(after, split)) for split, names in names_before.items())


def test_eval_metadata_leaves_all_training_images_to_training(tmp_path):
    train, held_out = (
        pictures(tmp_path / "train", {"cat": 10, "dog": 10}),
        pictures(tmp_path / "eval", {"dog": 3, "owl": 2}),
    )
    data = build_tfrecords.build(str(train), str(tmp_path / "data"), eval_metadata=str(held_out))
    assert (data.splits["train"].examples, data.splits["eval"].examples) == (20, 3)
    assert data.rejected_reasons == {"label owl is not in labels": 2}
    assert data.splits["eval"].class_counts == {"label": {"cat": 0, "dog": 3}}


def test_images_in_both_splits_are_warned_of(tmp_path, caplog):
    root = str(pictures(tmp_path / "photos", {"cat": 3, "dog": 3}))
    build_tfrecords.build(root, str(tmp_path / "data"), eval_metadata=root)
    assert "6 images are in the training and in the evaluation metadata" in caplog.text


def test_several_label_columns_give_each_task_its_features_and_labels(tmp_path):
    root = pictures(tmp_path / "faces", {"x": 40})
    rows = [f"x/{number:04}.png,{number % 3},{'fm'[number % 2]}" for number in range(40)]
    (root / "faces.csv").write_text("path,age,gender\n" + "\n".join(rows))
    data = build_tfrecords.build(str(root / "faces.csv"), str(tmp_path / "data"))
    assert data.tasks == (
        Task("age", ("0", "1", "2"), "image/class/age/label"),
        Task("gender", ("f", "m"), "image/class/gender/label"),
    )
    assert (tmp_path / "data" / "labels.gender.txt").read_text() == "f\nm\n"
    record = tfrecord.parse_example(next(tfrecord.read(data.shard_paths("train")[0])))
    number = int(record["image/filename"][0][-8:-4])
    assert record["image/class/age/label"] == [number % 3]
    assert record["image/class/gender/text"] == [b"fm"[number % 2 : number % 2 + 1]]


def test_an_image_named_twice_is_kept_once_and_one_under_two_labels_is_left_out_and_named(tmp_path, caplog):
    root = pictures(tmp_path / "photos", {"cat": 30, "dog": 30})
    names = [f"{label}/{number:04}.png,{label}" for label in ("cat", "dog") for number in range(30)]
    (root / "images.csv").write_text("\n".join([*names, "cat/0001.png,cat", "cat/./0002.png,dog", "cat/0002.png,cat"]))
    data = build_tfrecords.build(str(root / "images.csv"), str(tmp_path / "data"))
    assert sum(split.images for split in data.splits.values()) == 63
    assert data.rejected_reasons == {
        "duplicate of an earlier entry": 2,
        "labelled cat before": 1,
        "labelled dog later": 1,
    }
    assert f"1 images are listed under two labels, and left out: {root}/cat/0002.png (cat and dog)" in caplog.text
    assert f"Rejected: 2 x duplicate of an earlier entry ({root}/cat/0001.png); 1 x labelled cat before" in caplog.text


def test_names_and_labels_of_any_language_and_of_none_are_kept(tmp_path):
    root = pictures(tmp_path / "photos", {"猫 & <b>": 30, "ünïcode": 30})
    odd = os.fsdecode(b"caf\xe9.png")
    shutil.copy(root / "ünïcode" / "0000.png", root / "ünïcode" / odd)
    (root / "ünïcode" / os.fsdecode(b"bad\xe9.png")).write_text("no image")
    data = build_tfrecords.build(str(root), str(tmp_path / "data"))
    names = [record for split in data.splits for path in data.shard_paths(split) for record in tfrecord.read(path)]
    assert b"caf\xe9.png" in b"".join(names)
    assert data.tasks[0].labels == ("ünïcode", "猫 & <b>")
    assert b"bad\xe9.png,not an image" in (tmp_path / "data" / "rejected.csv").read_bytes()
    assert "猫 &amp; &lt;b&gt;" in (tmp_path / "data" / "statistics.html").read_text()


def test_a_file_without_permission_is_rejected(tmp_path):
    root = pictures(tmp_path / "photos", {"cat": 20, "dog": 20})
    (root / "cat" / "0000.png").chmod(0)
    if os.access(root / "cat" / "0000.png", os.R_OK):
        pytest.skip("this user may read everything")
    data = build_tfrecords.build(str(root), str(tmp_path / "data"))
    assert data.rejected_reasons == {"permission denied": 1}


def test_pipes_folders_and_dangling_links_are_rejected_not_waited_for(tmp_path):
    root = pictures(tmp_path / "photos", {"cat": 20, "dog": 20})
    os.mkfifo(root / "cat" / "pipe.jpg")
    (root / "dog" / "gone.jpg").symlink_to("nowhere")
    (root / "more.csv").write_text(f"{root}/cat,cat\n/dev/zero,cat\n")
    options = ReadOptions(image_root=f"{root},/dev")
    data = build_tfrecords.build(f"{root},{root}/more.csv", str(tmp_path / "data"), options=options)
    assert data.rejected_reasons == {"not a file": 3, "file not found": 1, "not in a class folder": 1}


def test_an_evaluation_split_alone_takes_the_models_labels(tmp_path):
    root = pictures(tmp_path / "photos", {"dog": 5})
    data = build_tfrecords.build_eval(str(root), str(tmp_path / "data"), (Task("label", ("cat", "dog"), "class_id"),))
    assert list(data.splits) == ["eval"]
    assert data.tasks == (Task("label", ("cat", "dog"), "image/class/label"),)
    assert (data.splits["eval"].images, data.splits["eval"].rejected) == (5, 0)
    assert data.splits["eval"].class_counts == {"label": {"cat": 0, "dog": 5}}
    record = tfrecord.parse_example(next(tfrecord.read(data.shard_paths("eval")[0])))
    assert record["image/class/label"] == [1]


def test_class_names_that_look_numbered_are_kept_as_they_are(tmp_path):
    root = pictures(tmp_path / "photos", {"0:cat": 20, "1:dog": 20})
    built = build_tfrecords.build(str(root), str(tmp_path / "data"))
    assert built.tasks[0].labels == ("0:cat", "1:dog")
    assert manifest.read_labels(str(tmp_path / "data" / "labels.txt")) == ("0:cat", "1:dog")


def test_an_older_data_set_is_replaced_whole(tmp_path):
    root = pictures(tmp_path / "photos", {"cat": 20, "dog": 20})
    build_tfrecords.build(str(root), str(tmp_path / "data"), shard_bytes=500)
    build_tfrecords.build(str(root), str(tmp_path / "data"))
    assert sum(name.startswith("train-") for name in os.listdir(tmp_path / "data")) == 1
    assert sorted(os.listdir(tmp_path)) == ["data", "photos"]


def test_the_command_prints_its_folder_and_exits_with_0(tmp_path):
    root = pictures(tmp_path / "photos", {"cat": 20, "dog": 20})
    done = command("--train_metadata", root, "--output_dir", tmp_path / "data", "--eval_fraction", 0.3)
    assert (done.returncode, done.stdout.strip()) == (0, str(tmp_path / "data"))
    assert "0 images rejected" in done.stderr
    with open(tmp_path / "data" / "rejected.csv", newline="") as file:
        assert list(csv.reader(file)) == [["split", "path", "reason"]]
    assert json.loads((tmp_path / "data" / "manifest.json").read_text())["sources"] == {"train": str(root)}


def test_hostile_names_are_text_for_a_terminal(tmp_path, capsys):
    root = pictures(tmp_path / "photos", {"c\u2066at": 20, "f\u202eew": 2})
    (root / "c\u2066at" / "no\x9b2J.png").write_bytes(b"none")
    with command_line.reporting_errors():
        build_tfrecords.build(str(root), str(tmp_path / "data"))
    printed = capsys.readouterr().err
    assert "no\\x9b2J.png" in printed and "f\\u202eew" in printed
    assert {c for c in printed if not c.isprintable()} == {"\n"}
