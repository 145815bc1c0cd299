"""What an image may take of a build: pixels, bytes, sides, scans of a JPEG, memory."""

from __future__ import annotations

import csv
import io
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.build_tfrecords.image_files import png_chunk, tiff
from tests.conftest import REPOSITORY
from tests.time_limit import ends_within
from tf_image_classification import build_tfrecords, flags, image_limits
from tf_image_classification.build_tfrecords import existing_tfrecords, images, memory
from tf_image_classification.data.sources import ReadOptions
from tf_image_classification.errors import DataError
from tf_image_classification.image_limits import ImageLimits

SIDE = 3000  # of a picture whose memory is measured
PHOTOGRAPHS = {"50 megapixels": (8192, 6144), "108 megapixels": (12000, 9000), "panorama": (16384, 3900)}
# Format, mode, options -> bytes per pixel of all that a worker takes.
BYTES_PER_PIXEL = {
    "PNG with alpha": ("PNG", "RGBA", {}, 10),
    "grey PNG with alpha": ("PNG", "LA", {}, 8),
    "progressive JPEG": ("JPEG", "RGB", {"progressive": True, "subsampling": 0}, 8),
    "CMYK JPEG": ("JPEG", "CMYK", {"progressive": True}, 14),
    "TIFF with alpha": ("TIFF", "RGBA", {"compression": "tiff_deflate"}, 10),
    "WebP with alpha": ("WEBP", "RGBA", {"lossless": True, "method": 0}, 18),
    "AVIF with alpha": ("AVIF", "RGBA", {"speed": 10}, 18),
    "JPEG 2000 with alpha": ("JPEG2000", "RGBA", {}, 26),
}
MEASURED = """
import sys
from pathlib import Path
from tf_image_classification.build_tfrecords import images
def peak():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024
small, data = (Path(name).read_bytes() for name in sys.argv[1:])
images.prepare(small)
before = peak()
try:
    images.prepare(data)
except images.RejectedImage:
    pass
print(peak() - before)
"""
TOO_LITTLE = """
import sys
from pathlib import Path
from tf_image_classification.build_tfrecords import images
from tf_image_classification.errors import DataError
from tf_image_classification.image_limits import ImageLimits
class Little(ImageLimits):
    memory = 2**24
try:
    images.prepare(Path(sys.argv[1]).read_bytes(), Little())
except images.RejectedImage as error:
    print(error)
print(images.prepare(Path(sys.argv[1]).read_bytes()).format)
"""
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="memory is limited where there is a /proc"
)


def encoded(mode: str, size: tuple[int, int], image_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, {"1": 1, "L": 90, "LA": (90, 120)}.get(mode, (90, 20, 120, 99)[: len(mode)])).save(
        file, image_format, **options
    )
    return file.getvalue()


def with_sides(jpeg: bytes, width: int, height: int) -> bytes:
    """A JPEG whose header says that it has other sides."""
    frame = re.search(rb"\xff[\xc0\xc2]", jpeg).start() + 5
    return jpeg[:frame] + struct.pack(">HH", height, width) + jpeg[frame + 4 :]


def with_scans(jpeg: bytes, times: int) -> bytes:
    """A JPEG whose last scan is there so many times more."""
    scan = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    return jpeg[:-2] + times * scan + jpeg[-2:]


def small_files_that_ask_for_much() -> dict[str, bytes]:
    """Each of less than 100 kB, with 120 million pixels in its header or more."""
    width, height = 12_000, 10_000
    gif, bmp = encoded("P", (8, 8), "GIF"), encoded("RGB", (8, 8), "BMP")
    jp2 = encoded("RGB", (64, 64), "JPEG2000", no_jp2=True)
    size = jp2.index(b"\xff\x51") + 6
    return {
        "PNG": encoded("1", (width, height), "PNG"),
        "GIF": gif[:6] + struct.pack("<HH", width, height) + gif[10:],
        "GIF of a larger canvas": gif[:6] + b"\xff\xff\xff\xff" + gif[10:],
        "BMP": bmp[:18] + struct.pack("<ii", width, height) + bmp[26:],
        "PPM": b"P6 %d %d 255\n" % (width, height) + bytes(100),
        "progressive JPEG": with_sides(encoded("RGB", (64, 64), "JPEG", progressive=True), width, height),
        "JPEG 2000": jp2[:size] + struct.pack(">8I", width, height, 0, 0, width, height, 0, 0) + jp2[size + 32 :],
        "WebP": encoded("RGBA", (12_000, 9_000), "WEBP", lossless=True, method=0),
        "AVIF": encoded("RGBA", (width, height), "AVIF", speed=10),
    }


def run(program: str, *arguments: Path) -> str:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=REPOSITORY).stdout


def memory_taken(folder: Path, data: bytes) -> int:
    """Bytes that a process takes for an image, beyond those for a small one."""
    (folder / "small").write_bytes(encoded("RGBA", (64, 64), "PNG"))
    (folder / "image").write_bytes(data)
    return int(run(MEASURED, folder / "small", folder / "image"))


@pytest.mark.parametrize("size", PHOTOGRAPHS.values(), ids=PHOTOGRAPHS)
def test_large_photographs_and_panoramas_are_within_the_defaults(size: tuple[int, int]) -> None:
    jpeg = with_sides(encoded("RGB", (8, 8), "JPEG"), *size)
    with pytest.raises(images.RejectedImage, match="corrupt"):  # for its blocks, not its sides
        images.prepare(jpeg)


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "JPEG2000", "PPM"])
def test_more_pixels_than_the_limit_are_rejected(image_format: str) -> None:
    data = encoded("RGB", (33, 32), image_format)
    with pytest.raises(images.RejectedImage, match=r"^too many pixels: more than 1,055$"):
        images.prepare(data, ImageLimits(max_pixels=33 * 32 - 1))
    assert images.prepare(data, ImageLimits(max_pixels=33 * 32)).width == 33


def test_a_side_longer_than_decoders_read_is_rejected() -> None:
    assert images.prepare(encoded("1", (60_000, 1), "PNG")).width == 60_000
    with pytest.raises(images.RejectedImage, match="a side of more than 65,500 pixels"):
        images.prepare(encoded("1", (1, 1_100_000), "PNG"))  # Pillow reads it, libpng and so TensorFlow do not
    assert image_limits.MAX_SIDE == 65_500


def test_a_file_above_the_limit_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "sparse.png").open("wb").truncate(300 * 2**20)
    with pytest.raises(images.RejectedImage, match=r"^file larger than 256 MiB$"):
        images.read(str(tmp_path / "sparse.png"))
    (tmp_path / "sparse.png").open("wb").truncate(2**20 + 1)
    with pytest.raises(images.RejectedImage, match=r"^file larger than 1 MiB$"):
        images.read(str(tmp_path / "sparse.png"), ImageLimits(max_mib=1))
    with pytest.raises(images.RejectedImage, match=r"^file larger than 1 MiB$"):
        images.prepare(bytes(2**20 + 1), ImageLimits(max_mib=1))


@pytest.mark.parametrize("progressive", [True, False])
def test_a_jpeg_of_many_scans_is_rejected(progressive: bool) -> None:
    jpeg = encoded("RGB", (64, 64), "JPEG", progressive=progressive)
    assert images.prepare(jpeg).data == jpeg
    with pytest.raises(images.RejectedImage, match="JPEG of too many scans"):
        images.prepare(with_scans(jpeg, 2000))


def test_a_large_jpeg_may_have_fewer_scans() -> None:
    jpeg = with_scans(encoded("RGB", (64, 64), "JPEG", progressive=True), 40)
    with pytest.raises(images.RejectedImage, match="JPEG of too many scans"):
        images.prepare(with_sides(jpeg, 12_000, 10_000))
    with pytest.raises(images.RejectedImage, match="inconsistent progression"):
        images.prepare(jpeg)


@needs_proc
@pytest.mark.parametrize(
    "kind",
    [kind if kind == "PNG with alpha" else pytest.param(kind, marks=pytest.mark.slow) for kind in BYTES_PER_PIXEL],
)
def test_the_memory_for_a_picture_is_bounded(kind: str, tmp_path: Path) -> None:
    image_format, mode, options, bound = BYTES_PER_PIXEL[kind]
    data = encoded(mode, (SIDE, SIDE), image_format, **options)
    assert memory_taken(tmp_path, data) < bound * SIDE**2 <= 26 * SIDE**2


@needs_proc
@pytest.mark.slow  # decodes 120 million pixels of each
def test_small_files_that_ask_for_much_take_what_a_large_picture_does(tmp_path: Path) -> None:
    for kind, data in small_files_that_ask_for_much().items():
        assert len(data) < 100_000, kind
        with ends_within(120):
            assert memory_taken(tmp_path, data) < 24 * image_limits.DEFAULT_PIXELS, kind


@needs_proc
def test_the_memory_for_a_tiff_of_ten_pixels_in_a_huge_tile_is_bounded(tmp_path: Path) -> None:
    more = [(259, 3, [8]), (322, 4, [70_000]), (323, 4, [70_000]), (324, 4, [8]), (325, 4, [99])]
    data = tiff(10, 10, bytes(100), more=more)
    with pytest.raises(images.RejectedImage, match=r"needs more than 3\.4 GiB of memory"):
        images.prepare(data)
    assert memory_taken(tmp_path, data) < 2**30


@needs_proc
def test_a_decoder_that_asks_for_more_memory_fails_and_the_next_image_does_not(tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(encoded("RGBA", (SIDE, SIDE), "PNG"))
    assert run(TOO_LITTLE, tmp_path / "large.png").splitlines() == ["needs more than 0.0 GiB of memory", "png"]


@needs_proc
def test_a_limit_of_memory_ends_with_its_block() -> None:
    with memory.limited(2**26), pytest.raises(MemoryError):
        bytearray(2**28)
    assert len(bytearray(2**28)) == 2**28


def test_flags_bound_the_images_of_a_build(tmp_path: Path) -> None:
    for name, side in (("cat/a", 8), ("cat/b", 8), ("dog/a", 8), ("dog/b", 8), ("dog/large", 30)):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / f"{name}.png").write_bytes(encoded("RGB", (side, side), "PNG"))
    given = flags.validate({"max_image_pixels": "100"}, ["max_image_pixels", "max_image_mib"])
    folders = str(tmp_path / "photos"), str(tmp_path / "data")
    build_tfrecords.build(*folders, eval_metadata=folders[0], options=ReadOptions.of(given))
    rows = list(csv.DictReader((tmp_path / "data" / "rejected.csv").open()))
    assert {(Path(row["path"]).name, row["reason"]) for row in rows} == {
        ("large.png", "too many pixels: more than 100")
    }


def test_records_have_the_limits_of_images_and_those_of_a_data_set_the_limits_of_its_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "a.png").write_bytes(encoded("RGB", (8, 8), "PNG"))
    folder, built = str(tmp_path / "photos"), str(tmp_path / "data")
    options = ReadOptions(max_image_pixels=10)
    shards = ",".join(build_tfrecords.build(folder, built, eval_metadata=folder).shard_paths("train"))
    for metadata in (shards, built):
        with pytest.raises(DataError, match="too many pixels: more than 10"):
            build_tfrecords.check(metadata, eval_metadata=metadata, options=options)
    monkeypatch.setattr(existing_tfrecords, "DEFAULT", options.limits)
    assert build_tfrecords.check(built, eval_metadata=built, options=options).splits["train"].examples == 2
    with pytest.raises(DataError, match="too many pixels: more than 10"):
        build_tfrecords.check(shards, eval_metadata=shards, options=options)


def test_a_png_of_many_empty_chunks_takes_the_time_of_its_bytes() -> None:
    png = encoded("RGB", (8, 8), "PNG")
    assert images.prepare(png[:33] + 10_000 * png_chunk(b"IDAT", b"") + png[33:]).width == 8
