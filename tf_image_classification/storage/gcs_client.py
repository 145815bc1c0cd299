"""The client of Cloud Storage: made once per process, without a project, when the service has been reached.

Objects need no project, and user credentials often have none. Who pays for requests to a bucket with Requester Pays is
said by `bill_to`.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import socket
import threading
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tf_image_classification.errors import ServiceError
from tf_image_classification.storage import access_tokens

if TYPE_CHECKING:
    from google.cloud.storage import Bucket, Client

BILLING_VARIABLE = "GCS_BILLING_PROJECT"  # of the environment, which worker processes inherit
FIRST_CONTACT_TIMEOUT = 10.0  # seconds in which a process has to reach the service once; later outages get retries

_MAX_CONNECTIONS = 32  # at least as many as callers start threads
# For traces that nobody asked for, the library would look up each bucket's project: without naming who pays for that,
# and with a permission, storage.buckets.get, that no role for objects has.
_NO_LOOK_UPS = "DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA"
_ATTEMPT_TIMEOUT, _PAUSE = 5.0, 0.5  # seconds, of one attempt to connect, and before the next one


def bill_to(project: str | None) -> None:
    """Names the project that pays for all requests of this process and of those that it starts from now on.

    Args:
        project: its ID; None changes nothing.
    """
    if project:
        os.environ[BILLING_VARIABLE] = project


def bucket(name: str) -> Bucket:
    """The library's handle of a bucket, whose requests name who pays for them; sends no request itself."""
    return client().bucket(name, user_project=os.environ.get(BILLING_VARIABLE) or None)


def client() -> Client:
    """The client of the service, or of the emulator in STORAGE_EMULATOR_HOST; one for all threads of the process.

    Raises:
        ServiceError: the process has not reached it yet, and cannot connect to it within FIRST_CONTACT_TIMEOUT.
    """
    return _client(os.environ.get("STORAGE_EMULATOR_HOST", ""))


@functools.cache
def _client(emulator: str) -> Client:
    from google.cloud import storage
    from requests.adapters import HTTPAdapter

    os.environ.setdefault(_NO_LOOK_UPS, "true")
    credentials = access_tokens.credentials()
    if emulator:
        from google.auth.credentials import AnonymousCredentials

        new = storage.Client(
            project="local",
            credentials=credentials or AnonymousCredentials(),
            client_options={"api_endpoint": emulator},
        )
    else:
        new = storage.Client(project=None, credentials=credentials)
    for scheme in ("https://", "http://"):
        # By default it pools ten connections, and warns of each one above.
        new._http.mount(scheme, HTTPAdapter(pool_maxsize=_MAX_CONNECTIONS))
    if multiprocessing.parent_process() is None:  # a worker starts in the middle of the work: it gets retries
        _check_reachable(new.api_endpoint)
    return new


def _check_reachable(url: str) -> None:
    """Checks that the service, or the proxy to it, accepts a connection.

    In a thread: nothing else limits how long a name server is asked, and a connection is tried at each of a dozen
    addresses.
    """
    from requests.utils import get_environ_proxies, select_proxy

    address = urlsplit(select_proxy(url, get_environ_proxies(url)) or url)
    host, port = address.hostname or "", address.port or (443 if address.scheme == "https" else 80)
    failure: list[OSError] = []
    connected = threading.Event()
    end = time.monotonic() + FIRST_CONTACT_TIMEOUT

    def connect() -> None:
        while time.monotonic() < end:
            try:
                socket.create_connection((host, port), _ATTEMPT_TIMEOUT).close()
            except OSError as error:
                failure[:] = [error]
                time.sleep(_PAUSE)
            else:
                connected.set()
                return

    threading.Thread(target=connect, daemon=True).start()
    if not connected.wait(FIRST_CONTACT_TIMEOUT):
        raise ServiceError(
            "Cloud Storage cannot be reached",
            received=f"no connection to {host}:{port} in {FIRST_CONTACT_TIMEOUT:g} s "
            f"({failure[0] if failure else 'no answer'})",
            hint="Check the network, its name server (DNS), firewall and proxy, and that STORAGE_EMULATOR_HOST is not "
            "set by mistake. Nothing was sent.",
        )
