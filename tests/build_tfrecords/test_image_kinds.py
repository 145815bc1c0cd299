"""Every kind of image, and how it is built. docs/data.md shows the same table."""

from __future__ import annotations

import contextlib
import csv
import io
import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from PIL import Image

from tests.build_tfrecords import image_files
from tests.conftest import REPOSITORY
from tf_image_classification import build_tfrecords
from tf_image_classification.build_tfrecords import images
from tf_image_classification.data import manifest, tfrecord

AS_IT_IS = "stored byte for byte"
TO_JPEG = "re-encoded as JPEG"
TO_PNG = "re-encoded as PNG"

WIDTH, HEIGHT = 48, 32
QUARTERS = ((220, 30, 30), (30, 200, 40), (20, 40, 210), (230, 220, 20))


def colour(width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """Four quarters of plain colour: red, green; blue, yellow."""
    small = Image.new("RGB", (2, 2))
    small.putdata(QUARTERS)
    return small.resize((width, height), Image.Resampling.NEAREST)


def grey() -> Image.Image:
    return colour().convert("L")


def on_white() -> Image.Image:
    """The picture with its right half transparent, on white."""
    picture = colour()
    picture.paste("white", (WIDTH // 2, 0, WIDTH, HEIGHT))
    return picture


def without_green() -> Image.Image:
    picture = colour()
    picture.paste("white", (WIDTH // 2, 0, WIDTH, HEIGHT // 2))
    return picture


def black_and_white() -> Image.Image:
    return grey().point(lambda value: 255 if value > 90 else 0)


def half_transparent(mode: str) -> Image.Image:
    picture = colour().convert(mode)
    alpha = Image.new("L", picture.size, 255)
    alpha.paste(0, (WIDTH // 2, 0, WIDTH, HEIGHT))
    picture.putalpha(alpha)
    return picture


def deep_grey() -> Image.Image:
    return grey().convert("I").point(lambda value: value * 257).convert("I;16")


def encode(picture: Image.Image, image_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, image_format, **options)
    return file.getvalue()


def png_of_16_bit_colour() -> bytes:
    """Pillow does not write it."""
    rows = b"".join(
        b"\0" + b"".join(struct.pack(">H", band * 257) for x in range(WIDTH) for band in colour().getpixel((x, y)))
        for y in range(HEIGHT)
    )
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


def deep_tiff(bits: int, order: str, photometric: int) -> bytes:
    """Grey of 12 bits packed, or of 16."""
    largest = 2**bits - 1
    values = [round(value * largest / 255) for value in grey().tobytes()]
    if photometric == 0:
        values = [largest - value for value in values]
    if bits == 16:
        pixels = struct.pack(f"{order}{len(values)}H", *values)
    else:
        pairs = zip(values[::2], values[1::2], strict=True)
        pixels = b"".join(((first << 12) | second).to_bytes(3, "big") for first, second in pairs)
    return image_files.tiff(WIDTH, HEIGHT, pixels, bits=bits, photometric=photometric, order=order)


def bmp_without_alpha() -> bytes:
    """32 bits with a mask of alpha, whose values are all 0: the header of version 5."""
    red, green, blue = colour().transpose(Image.Transpose.FLIP_TOP_BOTTOM).split()
    pixels = Image.merge("RGBA", (blue, green, red, Image.new("L", red.size, 0))).tobytes()
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 124, WIDTH, HEIGHT, 1, 32, 3, len(pixels), 0, 0, 0, 0) + masks + b"BGRs"
    header = header.ljust(124, b"\0")
    return b"BM" + struct.pack("<IHHI", 14 + len(header) + len(pixels), 0, 0, 14 + len(header)) + header + pixels


def half_closed_by_an_end_marker() -> bytes:
    whole = encode(Image.effect_noise((128, 128), 80), "JPEG")
    begin = image_files.coded_begin(whole)
    return whole[: (begin + len(whole)) // 2] + b"\xff\xd9"


def hole_of_zeros() -> bytes:
    whole = bytearray(encode(Image.effect_noise((128, 128), 80), "JPEG"))
    middle = (image_files.coded_begin(whole) + len(whole)) // 2
    whole[middle : middle + 1000] = bytes(1000)
    return bytes(whole)


def heic() -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif", reason="reading HEIC needs the extra heic")
    pillow_heif.register_heif_opener()
    return encode(colour(), "HEIF", quality=95)


def palette_with_transparency() -> bytes:
    picture = half_transparent("RGBA").quantize(16)
    return encode(picture, "PNG")


def turned_jpeg(turn: int) -> bytes:
    """Rotated by 90 degrees, with the EXIF orientation that corrects it."""
    exif = Image.Exif()
    exif[0x0112] = turn
    return encode(colour().transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif, quality=95, subsampling=0)


def animation(image_format: str, **options: object) -> bytes:
    others = [Image.new("RGB", (WIDTH, HEIGHT), "black"), Image.new("RGB", (WIDTH, HEIGHT), "white")]
    return encode(colour(), image_format, save_all=True, append_images=others, duration=50, **options)


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


def jpeg(**options: object) -> bytes:
    return encode(colour(), "JPEG", quality=95, subsampling=0, **options)


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
        "rejected: corrupt JPEG data: extraneous bytes before marker",
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
    Kind("a CSV line outside --image_root", "rejected: outside image_root", jpeg, "../outside.jpg"),
    Kind(
        "a CSV line that repeats an earlier one",
        "rejected: duplicate of an earlier entry",
        None,
        "baseline.jpg",
    ),
)

NAMES = [kind.name for kind in KINDS]


@dataclass
class Built:
    manifest: manifest.Manifest
    examples: dict[str, tfrecord.Features]
    reasons: dict[str, list[str]]
    originals: dict[str, bytes]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Built:
    folder = tmp_path_factory.mktemp("kinds")
    root = folder / "root"
    root.mkdir()
    originals = {kind.file: kind.make() for kind in KINDS if kind.make}
    for name, data in originals.items():
        (root / name).write_bytes(data)
    for split, kinds in (("train", KINDS), ("eval", KINDS[:2])):
        lines = [f"{kind.file},{kind.label}" for kind in kinds]
        (folder / f"{split}.csv").write_text(
            "\n".join([*lines, "rgb.png,two" if split == "eval" else "second.png,two"])
        )
    (root / "second.png").write_bytes(encode(colour(), "PNG"))
    (folder / "labels.txt").write_text("one\ntwo\n")
    data = build_tfrecords.build(
        str(folder / "train.csv"),
        str(folder / "data"),
        eval_metadata=str(folder / "eval.csv"),
        labels_file=str(folder / "labels.txt"),
        image_root=str(root),
    )
    records = [tfrecord.parse_example(record) for path in data.shard_paths("train") for record in tfrecord.read(path)]
    reasons: dict[str, list[str]] = {}
    with open(folder / "data" / "rejected.csv", newline="") as file:
        for row in csv.DictReader(file):
            reasons.setdefault(row["path"].removeprefix(f"{root}/"), []).append(row["reason"])
    return Built(data, {record["image/filename"][0].decode(): record for record in records}, reasons, originals)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.expected], ids=lambda kind: kind.name)
def test_tensorflow_reads_what_was_built(kind: Kind, built: Built) -> None:
    import numpy as np
    import tensorflow as tf

    example = built.examples[kind.file]
    (data,), (image_format,) = example["image/encoded"], example["image/format"]
    if kind.outcome == AS_IT_IS:
        assert data == built.originals[kind.file]
    else:
        assert image_format == (b"jpeg" if kind.outcome.startswith(TO_JPEG) else b"png")
    assert Image.open(io.BytesIO(data)).format in {b"jpeg": ("JPEG", "MPO"), b"png": ("PNG",)}[image_format]

    wanted = np.asarray(kind.expected().convert("RGB"), np.int16)
    assert (example["image/height"], example["image/width"]) == ([wanted.shape[0]], [wanted.shape[1]])
    decoders = [tf.io.decode_image, tf.io.decode_jpeg if image_format == b"jpeg" else tf.io.decode_png]
    for decode in decoders if wanted.size < 1e6 else decoders[1:]:
        pixels = decode(data, channels=3).numpy()
        assert pixels.dtype == np.uint8
        assert pixels.shape == wanted.shape
        assert np.abs(pixels[::7, ::7] - wanted[::7, ::7]).mean() < 6


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.expected], ids=lambda kind: kind.name)
def test_is_rejected_with_its_reason(kind: Kind, built: Built) -> None:
    assert kind.outcome.removeprefix("rejected: ") in built.reasons[kind.file]


@pytest.mark.parametrize(
    "kind",
    [kind for kind in KINDS if kind.outcome == AS_IT_IS and kind.file != "large.jpg"],
    ids=lambda kind: kind.name,
)
def test_a_damaged_image_is_rejected_or_tensorflow_reads_it(kind: Kind) -> None:
    import tensorflow as tf

    whole = kind.make()
    dice = random.Random(kind.name)
    cut = [
        whole[:length]
        for length in (*range(len(whole) - 12, len(whole)), *dice.sample(range(len(whole)), min(len(whole), 40)))
    ]
    flipped = []
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[dice.randrange(len(whole))] = dice.choice((0xFF, dice.randrange(256)))
        flipped.append(bytes(damaged))
    if "MPO" not in kind.name:  # whose further pictures may be cut off
        for data in cut:
            with pytest.raises(images.RejectedImage):
                images.prepare(data)
    for data in cut + flipped:
        with contextlib.suppress(images.RejectedImage):
            image = images.prepare(data)
            if image.height * image.width < 1e6:
                assert tf.io.decode_image(image.data, channels=3).shape == (image.height, image.width, 3)


def test_the_manifest_accounts_for_every_image(built: Built) -> None:
    split = built.manifest.splits["train"]
    rejected = [kind for kind in KINDS if not kind.expected]
    assert split.images == len(KINDS) + 1
    assert split.rejected == len(rejected) == sum(len(reasons) for reasons in built.reasons.values())
    assert split.examples == split.images - split.rejected == len(built.examples)
    assert sum(built.manifest.rejected_reasons.values()) == split.rejected
    assert split.class_counts == {"label": {"one": split.examples - 1, "two": 1}}
    assert built.manifest.reencoded == sum(kind.outcome.startswith("re-encoded") for kind in KINDS)


def test_the_documentation_shows_this_table() -> None:
    page = (REPOSITORY / "docs" / "data.md").read_text()
    missing = [row for row in table() if row not in page]
    assert not missing, "docs/data.md lacks these lines:\n" + "\n".join(missing)


def table() -> list[str]:
    """The rows as Markdown."""
    rows = [f"| {kind.name} | {kind.outcome} |" for kind in KINDS]
    return ["| an image that is | result |", "|---|---|", *rows]
