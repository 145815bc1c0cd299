"""One worker's job on images: a chunk of images -> framed records, in a part file or as they are taken."""

from __future__ import annotations

import base64
import collections
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

from tf_image_classification import storage
from tf_image_classification.build_tfrecords import images, shards, signature, small_png
from tf_image_classification.build_tfrecords.worker_messages import (
    ChunkImage,
    ClassLabel,
    ImageChunk,
    ImageResult,
    PartResult,
    WrittenImage,
)
from tf_image_classification.data import fingerprint, tfrecord
from tf_image_classification.data.sources import ImageRoots, Rejected
from tf_image_classification.data.tasks import label_feature, text_feature
from tf_image_classification.errors import UserError
from tf_image_classification.image_limits import ImageLimits

_PARALLEL_READS = 8  # of images that are fetched over a network, where waiting takes longer than checking


def write_part(chunk: ImageChunk) -> PartResult:
    """Writes the part file of a chunk.

    Returns:
        What became of the images.

    Raises:
        UserError: the part cannot be written, or an image cannot be read because the disk or the network failed.
    """
    with shards.writing(chunk.part), open(chunk.part, "wb") as part:
        return check(chunk, part.write)


def check(chunk: ImageChunk, write: Callable[[bytes], object]) -> PartResult:
    """Checks the images of a chunk. Not for two threads of a process at once: memory is limited per process.

    Args:
        write: is given the framed record of each image that is not rejected, in their order.

    Returns:
        What became of the images.

    Raises:
        UserError: an image cannot be read because the disk or the network failed.
    """
    results: list[ImageResult] = []
    seen = []
    digests: list[int | None] = []
    contents = _contents([image.path for image in chunk.images], chunk.limits, chunk.roots)
    prepared = _prepared(contents, chunk.limits, chunk.max_side)
    for image, (data, encoded) in zip(chunk.images, prepared, strict=True):
        if chunk.fingerprinted:
            digests.append(_digest(chunk.fingerprinted, image, data))
        if isinstance(encoded, images.RejectedImage):
            results.append(Rejected(image.path, str(encoded)))
            continue
        record = tfrecord.frame(encode(encoded, image.filename, chunk.tasks, image.labels))
        write(record)
        results.append(_written(image, data, encoded, len(record)))
        seen.append(_seen(data, encoded))
    return PartResult(results, signature.looks_of(seen), digests)


def _prepared(
    contents: Iterable[Callable[[], bytes]], limits: ImageLimits, max_side: int
) -> Iterator[tuple[bytes, images.Encoded | images.RejectedImage]]:
    """The content of each image, empty if it cannot be read, and what images.prepare makes of it or why it is rejected.

    Of small PNGs that follow each other all are read first.
    """
    waiting: list[tuple[bytes, small_png.SmallPng]] = []
    for read in contents:
        data = b""
        try:
            data = read()
            if small := small_png.read(data, limits, max_side):
                waiting.append((data, small))
                continue
            result: images.Encoded | images.RejectedImage = images.prepare(data, limits, max_side)
        except images.RejectedImage as rejection:
            result = rejection
        yield from _prepared_pngs(waiting, limits, max_side)
        waiting.clear()
        yield data, result
    yield from _prepared_pngs(waiting, limits, max_side)


def _prepared_pngs(
    pngs: Sequence[tuple[bytes, small_png.SmallPng]], limits: ImageLimits, max_side: int
) -> Iterator[tuple[bytes, images.Encoded | images.RejectedImage]]:
    pictures = small_png.scaled([picture for _, picture in pngs])
    if pictures is not None:
        for (data, picture), scaled in zip(pngs, pictures, strict=True):
            yield data, images.Encoded(data, images.PNG, picture.height, picture.width, False, scaled)
        return
    for data, _ in pngs:  # one of them is damaged
        try:
            yield data, images.prepare(data, limits, max_side)
        except images.RejectedImage as rejection:
            yield data, rejection


def _digest(metadata: str, image: ChunkImage, data: bytes) -> int | None:
    """What a file of this machine adds to the fingerprint; None if nothing was read, or under another path."""
    path = image.path
    if not data or storage.is_remote(path) or not (path.isascii() or os.path.exists(path)):
        return None
    return fingerprint.file_digest(metadata, image.filename, data)


def encode(image: images.Encoded, filename: str, task_names: Sequence[str], labels: Sequence[ClassLabel]) -> bytes:
    """The tf.train.Example of an image, with slim's feature names.

    Args:
        filename: relative to the image's root.
        task_names: names of the tasks.
        labels: a class per task.
    """
    features: dict[str, tfrecord.FeatureValue] = {
        "image/encoded": image.data,
        "image/format": image.format.encode(),
        "image/height": image.height,
        "image/width": image.width,
        "image/filename": os.fsencode(filename),
    }
    for task, label in zip(task_names, labels, strict=True):
        features[label_feature(task, len(task_names))] = label.id
        features[text_feature(task, len(task_names))] = label.name.encode()
    return tfrecord.encode_example(features)


def _seen(data: bytes, encoded: images.Encoded) -> signature.Seen:
    """What duplicates are found by: what --max_side has reduced is looked at as it was, so that they stay the same."""
    if encoded.downscaled_from:
        return signature.seen(data, encoded.scaled, encoded.downscaled_from)
    return signature.seen(encoded.data, encoded.scaled, min(encoded.height, encoded.width))


def _written(image: ChunkImage, data: bytes, encoded: images.Encoded, record_bytes: int) -> WrittenImage:
    thumbnail = base64.b64encode(images.thumbnail(encoded.data)).decode() if image.wants_thumbnail else None
    return WrittenImage(
        record_bytes,
        encoded.height,
        encoded.width,
        encoded.format,
        encoded.reencoded,
        len(data) if encoded.downscaled_from else 0,
        thumbnail=thumbnail,
    )


def _contents(paths: list[str], limits: ImageLimits, roots: ImageRoots) -> Iterator[Callable[[], bytes]]:
    """Per path, in their order, a function that returns its content. Of images on gs:// the next are prefetched."""
    if not any(map(storage.is_remote, paths)):
        yield from (functools.partial(_read, path, limits, roots) for path in paths)
        return
    from concurrent.futures import Future, ThreadPoolExecutor

    pending: collections.deque[Future[bytes]] = collections.deque()
    with ThreadPoolExecutor(_PARALLEL_READS) as pool:
        for path in paths:
            pending.append(pool.submit(_read, path, limits, roots))
            if len(pending) == _PARALLEL_READS:
                yield pending.popleft().result
        while pending:
            yield pending.popleft().result


def _read(path: str, limits: ImageLimits, roots: ImageRoots) -> bytes:
    try:
        return images.read(path, limits, roots)
    except (images.RejectedImage, UserError):
        raise
    except Exception as error:  # a failing disk, whatever it raises: leaving the image out would hide it
        raise UserError(
            "The disk or the network failed while an image was read",
            received=f"{path}: {error!r}",
            hint="Build again when it works again.",
        ) from error
