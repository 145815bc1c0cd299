"""A short-lived access token in a file that another process keeps fresh.

It is all that a container has of the credentials of whoever started it.
"""

from __future__ import annotations

import datetime as dt
import json
import os
from typing import TYPE_CHECKING

from tf_image_classification.storage.local_files import write as write_file

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

VARIABLE = "GCS_ACCESS_TOKEN_FILE"  # of the environment: path of the file


def write(path: str, token: str, expiry: dt.datetime) -> None:
    """Replaces the file's content at once.

    Args:
        expiry: in UTC, without a time zone, as google-auth has it.
    """
    write_file(path, json.dumps({"token": token, "expiry": expiry.isoformat()}).encode())


def credentials() -> Credentials | None:
    """The credentials that the file named in the environment holds, which is read again when they expire; None if the
    environment names none."""
    path = os.environ.get(VARIABLE)
    if not path:
        return None
    from google.oauth2.credentials import Credentials

    def read(request: object, scopes: object) -> tuple[str, dt.datetime]:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        return content["token"], dt.datetime.fromisoformat(content["expiry"])

    return Credentials(None, refresh_handler=read)
