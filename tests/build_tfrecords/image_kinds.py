"""Every kind of image, and how it is built. docs/data.md shows the same table."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from tests.build_tfrecords import image_files
from tests.build_tfrecords.image_files import (
    QUARTERS,
    animation,
    black_and_white,
    bmp_without_alpha,
    colour,
    deep_grey,
    deep_tiff,
    encode,
    grey,
    half_closed_by_an_end_marker,
    half_transparent,
    heic,
    hole_of_zeros,
    jpeg,
    on_white,
    palette_with_transparency,
    png_of_16_bit_colour,
    turned_jpeg,
    without_green,
)

AS_IT_IS = "stored byte for byte"
TO_JPEG = "re-encoded as JPEG"
TO_PNG = "re-encoded as PNG"


@dataclass(frozen=True)
class Kind:
    """A row of the table: what an image is, and the result; and, for the test, a file, its name and the pixels
    that it should give."""

    name: str
    outcome: str
    make: Callable[[], bytes] | None
    file: str
    expected: Callable[[], Image.Image] | None = None
    label: str = "one"


KINDS = (
    Kind("baseline JPEG", AS_IT_IS, jpeg, "baseline.jpg", colour),
    Kind("progressive JPEG", AS_IT_IS, lambda: jpeg(progressive=True), "progressive.jpg", colour),
    Kind("grey JPEG", AS_IT_IS, lambda: encode(grey(), "JPEG", quality=95), "grey.jpg", grey),
    Kind(
        "CMYK JPEG",
        TO_JPEG,
        lambda: encode(colour().convert("CMYK"), "JPEG", quality=95, subsampling=0),
        "cmyk.jpg",
        colour,
    ),
    Kind(
        "CMYK JPEG without Adobe's marker",
        TO_JPEG,
        lambda: image_files.without_segment(
            encode(colour().convert("CMYK"), "JPEG", quality=95, subsampling=0), b"\xff\xee"
        ),
        "no-adobe.jpg",
        colour,
    ),
    Kind(
        "lossless JPEG",
        TO_PNG,
        lambda: image_files.lossless_jpeg(16, 8),
        "lossless.jpg",
        lambda: Image.new("L", (16, 8), 128),
    ),
    Kind(
        "JPEG padded in front of its end marker",
        AS_IT_IS,
        lambda: jpeg()[:-2] + bytes(64) + jpeg()[-2:],
        "padded.jpg",
        colour,
    ),
    Kind("JPEG turned by EXIF", TO_JPEG + ", upright", lambda: turned_jpeg(6), "turned.jpg", colour),
    Kind(
        "JPEG with further pictures (MPO)",
        AS_IT_IS,
        lambda: animation("MPO", quality=95, subsampling=0),
        "several.jpg",
        colour,
    ),
    Kind("JPEG named .png", AS_IT_IS, jpeg, "jpeg.png", colour),
    Kind("PNG named .jpg", AS_IT_IS, lambda: encode(colour(), "PNG"), "png.jpg", colour),
    Kind("8-bit RGB PNG", AS_IT_IS, lambda: encode(colour(), "PNG"), "rgb.png", colour),
    Kind("8-bit grey PNG", AS_IT_IS, lambda: encode(grey(), "PNG"), "grey.png", grey),
    Kind("1-bit PNG", TO_PNG, lambda: encode(black_and_white().convert("1"), "PNG"), "bits.png", black_and_white),
    Kind("16-bit grey PNG", TO_PNG + ", scaled to 8 bits", lambda: encode(deep_grey(), "PNG"), "deep-grey.png", grey),
    Kind("16-bit RGB PNG", TO_PNG + ", scaled to 8 bits", png_of_16_bit_colour, "deep.png", colour),
    Kind("palette PNG", TO_PNG, lambda: encode(colour().quantize(16), "PNG"), "palette.png", colour),
    Kind(
        "PNG with alpha", TO_PNG + ", on white", lambda: encode(half_transparent("RGBA"), "PNG"), "alpha.png", on_white
    ),
    Kind(
        "palette PNG with transparency", TO_PNG + ", on white", palette_with_transparency, "transparent.png", on_white
    ),
    Kind(
        "PNG with metadata above 1 MiB",
        TO_PNG,
        lambda: image_files.png_with(
            encode(colour(), "PNG"), image_files.png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2_000_000)))
        ),
        "chatty.png",
        colour,
    ),
    Kind(
        "PNG whose metadata is damaged",
        TO_PNG,
        lambda: image_files.png_with(encode(colour(), "PNG"), image_files.png_chunk(b"tEXt", b"Title\0x", crc=1)),
        "bad-text.png",
        colour,
    ),
    Kind(
        "PNG with one transparent colour",
        TO_PNG + ", on white",
        lambda: encode(colour(), "PNG", transparency=QUARTERS[1]),
        "key.png",
        without_green,
    ),
    Kind("animated GIF", TO_PNG + ", first frame", lambda: animation("GIF"), "animated.gif", colour),
    Kind("lossy WebP", TO_JPEG, lambda: encode(colour(), "WEBP", quality=95), "lossy.webp", colour),
    Kind("lossless WebP", TO_PNG, lambda: encode(colour(), "WEBP", lossless=True), "lossless.webp", colour),
    Kind(
        "animated WebP",
        TO_JPEG + " or PNG, like a still one, first frame",
        lambda: animation("WEBP", quality=95),
        "animated.webp",
        colour,
    ),
    Kind("BMP", TO_PNG, lambda: encode(colour(), "BMP"), "picture.bmp", colour),
    Kind("BMP whose alpha is 0 everywhere", TO_PNG + ", its colours", bmp_without_alpha, "padding.bmp", colour),
    Kind("12-bit grey TIFF", TO_PNG + ", scaled to 8 bits", lambda: deep_tiff(12, "<", 1), "12.tif", grey),
    Kind("16-bit grey TIFF", TO_PNG + ", scaled to 8 bits", lambda: deep_tiff(16, ">", 1), "16.tif", grey),
    Kind(
        "16-bit grey TIFF whose 0 is white",
        TO_PNG + ", scaled to 8 bits",
        lambda: deep_tiff(16, "<", 0),
        "white.tif",
        grey,
    ),
    Kind(
        "16-bit grey TIFF whose 0 is white, big-endian",
        TO_PNG + ", scaled to 8 bits",
        lambda: deep_tiff(16, ">", 0),
        "white-be.tif",
        grey,
    ),
    Kind("TIFF", TO_PNG, lambda: encode(colour(), "TIFF", compression="tiff_lzw"), "picture.tif", colour),
    Kind("TIFF of several pages", TO_PNG + ", first page", lambda: animation("TIFF"), "pages.tif", colour),
    Kind(
        "TIFF that holds a JPEG",
        TO_JPEG,
        lambda: encode(colour(), "TIFF", compression="jpeg", quality=95),
        "jpeg.tif",
        colour,
    ),
    Kind("AVIF", TO_JPEG, lambda: encode(colour(), "AVIF", quality=95), "picture.avif", colour),
    Kind("HEIC, with the extra `heic`", TO_JPEG, heic, "picture.heic", colour),
    Kind("JPEG 2000, lossless", TO_PNG, lambda: encode(colour(), "JPEG2000"), "lossless.jp2", colour),
    Kind("JPEG 2000, lossy", TO_JPEG, lambda: encode(colour(), "JPEG2000", irreversible=True), "lossy.jp2", colour),
    Kind("PPM", TO_PNG, lambda: encode(colour(), "PPM"), "picture.ppm", colour),
    Kind(
        "1x1 pixel",
        AS_IT_IS,
        lambda: encode(Image.new("RGB", (1, 1), "teal"), "PNG"),
        "tiny.png",
        lambda: Image.new("RGB", (1, 1), "teal"),
    ),
    Kind(
        "20 megapixels",
        AS_IT_IS,
        lambda: encode(colour(5480, 3650), "JPEG", quality=95),
        "large.jpg",
        lambda: colour(5480, 3650),
    ),
    Kind(
        "TIFF of floating-point numbers",
        "rejected: floating-point pixels",
        lambda: encode(grey().convert("F"), "TIFF"),
        "float.tif",
    ),
    Kind(
        "TIFF of signed integers",
        "rejected: signed integer pixels",
        lambda: image_files.tiff(8, 4, bytes(32), sample_format=2),
        "signed.tif",
    ),
    Kind(
        "TIFF of 16-bit colours, each in a plane of its own",
        "rejected: 16-bit TIFF in separate colour planes",
        lambda: image_files.tiff(8, 4, bytes(192), bits=16, samples=3, photometric=2, planes=2),
        "planes.tif",
    ),
    Kind(
        "camera raw file (DNG, CR2, NEF, ARW, ...)",
        "rejected: camera raw image",
        lambda: image_files.tiff(8, 4, bytes(96), samples=3, photometric=2, more=[(50706, 1, [1, 4, 0, 0])]),
        "camera.dng",
    ),
    Kind(
        "wholly transparent",
        "rejected: fully transparent",
        lambda: encode(Image.new("RGBA", (9, 7), (200, 30, 60, 0)), "PNG"),
        "nothing.png",
    ),
    Kind(
        "half a JPEG, closed by an end marker",
        "rejected: corrupt JPEG data: premature end of data segment",
        half_closed_by_an_end_marker,
        "half.jpg",
    ),
    Kind(
        "JPEG with a hole of zeros",
        "rejected: corrupt JPEG data: a hole of zeros",
        hole_of_zeros,
        "hole.jpg",
    ),
    Kind("truncated", "rejected: truncated image", lambda: jpeg()[:-40], "truncated.jpg"),
    Kind("without its end marker", "rejected: truncated image", lambda: jpeg()[:-2], "endless.jpg"),
    Kind(
        "damaged",
        "rejected: corrupt image",
        lambda: encode(colour(), "PNG").replace(b"IDAT", b"IDAT\0", 1),
        "damaged.png",
    ),
    Kind(
        "above `--max_image_pixels`",
        "rejected: too many pixels: more than 120,000,000",
        lambda: image_files.header_of_png(12_000, 10_001),
        "pixels.png",
    ),
    Kind(
        "longer than 65,500 pixels",
        "rejected: a side of more than 65,500 pixels",
        lambda: image_files.header_of_png(65_501, 1),
        "long.png",
    ),
    Kind("JPEG of hundreds of scans", "rejected: JPEG of too many scans", image_files.jpeg_of_many_scans, "scans.jpg"),
    Kind("empty", "rejected: empty file", lambda: b"", "empty.jpg"),
    Kind("damaged HEIC", "rejected: corrupt HEIC image", lambda: heic()[:300], "damaged.heic"),
    Kind(
        "damaged JPEG 2000",
        "rejected: corrupt JPEG 2000 image",
        lambda: encode(colour(), "JPEG2000")[:120],
        "damaged.jp2",
    ),
    Kind(
        "Git LFS pointer",
        "rejected: Git LFS pointer, not the file (run: git lfs pull)",
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n",
        "pointer.jpg",
    ),
    Kind(
        "HTML, SVG, JSON, PDF, PSD, ICO, zip, video, ...",
        "rejected: HTML page, not an image",
        lambda: b"<!DOCTYPE html>\n<html></html>",
        "page.jpg",
    ),
    Kind("not an image", "rejected: not an image", lambda: b"Dear reader, this is text.\n", "text.jpg"),
    Kind("a CSV line whose file is missing", "rejected: file not found", None, "missing.jpg"),
    Kind(
        "a CSV line whose label is not in labels.txt",
        "rejected: label seven is not in labels",
        jpeg,
        "seven.jpg",
        label="seven",
    ),
    Kind("a CSV line outside --image_root", "rejected: outside --image_root", jpeg, "../outside.jpg"),
    Kind(
        "a CSV line that repeats an earlier one",
        "rejected: duplicate of an earlier entry",
        None,
        "baseline.jpg",
    ),
)
