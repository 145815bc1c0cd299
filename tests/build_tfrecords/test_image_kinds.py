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

from tests.conftest import REPOSITORY
from tf_image_classification import build_tfrecords
from tf_image_classification.build_tfrecords import images
from tf_image_classification.data import manifest, tfrecord
from tf_image_classification.data.sources import ReadOptions

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
    Kind("TIFF", TO_PNG, lambda: encode(colour(), "TIFF", compression="tiff_lzw"), "picture.tif", colour),
    Kind(
        "TIFF that holds a JPEG",
        TO_JPEG,
        lambda: encode(colour(), "TIFF", compression="jpeg", quality=95),
        "jpeg.tif",
        colour,
    ),
    Kind("AVIF", TO_JPEG, lambda: encode(colour(), "AVIF", quality=95), "picture.avif", colour),
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
    Kind("truncated", "rejected: truncated image", lambda: jpeg()[:-40], "truncated.jpg"),
    Kind("without its end marker", "rejected: truncated image", lambda: jpeg()[:-2], "endless.jpg"),
    Kind(
        "damaged",
        "rejected: corrupt image",
        lambda: encode(colour(), "PNG").replace(b"IDAT", b"IDAT\0", 1),
        "damaged.png",
    ),
    Kind("empty", "rejected: empty file", lambda: b"", "empty.jpg"),
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
        options=ReadOptions(image_root=str(root)),
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
