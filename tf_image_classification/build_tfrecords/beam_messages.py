"""Chunks of images and their results as JSON: what is read from a folder that others may write to runs no code."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tf_image_classification.build_tfrecords.signature import Look
from tf_image_classification.build_tfrecords.worker_messages import (
    ChunkImage,
    ClassLabel,
    ImageChunk,
    PartResult,
    WrittenImage,
)
from tf_image_classification.data.sources import Rejected


class Chunks:
    """Numbered chunks as JSON. What many of them have in common, such as the roots, is told apart from their images.

    Attributes:
        common: chunks without images; a chunk in JSON names the one that it is like.
    """

    def __init__(self, common: Sequence[ImageChunk] = ()) -> None:
        self.common = list(common)

    def to_json(self, number: int, chunk: ImageChunk) -> bytes:
        """A chunk and its number, in one line."""
        known = (
            index for index, like in enumerate(self.common) if like.split == chunk.split and like.roots is chunk.roots
        )
        index = next(known, len(self.common))
        if index == len(self.common):
            self.common.append(replace(chunk, images=()))
        return json.dumps([number, index, chunk.images]).encode()

    def from_json(self, line: bytes) -> tuple[int, ImageChunk]:
        """What `to_json` was given."""
        number, index, listed = json.loads(line)
        images = (
            ChunkImage(path, filename, tuple(ClassLabel(*label) for label in labels), wants_thumbnail)
            for path, filename, labels, wants_thumbnail in listed
        )
        return number, replace(self.common[index], images=tuple(images))


def result_to_json(chunk: bytes, part: PartResult) -> bytes:
    """A chunk, in JSON, and what became of it, in one line."""
    looks = [(_text(look.content), look.is_small, _text(look.signature)) for look in part.looks]
    return json.dumps([chunk.decode(), part.images, looks]).encode()


def result_from_json(line: bytes) -> tuple[bytes, PartResult]:
    """What `result_to_json` was given."""
    chunk, images, looks = json.loads(line)
    return chunk.encode(), PartResult(
        [_image(values) for values in images],
        [Look(base64.b64decode(content), is_small, base64.b64decode(sign)) for content, is_small, sign in looks],
    )


def _image(values: list[Any]) -> WrittenImage | Rejected:
    return Rejected(*values) if len(values) == len(Rejected._fields) else WrittenImage(*values)


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
