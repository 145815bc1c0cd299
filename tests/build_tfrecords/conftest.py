from __future__ import annotations

from pathlib import Path

import pytest

from tests.build_tfrecords.support import pictures


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """More images than are built in the calling process."""
    return pictures(tmp_path_factory.mktemp("many"), {"cat": 150, "dog": 150})
