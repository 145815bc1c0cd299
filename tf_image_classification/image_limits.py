"""What an image may take: the limits of a build, which flags lower or raise, and those that a served model keeps too.

Memory and time of decoding follow from the sides in an image's header and from the number of scans, not from the size
of its file: 300 kB of PNG may hold 100 million pixels.
"""

from __future__ import annotations

from typing import NamedTuple

DEFAULT_PIXELS = 120_000_000  # --max_image_pixels: a photograph of 108 megapixels passes
# Largest width * height of an image, whatever the flag: Pillow's limit, and that of the served model.
MAX_PIXELS = 178_956_970
# Longest side in pixels: libjpeg's JPEG_MAX_DIMENSION. Of PNGs, TensorFlow reads up to 1,000,000, Pillow any.
MAX_SIDE = 65_500
# Most scans of a JPEG: encoders write about 10. Each goes over the whole picture, whatever its bytes ("Two Issues with
# the JPEG Standard", libjpeg-turbo.org).
MAX_JPEG_SCANS = 100
# Most scans * pixels of a JPEG: 20 scans of the largest picture, as encoders write of CMYK, in some 3 s.
MAX_SCANNED_PIXELS = 20 * MAX_PIXELS

DEFAULT_MIB = 256  # --max_image_mib
MAX_MIB = 1024
_MIB = 2**20
# Measured for each format: RGBA in JPEG 2000 takes most, 24; JPEG and PNG take up to 12. Decoders' threads have stacks.
_BYTES_PER_PIXEL, _BASE_BYTES = 24, 2**28


class ImageLimits(NamedTuple):
    """The limits of a build.

    Attributes:
        max_pixels: width * height.
        max_mib: of an encoded image, in MiB.
    """

    max_pixels: int = DEFAULT_PIXELS
    max_mib: int = DEFAULT_MIB

    @property
    def max_bytes(self) -> int:
        """Of an encoded image."""
        return self.max_mib * _MIB

    @property
    def memory(self) -> int:
        """Bytes that decoding and encoding an image may take, with two copies of its file."""
        return _BASE_BYTES + _BYTES_PER_PIXEL * self.max_pixels + 2 * self.max_bytes


DEFAULT = ImageLimits()
HIGHEST = ImageLimits(MAX_PIXELS, MAX_MIB)
