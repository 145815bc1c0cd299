"""Conditional writes: of several processes that update one file, none overwrites an update it has not read."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.standin import faults
from tests.standin.faults import Fault
from tests.storage.conftest import SCHEMES, serving
from tf_image_classification import storage
from tf_image_classification.errors import ConflictError

COUNTER = """
import sys
from tf_image_classification import storage
from tf_image_classification.errors import ConflictError
path, times = sys.argv[1], int(sys.argv[2])
while times:
    content, version = storage.read_version(path)
    try:
        storage.write_text(path, str(int(content or 0) + 1), if_version=version)
        times -= 1
    except ConflictError:
        pass
"""


@pytest.fixture(params=["local", *SCHEMES])
def path(request, tmp_path) -> Iterator[str]:
    if request.param == "local":
        yield str(tmp_path / "pointer")
    else:
        with serving(request.param, "bucket"):
            yield f"{request.param}://bucket/pointer"


def test_a_file_is_written_only_if_it_is_still_what_was_read(path):
    assert storage.read_version(path) == (None, 0)
    storage.write_text(path, "first", if_version=0)
    with pytest.raises(ConflictError, match=r"changed this meanwhile.*pointer"):
        storage.write_text(path, "too late", if_version=0)
    content, version = storage.read_version(path)
    assert content == b"first"
    assert version == storage.stat(path).version
    storage.write_text(path, "second", if_version=version)
    with pytest.raises(ConflictError):
        storage.write_text(path, "too late", if_version=version)
    assert storage.read_text(path) == "second"


def test_a_written_file_has_another_version_even_if_the_clock_has_not_moved(tmp_path):
    path = str(tmp_path / "pointer")
    storage.write_text(path, "first", if_version=0)
    ahead = storage.stat(path).version + 3600 * 10**9
    os.utime(path, ns=(ahead, ahead))
    storage.write_text(path, "second", if_version=ahead)
    assert storage.stat(path).version > ahead


def test_processes_that_count_together_lose_no_step(path):
    workers = [subprocess.Popen([sys.executable, "-c", COUNTER, path, "8"]) for _ in range(3)]
    assert [worker.wait(60) for worker in workers] == [0, 0, 0]
    assert storage.read_text(path) == "24"


@pytest.mark.parametrize("kind", [faults.REFUSED, faults.RESET])
def test_a_write_whose_answer_was_lost_is_known_as_ones_own(service, root, kind):
    service.faults = [Fault(kind, "POST|PUT", carried_out=True, times=2)]
    storage.write_text(f"{root}/pointer", "mine", if_version=0)
    assert len(service.changes) == 1


def test_the_same_content_of_another_writer_is_a_conflict(service, root):
    storage.write_text(f"{root}/lock", "taken", if_version=0)
    with pytest.raises(ConflictError):
        storage.write_text(f"{root}/lock", "taken", if_version=0)


def test_a_repeated_request_does_not_overwrite_what_another_writer_did_since(service, root, monkeypatch):
    """The first request is carried out and its answer lost; before the second, another process writes."""
    storage.write_text(f"{root}/pointer", "old")
    another = type(service).carry_out

    def carry_out(service, *request):
        answer = another(service, *request)
        if len(service.changes) == 2:
            monkeypatch.undo()
            storage.write_text(f"{root}/pointer", "theirs")
        return answer

    service.faults = [Fault(method="POST|PUT", carried_out=True)]
    monkeypatch.setattr(type(service), "carry_out", carry_out)
    storage.write_text(f"{root}/pointer", "mine")
    assert storage.read_text(f"{root}/pointer") == "theirs"
    assert len(service.changes) == 3
