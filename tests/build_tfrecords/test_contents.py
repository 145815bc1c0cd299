"""Files that are no image, or of a kind that is not read, are rejected in words that their owner knows."""

from __future__ import annotations

import gzip
import io
import sys
import zipfile

import pytest
from PIL import Image

from tests.build_tfrecords import image_files
from tests.conftest import SHARED_CASES
from tf_image_classification.build_tfrecords import images

CASES = SHARED_CASES / "images"


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as content:
        content.writestr("cat/1.jpg", b"x")
    return file.getvalue()


CONTENTS = {
    "Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    "base64 text": b"data:image/jpeg;base64,/9j/4AAQSkZJRg==",
    "DICOM": bytes(128) + b"DICM" + bytes(20),
    "Targa": b"\0\0\2\0" + bytes(8) + b"\x08\0\x08\0\x18\0",
    "cursor": b"\0\0\2\0\1\0" + bytes(40),
    "HTML page": b"\n <!doctype HTML><html><body>404</body></html>",
    "SVG drawing": b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    "XML": b"\xef\xbb\xbf<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>",
    "JSON": b'{"error": {"code": 404}}',
    "PDF": b"%PDF-1.7\n",
    "Photoshop": b"8BPS\0\1" + bytes(20),
    "ICO": b"\0\0\1\0\1\0" + bytes(40),
    "zip": archive(),
    "gzip": gzip.compress(b"an image"),
    r"video \(MP4": b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + bytes(20),
    r"video \(MP4 or QuickTime": b"\0\0\0\x14ftypqt  \0\0\0\0qt  ",
    r"video \(AVI": b"RIFF\x24\0\0\0AVI LIST",
    r"video \(Matroska": b"\x1a\x45\xdf\xa3" + bytes(20),
    "JPEG XL": b"\xff\x0a\x7a\x1f" + bytes(20),
    "JPEG-LS": b"\xff\xd8\xff\xf7\0\x0b\x08" + bytes(40),
    "camera raw": b"FUJIFILMCCD-RAW 0201" + bytes(40),
    "camera raw image": b"\0\0\0\x18ftypcrx \0\0\0\1crx isom",
    "AppleDouble": b"\0\5\x16\7" + bytes(40),
    "zero bytes": bytes(500),
    "corrupt JPEG 2000": b"\xff\x4f\xff\x51" + bytes(40),
    "corrupt HEIC": b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(40),
    "not an image": b"Dear reader",
    "hierarchical JPEG": b"\xff\xd8\xff\xc5\0\x0b\x08\0\x08\0\x08\1\1\x11\0\xff\xd9",
}


@pytest.mark.parametrize("reason", CONTENTS)
def test_a_content_is_called_what_it_is(reason: str) -> None:
    with pytest.raises(images.RejectedImage, match=reason):
        images.prepare(CONTENTS[reason])


def test_heic_without_its_extra_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(images.RejectedImage, match=r"^HEIC image \(install the extra heic\)$"):
        images.prepare(CONTENTS["corrupt HEIC"])


@pytest.mark.parametrize(
    "raw",
    [
        [(50706, 1, [1, 4, 0, 0])],  # DNG
        [(254, 4, [1]), (330, 4, [8])],  # a preview before its raw picture: NEF, ARW
        [(262, 3, [32803])],  # a colour filter array
        [(271, 1, list(b"SONY\0")), (259, 3, [32767])],
    ],
    ids=["DNG", "preview", "sensor", "compression"],
)
def test_a_camera_raw_is_not_read_by_its_preview(raw) -> None:
    with pytest.raises(images.RejectedImage, match="camera raw image"):
        images.prepare(image_files.tiff(8, 4, bytes(96), samples=3, photometric=2, more=raw))


def test_a_pyramid_is_no_camera_raw() -> None:
    pyramid = image_files.tiff(8, 4, bytes(32), more=[(330, 4, [8]), (271, 1, list(b"Zeiss\0"))])
    assert images.prepare(pyramid).format == "png"


@pytest.mark.parametrize("kind", ["WEBP", "TIFF", "AVIF", "GIF", "PNG", "JPEG2000"])
def test_what_is_wholly_transparent_is_rejected_and_what_is_partly_is_on_white(kind: str) -> None:
    picture = Image.new("RGBA", (16, 16), (200, 30, 60, 0))
    file = io.BytesIO()
    picture.save(file, kind, **({"lossless": True} if kind == "WEBP" else {}))
    with pytest.raises(images.RejectedImage, match="fully transparent"):
        images.prepare(file.getvalue())
    picture.paste((200, 30, 60, 255), (0, 0, 8, 16))
    file = io.BytesIO()
    picture.save(file, kind, **({"lossless": True} if kind == "WEBP" else {}))
    stored = Image.open(io.BytesIO(images.prepare(file.getvalue()).data)).convert("RGB")
    assert max(abs(a - b) for a, b in zip(stored.getpixel((1, 8)), (200, 30, 60), strict=True)) < 12
    assert min(stored.getpixel((14, 8))) > 245


@pytest.mark.skipif(not CASES.is_dir(), reason="the project's shared inputs are not here")
@pytest.mark.parametrize(
    ("name", "result"),
    {
        "tif_16_whiteiszero": 124,
        "bmp32_v5_alpha0": "colours",
        "png_alpha_all_zero": "fully transparent",
        "jpg_half_then_eoi": "corrupt JPEG data",
        "jpg_hole_of_zeros": "corrupt JPEG data",
        "png_big_itxt": "colours",
        "png_text_bad_crc": "colours",
        "jpg_lossless": "colours",
        "heic": "HEIC",
        "jp2": "JPEG 2000",
        "git_lfs": "Git LFS pointer",
        "html": "HTML page",
    }.items(),
)
def test_the_shared_cases(name: str, result: str | int) -> None:
    data = (CASES / name).read_bytes()
    if isinstance(result, str) and result != "colours":
        with pytest.raises(images.RejectedImage, match=result):
            images.prepare(data)
        return
    grey = Image.open(io.BytesIO(images.prepare(data).data)).convert("L").tobytes()
    mean = sum(grey) / len(grey)
    assert abs(mean - result) < 2 if isinstance(result, int) else 40 < mean < 200
