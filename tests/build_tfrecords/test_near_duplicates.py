"""Near duplicates within and across the splits, in manifest.json, on the page, and as a limit."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance

from tests.build_tfrecords.support import command
from tf_image_classification import build_tfrecords
from tf_image_classification.build_tfrecords import near_duplicates, prepare
from tf_image_classification.build_tfrecords.near_duplicates import DuplicateIndex, Picture
from tf_image_classification.build_tfrecords.signature import Look, hashes_of, of_all, scaled_picture
from tf_image_classification.data import manifest
from tf_image_classification.errors import DataError, FlagError

NO_DUPLICATES = manifest.Duplicates()


def scene(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """A picture with the detail of a photograph: blots of all sizes and colours, which depend on the seed."""
    generator = random.Random(seed)
    picture = Image.new("RGB", size, tuple(generator.choices(range(256), k=3)))
    draw = ImageDraw.Draw(picture)
    for _ in range(120):
        x, y, radius = generator.randrange(size[0]), generator.randrange(size[1]), generator.randrange(8, 60)
        colour = tuple(generator.choices(range(256), k=3))
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    return picture


def scenes(root: Path, counts: dict[str, int], first: int = 0) -> Path:
    """A folder with so many scenes of each class, all different."""
    seeds = itertools.count(first)
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for seed in itertools.islice(seeds, count):
            scene(seed).save(root / name / f"{seed}.jpg", quality=90)
    return root


def cropped(picture: Image.Image, share: float) -> Image.Image:
    width, height = picture.size
    return picture.crop((int(width * share), int(height * share), int(width * (1 - share)), int(height * (1 - share))))


COPIES: dict[str, Callable[[Image.Image, Path], None]] = {
    "encoded again": lambda picture, path: picture.save(path.with_suffix(".jpg"), quality=40),
    "half the size": lambda picture, path: picture.resize((160, 120)).save(path.with_suffix(".jpg"), quality=85),
    "a fifth of the size": lambda picture, path: picture.resize((64, 64)).save(path.with_suffix(".jpg"), quality=90),
    "squeezed": lambda picture, path: picture.resize((224, 224)).save(path.with_suffix(".jpg"), quality=85),
    "cropped": lambda picture, path: cropped(picture, 0.01).save(path.with_suffix(".jpg"), quality=90),
    "brighter": lambda picture, path: ImageEnhance.Brightness(picture).enhance(1.15).save(path.with_suffix(".jpg")),
    "darker": lambda picture, path: ImageEnhance.Brightness(picture).enhance(0.75).save(path.with_suffix(".jpg")),
    "PNG": lambda picture, path: picture.save(path.with_suffix(".png")),
    "lossless WebP": lambda picture, path: picture.save(path.with_suffix(".webp"), lossless=True),
    "grey": lambda picture, path: picture.convert("L").save(path.with_suffix(".jpg")),
    "palette GIF": lambda picture, path: picture.save(path.with_suffix(".gif")),
}


@pytest.mark.parametrize("kind", COPIES)
def test_a_changed_copy_in_the_evaluation_split_is_found(kind, tmp_path):
    train = scenes(tmp_path / "train", {"cat": 5, "dog": 5})
    evaluation = scenes(tmp_path / "eval", {"cat": 2, "dog": 2}, first=20)
    COPIES[kind](scene(3), evaluation / "cat" / "copy")
    data = build_tfrecords.build(str(train), str(tmp_path / "data"), eval_metadata=str(evaluation))
    assert data.quality.near_duplicates == manifest.Duplicates(across_splits=1)
    assert data.quality.identical == NO_DUPLICATES


def test_identical_copies_are_counted_by_image_and_a_copy_under_another_label_is_named(tmp_path):
    train = scenes(tmp_path / "train", {"cat": 5, "dog": 5})
    content = (train / "cat" / "0.jpg").read_bytes()
    for copy in ("copy.jpg", "copy of copy.jpg"):
        (train / "cat" / copy).write_bytes(content)
    (train / "dog" / "copy.jpg").write_bytes(content)
    evaluation = scenes(tmp_path / "eval", {"cat": 2, "dog": 2}, first=20)
    (evaluation / "dog" / "copy.jpg").write_bytes(content)
    data = build_tfrecords.build(str(train), str(tmp_path / "data"), eval_metadata=str(evaluation))
    expected = manifest.Duplicates(train=4, eval=0, across_splits=1, other_labels=5)
    assert data.quality.near_duplicates == data.quality.identical == expected
    page = (tmp_path / "data" / "statistics.html").read_text()
    assert "cat/0.jpg" in page and "different labels" in page and "dog/copy.jpg" in page
    assert manifest.read(str(tmp_path / "data")).quality == data.quality


def test_different_pictures_are_no_duplicates(tmp_path):
    train = scenes(tmp_path / "photos", {"cat": 60, "dog": 60})
    data = build_tfrecords.build(str(train), str(tmp_path / "data"))
    assert data.quality.near_duplicates == NO_DUPLICATES


def _digit(text: str, shift: int) -> Image.Image:
    picture = Image.new("L", (28, 28))
    ImageDraw.Draw(picture).text((8 + shift, 4), text, fill=255, font_size=20)
    return picture


def _disc(colour: object, radius: int) -> Image.Image:
    picture = Image.new("RGB", (300, 300), "white")
    ImageDraw.Draw(picture).ellipse((150 - radius, 150 - radius, 150 + radius, 150 + radius), fill=colour)
    return picture


def _gradient(start: int, stop: int) -> Image.Image:
    return Image.linear_gradient("L").point(lambda value: start + value * (stop - start) // 255)


@pytest.mark.parametrize(
    "pictures",
    [
        pytest.param([Image.new("RGB", (200, 200), (value, 0, 0)) for value in range(40)], id="uniform"),
        pytest.param([_digit(text, shift) for text in "0123456789" for shift in (0, 2)], id="digits"),
        pytest.param([_disc(colour, 60) for colour in ("red", "green", "blue", "black", "grey")], id="colours"),
        pytest.param([_disc("red", radius) for radius in range(40, 140, 12)], id="sizes"),
        pytest.param([_gradient(start, start + 90) for start in range(0, 160, 30)], id="gradients"),
    ],
)
def test_pictures_that_are_alike_but_different_are_no_duplicates(pictures, tmp_path):
    for number, picture in enumerate(pictures):
        folder = tmp_path / "photos" / ("even", "odd")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        picture.save(folder / f"{number:02}.png")
    data = build_tfrecords.build(str(tmp_path / "photos"), str(tmp_path / "data"), eval_metadata=None)
    assert data.quality.near_duplicates == NO_DUPLICATES


def test_the_search_does_not_depend_on_the_number_of_workers(tmp_path):
    train = scenes(tmp_path / "train", {"cat": 130, "dog": 130})
    for number in range(0, 130, 5):
        COPIES["encoded again"](scene(number), train / "cat" / f"copy {number}")
    for workers in (1, 3):
        build_tfrecords.build(str(train), str(tmp_path / str(workers)), workers=workers)
    one, three = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in "13")
    assert one == three
    near = manifest.read(str(tmp_path / "1")).quality.near_duplicates
    assert near.train // 2 + near.eval // 2 + near.across_splits == 26


def test_planted_duplicates_are_found_among_many_pictures():
    generator = random.Random(1)
    index = DuplicateIndex()

    def look(values: list[int]) -> Look:
        signature = bytes(max(0, min(255, value)) for value in values) + bytes([128]) * 128  # grey
        return Look(len(index_rows).to_bytes(8), False, signature)

    index_rows: list[tuple[Picture, Look]] = []
    for number in range(20_000):
        coarse = Image.frombytes("L", (5, 5), generator.randbytes(25))
        values = list(coarse.resize((16, 16), Image.Resampling.BICUBIC).tobytes())
        index_rows.append((Picture(f"{number}", f"{number}", "train", ("a",)), look(values)))
        if number % 400 == 0:
            noisy = [value + generator.randrange(-4, 5) for value in values]
            index_rows.append((Picture(f"{number} copy", f"{number} copy", "eval", ("a",)), look(noisy)))
    index.add(index_rows)
    near, identical = index.find()
    pairs = index.pairs(near_duplicates.ACROSS_SPLITS, 100)
    index.close()
    assert near == manifest.Duplicates(across_splits=50)
    assert identical == NO_DUPLICATES
    assert all(pair.second.filename == f"{pair.first.filename} copy" for pair in pairs)


@pytest.fixture(scope="module")
def leaking(tmp_path_factory) -> tuple[Path, Path]:
    """Training and evaluation folders; two evaluation images are in training too."""
    root = tmp_path_factory.mktemp("leaking")
    train, evaluation = scenes(root / "train", {"cat": 5, "dog": 5}), scenes(root / "eval", {"cat": 2, "dog": 2}, 20)
    for number in (1, 7):
        COPIES["encoded again"](scene(number), evaluation / "cat" / f"copy {number}")
    return train, evaluation


def test_more_duplicates_across_splits_than_allowed_are_an_error_that_names_them(leaking, tmp_path):
    train, evaluation = map(str, leaking)
    output = tmp_path / "data"
    with pytest.raises(DataError, match=r"2 images, such as cat/copy .*at most 1 .*--max_duplicates_across_splits"):
        build_tfrecords.build(train, str(output), eval_metadata=evaluation, max_duplicates_across_splits=1)
    assert not output.exists()
    build_tfrecords.build(train, str(output), eval_metadata=evaluation, max_duplicates_across_splits=2)
    assert output.exists()


def test_a_training_obeys_the_limit_on_data_that_it_built_before(leaking, tmp_path):
    train, evaluation = map(str, leaking)
    prepare.prepare_training(train, str(tmp_path / "data"), eval_metadata=evaluation)
    with pytest.raises(DataError, match="near duplicates of training images"):
        prepare.prepare_training(
            train, str(tmp_path / "data"), eval_metadata=evaluation, max_duplicates_across_splits=0
        )


def test_the_limit_is_refused_for_tfrecords(leaking, tmp_path):
    train, evaluation = map(str, leaking)
    build_tfrecords.build(train, str(tmp_path / "data"), eval_metadata=evaluation)
    with pytest.raises(FlagError, match="does not compare images in TFRecords"):
        build_tfrecords.build(str(tmp_path / "data"), str(tmp_path / "again"), max_duplicates_across_splits=0)


def test_small_classes_and_small_images_are_in_the_manifest(tmp_path):
    train = scenes(tmp_path / "train", {"cat": 25, "dog": 3})
    scene(90, (100, 60)).save(train / "dog" / "small.png")
    data = build_tfrecords.build(str(train), str(tmp_path / "data"), eval_metadata=str(train))
    content = json.loads((tmp_path / "data" / "manifest.json").read_text())["quality"]
    assert content["classes_below"] == 20
    assert content["small_classes"] == {"label": {"dog": 4}} == data.quality.small_classes
    assert content["shorter_side_below"] == {"32": 0, "75": 2, "128": 2, "224": 2, "299": 58}


def test_names_of_duplicates_are_escaped_on_the_page(tmp_path):
    root = scenes(tmp_path / "photos", {"<b>cat": 3, "dog": 3})
    (root / "<b>cat" / "<i>.jpg").write_bytes((root / "<b>cat" / "0.jpg").read_bytes())
    build_tfrecords.build(str(root), str(tmp_path / "data"), eval_metadata=str(root))
    page = (tmp_path / "data" / "statistics.html").read_text()
    assert "&lt;i&gt;.jpg" in page and "<i>" not in page and "<b>cat" not in page


def test_uniform_pictures_have_no_hash():
    picture = Image.new("RGB", (50, 50), "teal")
    (signature,) = of_all([scaled_picture(picture)])
    assert not hashes_of(np.frombuffer(signature, np.uint8)[None]).any()


def test_check_does_all_but_write_the_data_set(leaking, tmp_path):
    train, evaluation = leaking
    built, checked = tmp_path / "built", tmp_path / "checked"
    given = ("--train_metadata", train, "--eval_metadata", evaluation)
    assert command(*given, "--output_dir", built).returncode == 0
    finished = command(*given, "--check", "--output_dir", checked)
    assert (finished.returncode, finished.stdout) == (0, f"{checked}\n")
    assert sorted(path.name for path in checked.iterdir()) == ["check.json", "rejected.csv", "statistics.html"]
    assert (checked / "rejected.csv").read_bytes() == (built / "rejected.csv").read_bytes()
    expected, found = (json.loads(path.read_text()) for path in (built / "manifest.json", checked / "check.json"))
    for split in expected["splits"].values():
        del split["shards"]
    assert found == expected
    assert "No shards were written" in (checked / "statistics.html").read_text()
    again = command(*given, "--check", "--output_dir", checked)
    assert again.returncode == 0


def test_check_without_an_output_folder_prints_a_summary_and_writes_nothing(leaking, tmp_path):
    train, evaluation = leaking
    finished = command("--train_metadata", train, "--eval_metadata", evaluation, "--check", cwd=tmp_path)
    assert (finished.returncode, finished.stdout) == (0, "")
    assert "Checked 10 train and 6 eval examples" in finished.stderr
    assert "2 evaluation images are near duplicates of training images" in finished.stderr
    assert "2 classes of label have fewer than 20 training images: cat, dog" in finished.stderr
    assert list(tmp_path.iterdir()) == []


def test_check_fails_where_the_build_would_and_still_leaves_its_report(leaking, tmp_path):
    train, evaluation = leaking
    given = ("--train_metadata", train, "--eval_metadata", evaluation, "--max_duplicates_across_splits", 0)
    checked = command(*given, "--check", "--output_dir", tmp_path / "checked")
    built = command(*given, "--output_dir", tmp_path / "built")
    assert checked.returncode == built.returncode == 1
    assert checked.stderr.splitlines()[-1] == built.stderr.splitlines()[-1]
    assert "copy 7.jpg" in (tmp_path / "checked" / "statistics.html").read_text()


def test_check_never_replaces_a_data_set(leaking, tmp_path):
    train, evaluation = leaking
    given = ("--train_metadata", train, "--eval_metadata", evaluation, "--output_dir", tmp_path / "data")
    assert command(*given).returncode == 0
    refused = command(*given, "--check")
    assert refused.returncode == 2
    assert "has other content" in refused.stderr
    assert (tmp_path / "data" / "manifest.json").exists()


def test_a_build_asks_for_its_output_folder(leaking):
    refused = command("--train_metadata", leaking[0])
    assert refused.returncode == 2
    assert "--output_dir is required" in refused.stderr
