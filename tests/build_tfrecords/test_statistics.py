from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from tf_image_classification import build_tfrecords

EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    """The page of 40 classes, one of which is named badly, with damaged files among the images."""
    root = tmp_path_factory.mktemp("photos")
    names = [EVIL.replace("/", "_"), *(f"class {number:02}" for number in range(39))]
    for value, name in enumerate(names):
        (root / name).mkdir()
        for number in range(12):
            Image.new("RGB", (40 + value, 20), (value, number, 0)).save(
                root / name / f"{number}.{'bmp' if number == 0 else 'jpg'}"
            )
        for number in range(3):
            (root / name / f"damaged {number}").write_text("no image")
    build_tfrecords.build(str(root), str(root.parent / "data"), eval_metadata=str(root))
    return Path(root.parent / "data" / "statistics.html").read_text()


def test_the_page_needs_nothing_from_elsewhere(page):
    assert not re.search(r"https?://|<script|<link|src=\"(?!data:)|url\(", page)


def test_names_are_escaped(page):
    assert EVIL.replace("/", "_") not in page
    assert "&lt;script&gt;" in page


def test_totals_sizes_and_formats_are_shown(page):
    text = " ".join(re.sub(r"<style>.*</style>|<[^>]+>", " ", page, flags=re.DOTALL).split())
    assert "Training examples 480 1 shard" in text
    assert "Rejected 240 of 1,200 images" in text
    assert "JPEG, byte for byte 880 PNG, re-encoded 80" in text
    assert "up to 64 600 up to 128 360" in text
    assert "Smallest 40 \N{MULTIPLICATION SIGN} 20, largest 79 \N{MULTIPLICATION SIGN} 20 pixels" in text
    assert "not an image 240" in text


def test_samples_and_rejected_images_are_bounded(page):
    assert 60 < page.count("data:image/jpeg") <= 24 * 4 + 3 * 2 * 12  # samples, and pairs of near duplicates
    assert page.count("damaged ") == 100
    assert "The first 100 of 240; rejected.csv has all of them." in page
    assert len(page) < 500_000


def test_every_class_has_its_bars(page):
    assert page.count('class="bar train"') == page.count('class="bar eval"') == 40
