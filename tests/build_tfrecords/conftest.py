from __future__ import annotations

from pathlib import Path

import pytest

from tests.build_tfrecords.beam_inputs import SHARD_BYTES
from tests.build_tfrecords.support import digests, pictures
from tf_image_classification import build_tfrecords


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """More images than are built in the calling process."""
    return pictures(tmp_path_factory.mktemp("many"), {"cat": 150, "dog": 150})


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> str:
    """60 small pictures of cats and 60 of dogs, which builds on Apache Beam read."""
    return str(pictures(tmp_path_factory.mktemp("photos"), {"cat": 60, "dog": 60}))


@pytest.fixture(scope="session")
def expected(photos, tmp_path_factory) -> dict[str, str]:
    """The digests of the files that this machine writes of `photos`, in shards of SHARD_BYTES."""
    folder = tmp_path_factory.mktemp("expected") / "data"
    build_tfrecords.build(photos, str(folder), shard_bytes=SHARD_BYTES)
    return digests(folder)
