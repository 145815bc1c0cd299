"""Thumbnails of pictures whose files are read once more: of near duplicates, which are known when all are compared."""

from __future__ import annotations

import base64
import functools
import io
import threading
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from PIL import Image, JpegImagePlugin

from tf_image_classification.build_tfrecords import images, local
from tf_image_classification.data.sources import ImageRoots
from tf_image_classification.image_limits import HIGHEST

_THREADS = 8  # at most: each has a picture in memory
_MANY_PIXELS = 2**25  # a progressive JPEG of so many takes 200 MB; larger ones are decoded one at a time
_UNTURNED, _ORIENTATION = 1, 0x0112


def of_all(paths: Iterable[str], roots: ImageRoots) -> dict[str, str]:
    """Path -> JPEG in base64, '' of a file that cannot be read any more.

    Each is made once, on all cores: Pillow does not hold the interpreter while it decodes and scales.

    Args:
        paths: of images that a build has checked.
        roots: that they are read from.
    """
    distinct = list(dict.fromkeys(paths))
    make = functools.partial(_thumbnail, roots, threading.Lock())
    # Each thread changes the filters of warnings and restores them, in any order: they are those of the process.
    with warnings.catch_warnings(), ThreadPoolExecutor(min(_THREADS, local.cores())) as executor:
        return dict(zip(distinct, executor.map(make, distinct), strict=True))


def _thumbnail(roots: ImageRoots, one_at_a_time: threading.Lock, path: str) -> str:
    try:
        data = images.read(path, HIGHEST, roots)
        if _is_small_and_stored_as_it_is(data):
            thumbnail = images.thumbnail(data)
        else:
            with one_at_a_time:  # images.prepare limits the memory of the process
                thumbnail = images.thumbnail(images.prepare(data, HIGHEST).data)
        return base64.b64encode(thumbnail).decode()
    except Exception:  # it has vanished or changed since it was built
        return ""


def _is_small_and_stored_as_it_is(data: bytes) -> bool:
    """Whether a file is a JPEG that images.prepare would check once more and then return."""
    if not data.startswith(b"\xff\xd8\xff"):
        return False
    with Image.open(io.BytesIO(data), formats=(JpegImagePlugin.JpegImageFile.format,)) as image:
        is_small = image.width * image.height <= _MANY_PIXELS
        is_upright = image.getexif().get(_ORIENTATION, _UNTURNED) == _UNTURNED
        return is_small and is_upright and image.mode in ("RGB", "L")
