"""A bucket on 127.0.0.1: gcp-storage-emulator, in this process."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from gcp_storage_emulator.server import create_server
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage


def client(url: str) -> storage.Client:
    """A client of the storage service at this URL."""
    return storage.Client(project="local", credentials=AnonymousCredentials(), client_options={"api_endpoint": url})


def fill(url: str, bucket: str, prefix: str, folder: Path) -> None:
    """Copies a folder's files to gs://BUCKET/PREFIX."""
    place = client(url).bucket(bucket)
    for file in folder.rglob("*"):
        if file.is_file():
            place.blob(f"{prefix}/{file.relative_to(folder).as_posix()}").upload_from_filename(str(file))


@contextlib.contextmanager
def serving(*buckets: str, port: int = 0) -> Iterator[str]:
    """Serves empty buckets for as long as the block runs.

    Yields:
        The URL, which STORAGE_EMULATOR_HOST is to hold.
    """
    logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
    server = create_server("127.0.0.1", port, in_memory=True)
    server.start()
    while server._api._httpd is None:  # it has no better way to learn its port
        pass
    url = f"http://127.0.0.1:{server._api._httpd.server_port}"
    try:
        for name in buckets:
            client(url).create_bucket(name)
        yield url
    finally:
        server.stop()
