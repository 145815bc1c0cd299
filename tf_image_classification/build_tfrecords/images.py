"""An image file -> what a shard stores: the file byte for byte, or re-encoded; or it is rejected with a reason.

Shards hold 8-bit RGB or grey JPEG or PNG. Whatever passes here, tf.io.decode_jpeg, decode_png and decode_image read
too. A JPEG or PNG that lacks nothing but its end marker counts as truncated, because TensorFlow rejects it as well.
"""

from __future__ import annotations

import errno
import io
import os
import warnings
from typing import TYPE_CHECKING, NamedTuple

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    ImageOps,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from tf_image_classification import image_limits, storage
from tf_image_classification.build_tfrecords import (
    contents,
    downscaling,
    jpeg_file,
    memory,
    pixels,
    png_file,
    rejection,
    signature,
    tiff_file,
)
from tf_image_classification.build_tfrecords.rejection import RejectedImage
from tf_image_classification.data.sources import ImageRoots
from tf_image_classification.errors import DataError
from tf_image_classification.image_limits import ImageLimits

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["JPEG", "PNG", "Encoded", "RejectedImage", "prepare", "read", "thumbnail"]

JPEG, PNG = "jpeg", "png"

# Importing a plugin registers it (JPEG's knows MPO too). Not all of Pillow's are wanted: some start other programs.
_FORMATS = tuple(
    plugin.format
    for plugin in (
        JpegImagePlugin.JpegImageFile,
        PngImagePlugin.PngImageFile,
        GifImagePlugin.GifImageFile,
        BmpImagePlugin.BmpImageFile,
        WebPImagePlugin.WebPImageFile,
        TiffImagePlugin.TiffImageFile,
        AvifImagePlugin.AvifImageFile,
        PpmImagePlugin.PpmImageFile,
        Jpeg2KImagePlugin.Jpeg2KImageFile,
    )
)
_JPEG_SIGNATURE = b"\xff\xd8\xff"
_SIGNATURES = (_JPEG_SIGNATURE, png_file.SIGNATURE, b"GIF8", b"BM")
_AVIF_SIGNATURE, _WEBP_SIGNATURE = b"ftypavi", b"WEBP"
_UNTURNED, _ORIENTATION = 1, 0x0112
_QUALITY, _FULL_CHROMA = 95, 0
_THUMBNAIL = 96
_OUT_OF_MEMORY = ("memory", "error -9")  # in messages; the second is Pillow's IMAGING_CODEC_MEMORY


class Encoded(NamedTuple):
    """An image as it goes into a shard.

    Attributes:
        data: the JPEG or PNG.
        format: `jpeg` or `png`.
        height, width: pixels.
        reencoded: False when `data` is the file, byte for byte.
        scaled: the picture for signature.of_all, uint8 (height, width, 1 or 3); that of the file, also of a downscaled
            image.
        downscaled_from: the shorter side in pixels, if it was reduced; else 0.
    """

    data: bytes
    format: str
    height: int
    width: int
    reencoded: bool
    scaled: npt.NDArray[np.uint8]
    downscaled_from: int = 0


def read(path: str, limits: ImageLimits = image_limits.DEFAULT, roots: ImageRoots | None = None) -> bytes:
    """The content of an image file.

    Args:
        path: local or gs://.
        limits: of which the bytes of a file matter here: one that has more is not read.
        roots: that the file has to be in when it is open, whatever links lead there; None: anywhere.

    Raises:
        RejectedImage: the file is missing, may not be read, is empty, far too large, no regular file, or outside
            the roots.
        OSError: the disk or the network fails, which is not the image's fault.
    """
    try:
        local = storage.mounted(path)
        is_remote = storage.is_remote(local)
        data = storage.read_bytes(path, limits.max_bytes) if is_remote else _read_local(local, limits, roots)
    except PermissionError:
        raise RejectedImage(rejection.PERMISSION_DENIED) from None
    except DataError:  # a ValueError too; the download of an object ended at the limit
        raise RejectedImage(rejection.too_large(limits.max_mib)) from None
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the name
        if other := storage.other_form(path):
            return read(other, limits, roots)
        raise RejectedImage(rejection.FILE_NOT_FOUND) from None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
            raise RejectedImage(rejection.FILE_NOT_FOUND) from None
        raise
    if not data:
        raise RejectedImage(rejection.EMPTY)
    return data


def _read_local(path: str, limits: ImageLimits, roots: ImageRoots | None) -> bytes:
    try:
        descriptor, size = storage.open_descriptor(path)
    except (DataError, IsADirectoryError):  # DataError: a pipe or a device
        raise RejectedImage(rejection.NOT_A_FILE) from None
    try:
        if size > limits.max_bytes:
            raise RejectedImage(rejection.too_large(limits.max_mib))
        if roots is not None and not roots.contain_open(path, descriptor):
            raise RejectedImage(roots.outside)
        return storage.read_descriptor(descriptor, size)
    finally:
        os.close(descriptor)


def prepare(data: bytes, limits: ImageLimits = image_limits.DEFAULT, max_side: int = 0) -> Encoded:
    """The image as it goes into a shard, proved decodable to its last row.

    Args:
        data: content of an image file. Its first bytes decide the format.
        limits: of the image; decoding takes at most `limits.memory`.
        max_side: pixels to which a longer shorter side is reduced; 0 for none.

    Raises:
        RejectedImage: it cannot be decoded, its pixels have no 8-bit form, or it is beyond the limits.
    """
    if len(data) > limits.max_bytes:
        raise RejectedImage(rejection.too_large(limits.max_mib))
    import simplejpeg  # noqa: F401 -- before the limit: on many cores, NumPy's libraries take much memory

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata, which is dropped here or does no harm
        try:
            with memory.limited(limits.memory):
                return _prepare(data, limits, max_side)
        except RejectedImage:
            raise
        except Image.DecompressionBombError:
            raise RejectedImage(rejection.too_many_pixels(image_limits.MAX_PIXELS)) from None
        except Exception as error:
            is_memory = isinstance(error, MemoryError) or any(text in str(error).lower() for text in _OUT_OF_MEMORY)
            reason = rejection.too_much_memory(limits.memory) if is_memory else _reason(data, error)
            raise RejectedImage(reason) from None


def _prepare(data: bytes, limits: ImageLimits, max_side: int) -> Encoded:
    if data.startswith(_JPEG_SIGNATURE):
        return _prepare_jpeg(data, limits, max_side)
    if data.startswith(png_file.SIGNATURE):
        return _prepare_png(data, limits, max_side)
    if data.startswith(tiff_file.SIGNATURES):
        tiff_file.check(data)
    image = _open_heic(data) if contents.is_heic(data) else _open(data)
    _check_sides(image, limits)
    image.load()
    return _reencode(image, max_side, lossy=pixels.is_lossy(data, image))


def _check_sides(image: Image.Image, limits: ImageLimits) -> None:
    """Checks what the header says, before a pixel is decoded."""
    if image.width * image.height > limits.max_pixels:
        raise RejectedImage(rejection.too_many_pixels(limits.max_pixels))
    if max(image.size) > image_limits.MAX_SIDE:
        raise RejectedImage(rejection.TOO_LONG)


def _are_within(width: int, height: int, limits: ImageLimits) -> bool:
    return width * height <= limits.max_pixels and max(width, height) <= image_limits.MAX_SIDE


def _prepare_jpeg(data: bytes, limits: ImageLimits, max_side: int) -> Encoded:
    plain = jpeg_file.plain(data)
    if plain and _are_within(plain.width, plain.height, limits) and not 0 < max_side < min(plain.width, plain.height):
        scaled = jpeg_file.whole_pixels(data, plain)
        if scaled is not None:
            return Encoded(data, JPEG, plain.height, plain.width, False, signature.scaled_further(scaled))
    image = _open(data)  # an MPO is a JPEG with further pictures behind it, which decoders of JPEG do not read
    _check_sides(image, limits)
    coding = jpeg_file.check(data)
    width, height = image.size
    shorter_side = min(width, height)
    is_large = 0 < max_side < shorter_side
    is_plain = coding.is_common and image.mode in ("RGB", "L") and _orientation(image) == _UNTURNED
    if is_plain and not is_large:
        if coding.pixels is None:
            image.load()
            return Encoded(data, JPEG, height, width, False, signature.scaled_picture(image))
        return Encoded(data, JPEG, height, width, False, signature.scaled_further(coding.pixels))
    if is_large and not coding.lossless:
        downscaling.decode_smaller(image, max_side)
    try:
        image.load()
    except OSError:
        if coding.is_common:
            raise
        reason = rejection.LOSSLESS_JPEG if coding.lossless else rejection.ARITHMETIC_JPEG
        raise RejectedImage(reason) from None
    encoded = _reencode(image, max_side, lossy=not coding.lossless, shorter_side=shorter_side)
    if is_plain and coding.pixels is not None:
        return encoded._replace(scaled=signature.scaled_further(coding.pixels))
    return encoded


def _prepare_png(data: bytes, limits: ImageLimits, max_side: int) -> Encoded:
    chunks = png_file.read(data)
    image = _open(chunks.pixels)
    _check_sides(image, limits)
    image.load()
    if not png_file.has_rows(chunks):
        raise RejectedImage(rejection.TRUNCATED)
    is_opaque = chunks.colour_type in (0, 2) and "transparency" not in image.info
    is_plain = chunks.is_orderly and chunks.depth == 8 and is_opaque and _orientation(image) == _UNTURNED
    if is_plain and not 0 < max_side < min(image.size):
        return Encoded(data, PNG, image.height, image.width, False, signature.scaled_picture(image))
    return _reencode(image, max_side, lossy=False)


def _reencode(image: ImageFile.ImageFile, max_side: int, lossy: bool, shorter_side: int = 0) -> Encoded:
    """The image, upright and not larger than `max_side`.

    Args:
        image: loaded.
        lossy: whether the file was.
        shorter_side: of the file, in pixels; 0: that of `image`, which was not decoded at a smaller size.
    """
    shorter_side = shorter_side or min(image.size)
    if _orientation(image) != _UNTURNED:
        ImageOps.exif_transpose(image, in_place=True)
    picture = pixels.to_8_bits(image)
    scaled = signature.scaled_picture(picture)
    is_large = 0 < max_side < shorter_side
    if is_large:
        picture = downscaling.downscaled(picture, max_side)
    buffer = io.BytesIO()
    if not lossy:
        picture.save(buffer, "PNG")
    elif is_large:
        picture.save(buffer, "JPEG", quality=downscaling.JPEG_QUALITY)
    else:
        picture.save(buffer, "JPEG", quality=_QUALITY, subsampling=_FULL_CHROMA)
    image_format = JPEG if lossy else PNG
    downscaled_from = shorter_side if is_large else 0
    return Encoded(buffer.getvalue(), image_format, picture.height, picture.width, True, scaled, downscaled_from)


def _reason(data: bytes, error: Exception) -> str:
    """Why an image is rejected whose decoder failed; on damaged files these raise anything: SyntaxError, EOFError."""
    if contents.is_heic(data):
        return rejection.CORRUPT_HEIC
    if contents.is_jpeg_2000(data):
        return rejection.CORRUPT_JPEG_2000
    if isinstance(error, UnidentifiedImageError):
        if data.startswith(tiff_file.SIGNATURES):
            return tiff_file.refusal(data)
        if name := contents.name_of(data):
            return name
        if not data.startswith(_SIGNATURES) and _AVIF_SIGNATURE not in data[4:12] and data[8:12] != _WEBP_SIGNATURE:
            return rejection.NOT_AN_IMAGE
    truncated = isinstance(error, EOFError) or "truncated" in str(error).lower()
    return rejection.TRUNCATED if truncated else rejection.CORRUPT


def _open(data: bytes) -> ImageFile.ImageFile:
    return Image.open(io.BytesIO(data), formats=_FORMATS)


def _open_heic(data: bytes) -> ImageFile.ImageFile:
    try:
        # Importing it registers the format. An extra, because its libraries are large.
        from pillow_heif import HeifImagePlugin  # noqa: F401
    except ImportError:
        raise RejectedImage(rejection.HEIC_WITHOUT_DECODER) from None
    return Image.open(io.BytesIO(data), formats=("HEIF",))


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, _UNTURNED)
    except Exception:  # broken metadata does not make a picture unusable, and is not read by TensorFlow
        return _UNTURNED
    return value if isinstance(value, int) and 1 <= value <= 8 else _UNTURNED


def thumbnail(data: bytes) -> bytes:
    """A small JPEG of a JPEG or PNG from `prepare`, at most 96 pixels wide and high."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Pillow refuses a PNG because of large metadata, which is read as pixels alone for that reason.
        image = _open(png_file.read(data).pixels if data.startswith(png_file.SIGNATURE) else data)
        image.draft("RGB", (_THUMBNAIL, _THUMBNAIL))
        # Pillow does not scale 16-bit grey down.
        picture = pixels.to_8_bits(image) if image.mode.startswith("I") else image
        picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
        buffer = io.BytesIO()
        picture.convert("RGB").save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
