"""What cannot be built, and its error."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.build_tfrecords.support import command, pictures
from tf_image_classification import build_tfrecords
from tf_image_classification.data import sources
from tf_image_classification.data.sources import ReadOptions
from tf_image_classification.errors import DataError, FlagError, UserError


@pytest.mark.parametrize(
    ("classes", "options", "problem"),
    [
        ({"cat": 40}, {}, "single class"),
        (
            {"cat": 3, "dog": 3},
            {"eval_fraction": 0.001},
            "No image falls into the evaluation split.*Raise --eval_fraction",
        ),
        (
            {"cat": 40, "dog": 40, "owl": 1},
            {"eval_fraction": 0.9999},
            "classes have no training image.*owl|No training image",
        ),
    ],
)
def test_data_that_nothing_can_be_learned_from_is_an_error_with_the_reason(tmp_path, classes, options, problem):
    root = pictures(tmp_path / "photos", classes)
    with pytest.raises(DataError, match=problem):
        build_tfrecords.build(str(root), str(tmp_path / "data"), **options)
    assert sorted(os.listdir(tmp_path)) == ["photos"]


def test_a_class_that_loses_its_last_training_image_to_damage_is_an_error(tmp_path):
    root = pictures(tmp_path / "photos", {"cat": 10, "dog": 10})
    for path in (root / "dog").iterdir():
        path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError, match=r"1 of 2 classes have no training image\. Received: dog"):
        build_tfrecords.build(
            str(root), str(tmp_path / "data"), eval_metadata=str(pictures(tmp_path / "eval", {"cat": 2, "dog": 2}))
        )
    assert not (tmp_path / "data").exists()


def test_when_nothing_is_left_the_error_names_the_most_frequent_reasons(tmp_path):
    (tmp_path / "images.csv").write_text("a.jpg,cat\nb.jpg,dog\n../c.jpg,dog\n")
    with pytest.raises(DataError, match=r"2 x file not found \(.*/a.jpg\); 1 x outside --image_root .* \(../c.jpg\)"):
        build_tfrecords.build(
            str(tmp_path / "images.csv"), str(tmp_path / "data"), eval_metadata=str(tmp_path / "images.csv")
        )


@pytest.mark.parametrize("output_dir", ["photos", "photos/cat/out", "holds-something"])
def test_no_folder_is_replaced_but_a_data_set(tmp_path, output_dir):
    root = pictures(tmp_path / "photos", {"cat": 3, "dog": 3})
    (tmp_path / "holds-something").mkdir()
    (tmp_path / "holds-something" / "thesis.txt").write_text("years of work")
    with pytest.raises(FlagError, match=r"has other content|is inside the data"):
        build_tfrecords.build(str(root), str(tmp_path / output_dir))
    assert (tmp_path / "holds-something" / "thesis.txt").exists()
    assert len(list(root.glob("*/*.png"))) == 6


def test_a_data_set_is_not_built_over_the_shards_that_it_would_list(many, tmp_path):
    built = str(tmp_path / "data")
    build_tfrecords.build(str(many), built)
    with pytest.raises(FlagError, match="would replace"):
        build_tfrecords.build(built, built)


def test_a_class_whose_only_images_are_held_out_is_an_error_not_unknown(tmp_path):
    root = pictures(tmp_path / "photos", {"cat": 20, "dog": 20})
    (root / "zebra").mkdir()
    held_out = next(f"{number}.png" for number in range(100) if sources.split_of(f"zebra/{number}.png", 0.2) == "eval")
    shutil.copyfile(next((root / "cat").iterdir()), root / "zebra" / held_out)
    with pytest.raises(DataError, match=r"1 of 3 classes have no training image\. Received: zebra"):
        build_tfrecords.build(str(root), str(tmp_path / "data"))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--output_dir", "out"], 2, "--train_metadata is required"),
        (["--train_metadata", "nothing*", "--output_dir", "out"], 2, "nothing*"),
        (
            ["--train_metadata", "nothing.csv", "--output_dir", "out"],
            2,
            "The CSV does not exist. Received: nothing.csv",
        ),
        (["--train_metadata", "photos", "--output_dir", "/proc/out"], 2, "Cannot write to /proc/out"),
        (
            ["--train_metadata", "photos", "--output_dir", "out", "--labels_file", "none.txt"],
            2,
            "The labels file does not exist",
        ),
        (["--train_metadata", "photos", "--output_dir", "out", "--eval_fraction", "1"], 2, "--eval_fraction"),
        (["--train_metadata", "one-class", "--output_dir", "out"], 1, "single class"),
    ],
)
def test_a_wrong_call_gives_one_clear_paragraph(tmp_path, arguments, code, words):
    pictures(tmp_path / "photos", {"cat": 20, "dog": 20})
    pictures(tmp_path / "one-class", {"cat": 20})
    repository = Path(__file__).parents[2]
    done = command(*arguments, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(repository)})
    assert done.returncode == code
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_disk_that_fails_stops_the_build_instead_of_losing_images(tmp_path):
    root = pictures(tmp_path / "photos", {"cat": 20, "dog": 20})
    (tmp_path / "images.csv").write_text("/proc/self/mem,cat\n")  # reading it from its start is an input/output error
    with pytest.raises(
        UserError, match=r"The disk or the network failed while an image was read\. Received: .*Input/output error"
    ):
        build_tfrecords.build(
            f"{root},{tmp_path}/images.csv",
            str(tmp_path / "data"),
            eval_metadata=str(root),
            options=ReadOptions(image_root=f"{root},/proc"),
        )
    assert not (tmp_path / "data").exists()


def test_a_full_disk_is_a_clear_error_and_leaves_nothing(tmp_path):
    import resource

    root = pictures(tmp_path / "photos", {"cat": 300, "dog": 300})

    def limit() -> None:  # writing beyond it fails, as it does on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    done = command("--train_metadata", root, "--output_dir", tmp_path / "data", preexec_fn=limit)
    assert done.returncode == 1
    assert done.stderr.count("error:") == 1
    assert "Traceback" not in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["photos"]
