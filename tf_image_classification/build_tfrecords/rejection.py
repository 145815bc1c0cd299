"""Why an image is not in the shards. A reason is short, and the same for the same defect: the manifest counts them."""

from __future__ import annotations

FILE_NOT_FOUND = "file not found"
PERMISSION_DENIED = "permission denied"
NOT_A_FILE = "not a file"
EMPTY = "empty file"
NOT_AN_IMAGE = "not an image"
HOLE_IN_JPEG = "corrupt JPEG data: a hole of zeros"
TRUNCATED = "truncated image"
CORRUPT = "corrupt image"
TOO_LONG = "a side of more than 65,500 pixels"
TOO_MANY_SCANS = "JPEG of too many scans"
FLOATING_POINT = "floating-point pixels"
WIDE_INTEGERS = "32-bit pixels"
SIGNED_INTEGERS = "signed integer pixels"
FULLY_TRANSPARENT = "fully transparent"
CAMERA_RAW = "camera raw image"
DEEP_PLANES = "16-bit TIFF in separate colour planes"
UNSUPPORTED_TIFF = "TIFF of a layout that is not supported"
LOSSLESS_JPEG = "lossless JPEG"
ARITHMETIC_JPEG = "arithmetic-coded JPEG"
HIERARCHICAL_JPEG = "hierarchical JPEG"
DEEP_JPEG = "JPEG of more than 8 bits"
HEIC_WITHOUT_DECODER = "HEIC image (install the extra heic)"
CORRUPT_HEIC = "corrupt HEIC image"
CORRUPT_JPEG_2000 = "corrupt JPEG 2000 image"


def too_large(mib: int) -> str:
    """Of a file above --max_image_mib."""
    return f"file larger than {mib:,} MiB"


def too_many_pixels(pixels: int) -> str:
    """Of a picture above --max_image_pixels, or above what no flag allows."""
    return f"too many pixels: more than {pixels:,}"


def too_much_memory(num_bytes: int) -> str:
    """Of a picture whose decoder asks for more."""
    return f"needs more than {num_bytes / 2**30:.1f} GiB of memory"


class RejectedImage(Exception):
    """An image that cannot be used. Its text is the reason."""
