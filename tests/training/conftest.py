from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.standin import bucket as standin


@pytest.fixture
def service(monkeypatch, tmp_path) -> Iterator[standin.Buckets]:
    """An empty bucket `models`, and a folder of its own for temporary files."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with standin.Buckets("models") as service:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", service.url)
        yield service


@pytest.fixture
def data(service, built_data) -> str:
    """The built data set in the bucket."""
    standin.fill(service.url, "models", "data", Path(built_data.folder))
    return "gs://models/data"
