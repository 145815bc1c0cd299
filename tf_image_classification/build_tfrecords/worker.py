"""One worker's jobs: a chunk of images -> a file of framed records; a TFRecord file -> what it holds.

A job and its answer are JSON objects. The same function runs them in this process or, line by line, in a process of its
own.
"""

from __future__ import annotations

import base64
import collections
import functools
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

from tf_image_classification import storage
from tf_image_classification.build_tfrecords import images, records
from tf_image_classification.data import tfrecord
from tf_image_classification.errors import UserError

Job = dict[str, Any]
Answer = dict[str, Any]

_READ_AHEAD = 8  # images that come over a network, where waiting takes longer than checking


def run(job: Job) -> Answer:
    """Does one job.

    Args:
        job: for a chunk of images `part` (the file to write), `tasks` (names) and `entries`, each [path, filename,
            [[id, text] per task], whether a thumbnail is wanted]; for a TFRecord file `records` (its path) and
            `num_thumbnails`.

    Returns:
        For a chunk `results`, one per entry: the reason of a rejection, or [bytes in the part, height, width, format,
        re-encoded, thumbnail or None]. For a TFRecord file what `records.inspect` says. `error`, an error's parts, when
        the work cannot go on.
    """
    try:
        return _inspect(job) if "records" in job else {"results": _write_part(job)}
    except UserError as error:
        return {
            "error": {
                "problem": error.problem,
                "received": error.received,
                "expected": error.expected,
                "hint": error.hint,
            },
            "kind": type(error).__name__,
        }


def _inspect(job: Job) -> Answer:
    try:
        return records.inspect(job["records"], job["num_thumbnails"])
    except OSError as error:
        raise UserError(
            "A TFRecord file cannot be read", received=f"{job['records']}: {error.strerror or error}"
        ) from error


def _write_part(job: Job) -> list[str | list[Any]]:
    results: list[str | list[Any]] = []
    try:
        with open(job["part"], "wb") as part:
            contents = _contents([entry[0] for entry in job["entries"]])
            for (_, filename, labels, look), content in zip(job["entries"], contents, strict=True):
                try:
                    image = images.prepare(content())
                except images.RejectedImage as rejection:
                    results.append(str(rejection))
                    continue
                record = tfrecord.frame(encode(image, filename, job["tasks"], labels))
                part.write(record)
                thumbnail = base64.b64encode(images.thumbnail(image.data)).decode() if look else None
                results.append([len(record), image.height, image.width, image.format, image.reencoded, thumbnail])
    except OSError as error:
        raise UserError(
            "The shards cannot be written",
            received=f"{job['part']}: {error.strerror or error}",
            hint="Free some space and build again.",
        ) from error
    return results


def _contents(paths: list[str]) -> Iterator[Callable[[], bytes]]:
    """What gives the content of each path, in their order; of those on gs:// some are read before they are asked
    for."""
    if not any(map(storage.is_gcs, paths)):
        yield from (functools.partial(_read, path) for path in paths)
        return
    from concurrent.futures import Future, ThreadPoolExecutor

    ahead: collections.deque[Future[bytes]] = collections.deque()
    with ThreadPoolExecutor(_READ_AHEAD) as pool:
        for path in paths:
            ahead.append(pool.submit(_read, path))
            if len(ahead) == _READ_AHEAD:
                yield ahead.popleft().result
        while ahead:
            yield ahead.popleft().result


def _read(path: str) -> bytes:
    try:
        return images.read(path)
    except (images.RejectedImage, UserError):
        raise
    except Exception as error:  # a failing disk, whatever it raises: leaving the image out would hide it
        raise UserError(
            "An image cannot be read, for a reason that lies outside the image",
            received=f"{path}: {error!r}",
            hint="Build again when the disk or the network is well.",
        ) from error


def encode(image: images.Encoded, filename: str, tasks: list[str], labels: list[list[Any]]) -> bytes:
    """The tf.train.Example of an image, with slim's feature names.

    Args:
        filename: relative to the image's root.
        tasks: their names.
        labels: class id and class name per task.
    """
    features: dict[str, tfrecord.FeatureValue] = {
        "image/encoded": image.data,
        "image/format": image.format.encode(),
        "image/height": image.height,
        "image/width": image.width,
        "image/filename": os.fsencode(filename),
    }
    for task, (class_id, text) in zip(tasks, labels, strict=True):
        prefix = records.label_prefix(task, len(tasks))
        features[prefix + "label"] = class_id
        features[prefix + "text"] = text.encode()
    return tfrecord.encode_example(features)


def serve() -> None:
    """Answers jobs, a line each, from standard input to standard output until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent ends its workers
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)
