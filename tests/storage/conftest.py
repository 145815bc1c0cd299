from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import pytest

from tests.standin import s3
from tests.standin.bucket import Buckets
from tf_image_classification.storage import gcs_requests

SCHEMES = ("gs", "s3")


@pytest.fixture(params=SCHEMES)
def scheme(request) -> str:
    return request.param


@pytest.fixture
def service(scheme) -> Iterator[Buckets | s3.S3]:
    """The stand-in of the service behind gs:// or s3://, with the bucket `bucket`."""
    with serving(scheme, "bucket") as service:
        yield service


@functools.cache
def _s3() -> s3.S3:
    """One for all tests: boto3 takes a while to make a client of another address."""
    return s3.S3().__enter__()


@contextlib.contextmanager
def serving(scheme: str, *buckets: str) -> Iterator[Buckets | s3.S3]:
    """Serves empty buckets, in which `storage` finds gs:// or s3:// paths, while the block runs."""
    # Not the fixture of tests, which may undo what they have patched themselves.
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        service = _s3() if scheme == "s3" else stack.enter_context(Buckets(*buckets))
        if scheme == "s3":
            service.reset(*buckets)
        patch.setattr(gcs_requests, "INITIAL_DELAY", 0.01)
        found = s3.environment(service.url) if scheme == "s3" else {"STORAGE_EMULATOR_HOST": service.url}
        for name, value in found.items():
            patch.setenv(name, value)
        yield service


@pytest.fixture
def root(scheme, service) -> str:
    """The bucket's address."""
    return f"{scheme}://bucket"
