"""How much of a data set large images are: what --max_side did to them, or would save."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tf_image_classification.build_tfrecords.worker_messages import WrittenImage
from tf_image_classification.data.manifest import Downscaled

SIDE = 512  # pixels: at least 1.5 times the input of most networks

_MIN_FACTOR = 2.0  # of pixels to decode; below, reading anew and another encoding are not worth it


@dataclass
class LargeImages:
    """Counts of the images that were written: memory does not grow with their number."""

    images: int = 0
    bytes: int = 0
    pixels: int = 0
    large: int = 0
    large_bytes: int = 0
    pixels_at_side: float = 0.0
    downscaled: int = 0
    file_bytes: int = 0
    downscaled_bytes: int = 0

    def add(self, image: WrittenImage) -> None:
        """Counts one image."""
        pixels, shorter_side = image.height * image.width, min(image.height, image.width)
        is_large = shorter_side > SIDE
        self.images += 1
        self.bytes += image.record_bytes
        self.pixels += pixels
        self.large += is_large
        self.large_bytes += is_large * image.record_bytes
        self.pixels_at_side += pixels * (SIDE / shorter_side) ** 2 if is_large else pixels
        if image.downscaled_bytes:
            self.downscaled += 1
            self.file_bytes += image.downscaled_bytes
            self.downscaled_bytes += image.record_bytes

    def done(self, max_side: int) -> Downscaled:
        """What --max_side did, for the manifest."""
        return Downscaled(max_side, self.downscaled, self.file_bytes, self.downscaled_bytes)

    @property
    def advice(self) -> str:
        """A sentence that says what --max_side would save; '' where that is not much."""
        if not self.large or self.pixels < _MIN_FACTOR * self.pixels_at_side:
            return ""
        return (
            f"{self.large / self.images:.0%} of the images have a shorter side of more than {SIDE} pixels and take "
            f"{self.large_bytes / self.bytes:.0%} of the bytes: with --max_side {SIDE}, a training would decode "
            f"1/{self.pixels / self.pixels_at_side:.0f} of the pixels"
        )


def together(parts: Iterable[Downscaled]) -> Downscaled | None:
    """What --max_side did in several builds: sums, and the smallest value that reduced an image. None without any."""
    found = list(parts)
    if not found:
        return None
    return Downscaled(
        max_side=min((part.max_side for part in found if part.images), default=found[0].max_side),
        images=sum(part.images for part in found),
        file_bytes=sum(part.file_bytes for part in found),
        record_bytes=sum(part.record_bytes for part in found),
    )
