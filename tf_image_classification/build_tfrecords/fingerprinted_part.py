"""One worker's job on images of this machine: their part file, and what they add to the fingerprint of the data."""

from __future__ import annotations

from tf_image_classification.build_tfrecords import part_file
from tf_image_classification.build_tfrecords.worker_messages import ImageChunk, PartResult
from tf_image_classification.data import fingerprint


def write_part(chunk: ImageChunk) -> PartResult:
    """Does what part_file.write_part does, and hashes the files where the chunk asks for it.

    Raises:
        UserError: see part_file.write_part.
    """
    part = part_file.write_part(chunk)
    if not chunk.fingerprinted:
        return part
    digests = [fingerprint.file_digest(chunk.fingerprinted, image.path, image.filename) for image in chunk.images]
    return part._replace(digests=digests)
