"""Thumbnails of near duplicates, made from their files on all cores."""

from __future__ import annotations

import base64
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tf_image_classification.build_tfrecords import images, pair_thumbnails
from tf_image_classification.data.sources import ImageRoots

_ORIENTATION = 0x0112


def _picture() -> Image.Image:
    return Image.radial_gradient("L").resize((300, 200))


def _turned(path: Path) -> None:
    exif = Image.Exif()
    exif[_ORIENTATION] = 6
    _picture().save(path, "JPEG", exif=exif)


KINDS: dict[str, Callable[[Path], None]] = {
    "JPEG": lambda path: _picture().convert("RGB").save(path, "JPEG"),
    "grey JPEG": lambda path: _picture().save(path, "JPEG"),
    "turned JPEG": _turned,
    "CMYK JPEG": lambda path: _picture().convert("CMYK").save(path, "JPEG"),
    "PNG with a palette": lambda path: _picture().convert("P").save(path, "PNG"),
    "GIF": lambda path: _picture().convert("P").save(path, "GIF"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_thumbnail_is_that_of_what_a_shard_stores(kind, tmp_path):
    path = tmp_path / "picture"
    KINDS[kind](path)
    expected = images.thumbnail(images.prepare(path.read_bytes()).data)
    (thumbnail,) = pair_thumbnails.of_all([str(path)], ImageRoots(None, str(tmp_path))).values()
    assert base64.b64decode(thumbnail) == expected


def test_files_that_have_vanished_changed_or_are_elsewhere_have_none(tmp_path):
    (tmp_path / "data").mkdir()
    KINDS["JPEG"](tmp_path / "data" / "whole")
    KINDS["JPEG"](tmp_path / "elsewhere")
    (tmp_path / "data" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "cut").write_bytes((tmp_path / "data" / "whole").read_bytes()[:400])
    (tmp_path / "data" / "text").write_text("no picture any more")
    names = ["whole", "gone", "link", "cut", "text", "whole"]
    paths = [str(tmp_path / "data" / name) for name in names]
    found = pair_thumbnails.of_all(paths, ImageRoots(None, str(tmp_path / "data")))
    assert [bool(found[path]) for path in paths] == [True, False, False, False, False, True]


def test_the_filters_of_warnings_are_as_before(tmp_path):
    paths = [str(tmp_path / str(number)) for number in range(40)]
    for path in paths:
        KINDS["JPEG"](Path(path))
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        before = list(warnings.filters)
        pair_thumbnails.of_all(paths, ImageRoots(None, str(tmp_path)))
        assert warnings.filters == before
