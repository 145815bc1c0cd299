"""What containers get of the caller's Google credentials; Google's token service is played by `Google`."""

from __future__ import annotations

import datetime as dt
import io
import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

import pytest
from google.auth.exceptions import TransportError
from google.oauth2.credentials import Credentials

from pipelines.local import credentials
from pipelines.local.docker_runner import access_of_steps
from tests.standin.bucket import Buckets, serving
from tf_image_classification import storage
from tf_image_classification.errors import FlagError, ServiceError
from tf_image_classification.storage import access_tokens

REFRESH_TOKEN, SECRET = "long-lived-refresh-token", "client-secret"


class Google:
    """Answers google-auth's requests: an access token for the refresh token, and a narrowed one for that.

    Attributes:
        exchanges: the bodies of the requests for narrowed tokens.
    """

    def __init__(self) -> None:
        self.exchanges: list[dict[str, str]] = []

    def __call__(self, url: str, body: bytes | str = b"", **_: Any) -> Any:
        answer = {"access_token": "wide", "expires_in": 3600}
        if url == "https://sts.googleapis.com/v1/token":
            form = parse_qs(body.decode() if isinstance(body, bytes) else body)
            self.exchanges.append({name: values[0] for name, values in form.items()})
            answer = {"access_token": f"narrow-{len(self.exchanges)}", "expires_in": 3600}
        response: Any = io.BytesIO()
        response.status, response.headers, response.data = 200, {}, json.dumps(answer).encode()
        return response


@pytest.fixture
def google(monkeypatch) -> Iterator[Google]:
    """The caller's own credentials are a user's, as `gcloud auth application-default login` leaves them."""
    google = Google()
    user = Credentials(
        None,
        refresh_token=REFRESH_TOKEN,
        client_id="id",
        client_secret=SECRET,
        token_uri="https://oauth2.googleapis.com/token",  # noqa: S106
        account="ann@example.com",
    )
    monkeypatch.setattr(credentials, "of_caller", lambda: user)
    monkeypatch.setattr(credentials, "Request", lambda: google)
    with serving() as url:  # where commas separate paths, a bucket may be asked whether they belong to a name
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        yield google


@pytest.fixture
def parameters(tmp_path) -> dict[str, str]:
    """A data set and a folder of checkpoints in buckets, and a local package."""
    (tmp_path / "mine.whl").touch()
    return {
        "train_metadata": "gs://photos/cats.csv",
        "model_dir": "gs://training/checkpoints",
        "packages": f"gs://training/other.whl,{tmp_path}/mine.whl",
    }


def test_only_steps_with_a_path_in_a_bucket_get_tokens_and_the_screen_names_them(google, parameters, tmp_path):
    announced: dict[str, list[str]] = {"build_tfrecords": [], "gate": [], "register": []}
    for step, lines in announced.items():
        with access_of_steps(parameters, tmp_path)[step].arguments(lines.append) as arguments:
            networks = arguments["network_mode"], access_tokens.VARIABLE in arguments["environment"]
        assert networks == (("bridge", True) if step == "build_tfrecords" else ("none", False))
    assert announced == {
        "build_tfrecords": ["gets access tokens to read gs://photos, from the credentials of ann@example.com"],
        "gate": [],
        "register": [],
    }


def test_a_token_is_limited_to_the_buckets_that_flags_name_for_the_step(google, parameters, tmp_path):
    with access_of_steps(parameters, tmp_path)["train"].arguments(print):
        pass
    (exchange,) = google.exchanges
    assert exchange["subject_token"] == "wide"  # noqa: S105
    rules = json.loads(unquote(exchange["options"]))["accessBoundary"]["accessBoundaryRules"]
    assert rules == [
        {
            "availableResource": "//storage.googleapis.com/projects/_/buckets/training",
            "availablePermissions": ["inRole:roles/storage.objectAdmin"],
        }
    ]


def test_a_container_gets_a_narrowed_token_in_a_folder_of_the_callers_and_nothing_else(google, parameters, tmp_path):
    with access_of_steps(parameters, tmp_path)["build_tfrecords"].arguments(print) as arguments:
        (mount,) = arguments["mounts"]
        folder = Path(mount["Source"])
        (file,) = folder.iterdir()
        content = json.loads(file.read_text())
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert arguments["environment"] == {access_tokens.VARIABLE: f"{mount['Target']}/{file.name}"}
        assert mount["ReadOnly"] and set(content) == {"token", "expiry"} and content["token"].startswith("narrow-")
        assert not any(secret in str(arguments) for secret in (content["token"], REFRESH_TOKEN, SECRET))
    assert not folder.exists()


def test_a_token_is_renewed_while_its_step_runs_also_after_a_failure(google, monkeypatch):
    monkeypatch.setattr(credentials, "_RENEW_SECS", 0.01)
    monkeypatch.setattr(credentials, "_RETRY_SECS", 0.01)
    narrowed = credentials.narrowed(credentials.of_caller(), {"photos": False})
    refresh, failures = narrowed.refresh, [TransportError("no route to host")]

    def refresh_or_fail(request: Any) -> None:
        if google.exchanges and failures:
            raise failures.pop()
        refresh(request)

    monkeypatch.setattr(narrowed, "refresh", refresh_or_fail)
    with credentials.tokens(narrowed) as folder:
        deadline = dt.datetime.now() + dt.timedelta(seconds=10)
        while len(google.exchanges) < 3 and dt.datetime.now() < deadline:
            token = json.loads((Path(folder) / credentials.TOKEN_FILE).read_text())["token"]
            assert token.startswith("narrow-")
    assert len(google.exchanges) >= 3 and not failures


def test_what_is_written_to_is_not_narrowed_to_reading_and_ten_buckets_are_the_most(google, tmp_path):
    paths = {"train_metadata": "gs://one/a.csv", "champion": "gs://one/service"}
    assert access_of_steps(paths, tmp_path)["register"].buckets == {"one": True}
    assert access_of_steps(paths, tmp_path)["resolve"].buckets == {"one": False}
    eleven = ",".join(f"gs://bucket-{number}/mine.whl" for number in range(11))
    with pytest.raises(FlagError, match="cannot be limited to so many buckets"):
        access_of_steps({"packages": eleven}, tmp_path)


def test_without_credentials_a_path_in_a_bucket_is_an_error_before_anything_starts(parameters, tmp_path, monkeypatch):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    credentials.of_caller.cache_clear()
    with pytest.raises(
        ServiceError, match=r"no usable Google Cloud credentials.*gcloud auth application-default login"
    ):
        access_of_steps(parameters, tmp_path)


class BucketsThatSeeTokens(Buckets):
    """A storage service that records what its requests carry."""

    def __init__(self, *names: str) -> None:
        super().__init__(*names)
        self.tokens: list[str | None] = []

    def carry_out(self, handler: Any, method: str, body: bytes) -> bytes:
        self.tokens.append(handler.headers.get("Authorization"))
        return super().carry_out(handler, method, body)


def test_the_framework_sends_the_token_of_the_file_and_reads_it_again_when_it_expires(tmp_path, monkeypatch):
    file, hour = tmp_path / "token.json", dt.datetime.now(dt.UTC).replace(tzinfo=None) + dt.timedelta(hours=1)
    monkeypatch.setenv(access_tokens.VARIABLE, str(file))
    with BucketsThatSeeTokens("photos") as buckets:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", buckets.url)
        access_tokens.write(str(file), "narrow-1", hour)
        storage.write_text("gs://photos/a.txt", "a")
        assert storage.read_text("gs://photos/a.txt") == "a"
        assert set(buckets.tokens[1:]) == {"Bearer narrow-1"}  # the first request created the bucket
    held = access_tokens.credentials()
    held.refresh(None)
    access_tokens.write(str(file), "narrow-2", hour)
    held.expiry = hour - dt.timedelta(hours=1)
    held.before_request(None, "GET", "https://storage.googleapis.com/", {})
    assert held.token == "narrow-2"  # noqa: S105
