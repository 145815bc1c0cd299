"""A bucket on 127.0.0.1: gcp-storage-emulator, in this process."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from gcp_storage_emulator.server import create_server


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
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import storage

        client = storage.Client(project="local", credentials=AnonymousCredentials(), client_options={"api_endpoint": url})
        for name in buckets:
            client.create_bucket(name)
        yield url
    finally:
        server.stop()
