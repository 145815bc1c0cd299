"""A picture whose shorter side is above --max_side -> the same picture at this size."""

from __future__ import annotations

from PIL import Image, ImageFile

JPEG_QUALITY = 90

# The filter gets a picture of at least twice the size: libjpeg's scaled decoding, or an average over blocks, then
# differs from filtering all pixels by a quarter of a grey level, in half the time.
_GAP = 2.0


def decode_smaller(image: ImageFile.ImageFile, max_side: int) -> None:
    """Makes Pillow decode a JPEG that is not loaded yet at 1/2, 1/4 or 1/8 of its size, where that leaves enough."""
    width, height = _size(image.size, max_side)
    image.draft(None, (int(_GAP * width), int(_GAP * height)))


def downscaled(picture: Image.Image, max_side: int) -> Image.Image:
    """A picture of mode L or RGB with a shorter side of `max_side` pixels."""
    return picture.resize(_size(picture.size, max_side), Image.Resampling.LANCZOS, reducing_gap=_GAP)


def _size(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    shorter_side = min(size)
    width, height = (round(side * max_side / shorter_side) for side in size)
    return width, height
