"""--max_side: large images are reduced when they are built, and nothing else of a data set changes."""

from __future__ import annotations

import io
import json
import logging
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.build_tfrecords.image_files import encode, turned_jpeg
from tests.build_tfrecords.image_kinds import KINDS, Kind
from tests.build_tfrecords.support import digests, filenames, pictures
from tests.build_tfrecords.test_near_duplicates import scene, scenes
from tf_image_classification import build_tfrecords
from tf_image_classification.build_tfrecords import images, prepare
from tf_image_classification.data import manifest
from tf_image_classification.data.sources import ReadOptions
from tf_image_classification.errors import FlagError
from tf_image_classification.flags import Flags
from tf_image_classification.training import flag_checks

LARGE_KINDS = [kind for kind in KINDS if kind.expected and kind.file not in ("tiny.png", "large.jpg")]


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Scenes of 320 x 240, one of them twice with other metadata, one again in half the size, and a small one."""
    root = scenes(tmp_path_factory.mktemp("large") / "photos", {"cat": 16, "dog": 16})
    scene(3).save(root / "dog" / "copy.jpg", quality=90)
    scene(4).save(root / "dog" / "commented.jpg", quality=90, comment=b"the same pixels as cat/4.jpg")
    scene(5).resize((160, 120)).save(root / "dog" / "half.png")
    scene(99).resize((50, 40)).save(root / "dog" / "small.jpg")
    return root


def stored(data: images.Encoded) -> Image.Image:
    return Image.open(io.BytesIO(data.data))


@pytest.mark.parametrize("kind", LARGE_KINDS, ids=lambda kind: kind.name)
def test_every_kind_of_image_is_reduced_as_it_is_built_otherwise(kind: Kind) -> None:
    original = kind.make()
    whole = images.prepare(original)
    shorter_side = min(whole.height, whole.width)
    image = images.prepare(original, max_side=shorter_side // 2)
    assert (image.height, image.width) == (whole.height // 2, whole.width // 2)
    assert (image.downscaled_from, image.reencoded) == (shorter_side, True)
    assert image.format == whole.format
    wanted = stored(whole).resize((image.width, image.height), Image.Resampling.LANCZOS)
    assert stored(image).mode == wanted.mode
    assert np.abs(np.asarray(stored(image), int) - np.asarray(wanted, int)).mean() < 10


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if not kind.expected and kind.make], ids=lambda kind: kind.name
)
def test_what_is_rejected_is_rejected_for_the_same_reason(kind: Kind) -> None:
    reasons = []
    for max_side in (0, 2):
        try:
            images.prepare(kind.make(), max_side=max_side)
        except images.RejectedImage as rejection:
            reasons.append(str(rejection))
    assert len(set(reasons)) <= 1
    assert len(reasons) in (0, 2)


def test_a_jpeg_is_reduced_as_well_as_all_its_pixels_would_be():
    picture = scene(7, (1200, 900))
    data = encode(picture, "JPEG", quality=95)
    for max_side in (100, 130, 225, 300, 449, 600):
        image = images.prepare(data, max_side=max_side)
        best = Image.open(io.BytesIO(data)).resize((image.width, image.height), Image.Resampling.LANCZOS)
        best = Image.open(io.BytesIO(encode(best, "JPEG", quality=90)))
        assert (image.height, image.width) == (max_side, round(max_side * 4 / 3))
        assert np.abs(np.asarray(stored(image), int) - np.asarray(best, int)).mean() < 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_image_is_upright_and_says_so(orientation):
    original = turned_jpeg(orientation)
    image = images.prepare(original, max_side=16)
    wanted = ImageOps.exif_transpose(Image.open(io.BytesIO(original))).resize((image.width, image.height))
    assert sorted((image.height, image.width)) == [16, 24]
    assert not stored(image).getexif()
    assert np.abs(np.asarray(stored(image), int) - np.asarray(wanted, int)).mean() < 10


def test_an_image_that_is_not_larger_is_stored_byte_for_byte():
    for size in ((80, 40), (40, 80), (3000, 40)):
        data = encode(scene(1, size), "JPEG")
        assert images.prepare(data, max_side=40).data == data
        assert images.prepare(data, max_side=39).height in (39, 78)


def test_splits_and_duplicates_stay_as_they_are(photos, tmp_path):
    plain, reduced, tiny = (
        build_tfrecords.build(str(photos), str(tmp_path / str(side)), options=ReadOptions(max_side=side))
        for side in (0, 100, 20)
    )
    for data in (reduced, tiny):
        assert filenames(data, "train") == filenames(plain, "train")
        assert filenames(data, "eval") == filenames(plain, "eval")
        assert data.splits["train"].class_counts == plain.splits["train"].class_counts
        assert data.quality.near_duplicates == plain.quality.near_duplicates
        assert data.quality.identical == plain.quality.identical
        assert data.fingerprint != plain.fingerprint
    near, identical = (sum(vars_of(part)) for part in (plain.quality.near_duplicates, plain.quality.identical))
    assert near > identical > 0


def vars_of(counts: manifest.Duplicates) -> tuple[int, ...]:
    return counts.train, counts.eval, counts.across_splits


def test_the_manifest_and_the_page_count_what_was_reduced(photos, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    output = tmp_path / "data"
    data = build_tfrecords.build(str(photos), str(output), options=ReadOptions(max_side=100))
    large = [path for path in photos.rglob("*.*") if path.name != "small.jpg"]
    content = json.loads((output / "manifest.json").read_text())
    assert content["downscaled"] == {
        "max_side": 100,
        "images": len(large),
        "file_bytes": sum(path.stat().st_size for path in large),
        "record_bytes": data.downscaled.record_bytes,
    }
    assert content["reencoded"] == len(large)
    assert data.downscaled.record_bytes < sum(shard.bytes for split in data.splits.values() for shard in split.shards)
    assert manifest.read(str(output)).downscaled == data.downscaled
    assert f"{len(large)} images had a shorter side of more than 100 pixels and were reduced to it" in (
        (output / "statistics.html").read_text()
    )
    assert f"{len(large)} re-encoded, {len(large)} reduced by --max_side 100 (" in caplog.text


def test_equal_input_gives_equal_shards_whatever_the_number_of_workers(many, tmp_path):
    for workers in (1, 2):
        build_tfrecords.build(str(many), str(tmp_path / str(workers)), options=ReadOptions(max_side=4), workers=workers)
    one, two = (digests(tmp_path / name) for name in ("1", "2"))
    assert {name: digest for name, digest in one.items() if name != "statistics.html"} == {
        name: digest for name, digest in two.items() if name != "statistics.html"
    }


def test_a_build_says_when_the_flag_would_pay(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    root = pictures(tmp_path / "photos", {"cat": 9, "dog": 10})
    build_tfrecords.check(str(root))
    assert "--max_side" not in caplog.text
    for name in ("cat", "dog"):
        Image.new("L", (2048, 1024)).save(root / name / "phone.png")
    build_tfrecords.build(str(root), str(tmp_path / "data"), eval_metadata=str(root))
    for text in (caplog.text, (tmp_path / "data" / "statistics.html").read_text()):
        assert re.search(
            r"10% of the images have a shorter side of more than 512 pixels and take \d\d% of the bytes: "
            r"with --max_side 512, a training would decode 1/4 of the pixels",
            text,
        )
    caplog.clear()
    build_tfrecords.check(str(root), options=ReadOptions(max_side=1024))
    assert "a training would decode" not in caplog.text


def test_data_that_was_built_with_another_value_is_built_again(tmp_path):
    root = pictures(tmp_path / "photos", {"cat": 9, "dog": 9})

    def built(max_side: int) -> tuple[int, float]:
        options = ReadOptions(max_side=max_side)
        data = prepare.prepare_training(str(root), str(tmp_path / "data"), options=options)
        return data.downscaled.max_side if data.downscaled else 0, Path(data.shard_paths("train")[0]).stat().st_ctime

    without, of_4, again, of_6 = (built(side) for side in (0, 4, 4, 6))
    assert (without[0], of_4[0], of_6[0]) == (0, 4, 6)
    assert again == of_4


def test_the_flag_is_refused_for_tfrecords(tmp_path):
    root = pictures(tmp_path / "photos", {"cat": 9, "dog": 9})
    build_tfrecords.build(str(root), str(tmp_path / "data"))
    with pytest.raises(FlagError, match="--max_side does not reduce images in TFRecords"):
        build_tfrecords.build(str(tmp_path / "data"), str(tmp_path / "again"), options=ReadOptions(max_side=64))


def test_a_training_on_data_sets_that_were_built_so_knows_and_warns(photos, tmp_path, caplog):
    built, other, unchanged = (
        build_tfrecords.build(str(photos), str(tmp_path / str(side)), options=ReadOptions(max_side=side))
        for side in (100, 60, 0)
    )
    cache = str(tmp_path / "cache")
    of_both = prepare.prepare_training(built.folder, cache, eval_metadata=built.folder)
    assert of_both.downscaled == built.downscaled
    flag_checks.warn_of_small_images(manifest.read(cache), Flags(image_size=128))
    assert "built with --max_side 100: images are enlarged to --image_size 128" in caplog.text
    together = prepare.prepare_training(f"{built.folder},{unchanged.folder}", cache, eval_metadata=other.folder)
    assert together.downscaled == manifest.Downscaled(
        max_side=60,
        images=built.downscaled.images + other.downscaled.images,
        file_bytes=2 * built.downscaled.file_bytes,
        record_bytes=built.downscaled.record_bytes + other.downscaled.record_bytes,
    )
    assert prepare.prepare_training(unchanged.folder, cache).downscaled is None


def test_images_beside_a_data_set_that_was_built_so_count_with_it(photos, tmp_path):
    built = build_tfrecords.build(str(photos), str(tmp_path / "built"), options=ReadOptions(max_side=100))
    data = build_tfrecords.build(str(photos), str(tmp_path / "both"), eval_metadata=built.folder)
    assert data.downscaled == built.downscaled
