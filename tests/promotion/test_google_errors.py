"""Which errors of Google's APIs say that the same request may succeed later: `--wait` outlasts those."""

from __future__ import annotations

import time

import pytest
import requests
from google.api_core import exceptions
from google.auth.compute_engine import Credentials
from google.auth.exceptions import DefaultCredentialsError, RefreshError, TransportError

from tf_image_classification.errors import UnavailableError, UserError
from tf_image_classification.promotion.google_errors import translate_api_errors


@pytest.mark.parametrize(
    "error",
    [
        exceptions.TooManyRequests("quota"),
        exceptions.ServiceUnavailable("busy"),
        exceptions.InternalServerError("oops"),
        exceptions.RetryError("given up", cause=exceptions.ServiceUnavailable("busy")),
        requests.ConnectionError("reset"),
        requests.Timeout("late"),
        requests.exceptions.ChunkedEncodingError("half of a response"),
        TransportError("the token's server did not answer"),
        RefreshError("internal failure", retryable=True),
    ],
)
def test_the_same_request_may_succeed_later(error):
    with pytest.raises(UnavailableError, match="cannot show a run"), translate_api_errors("Vertex AI", "show a run"):
        raise error


@pytest.mark.parametrize(
    "error",
    [
        exceptions.Forbidden("no"),
        exceptions.NotFound("none"),
        exceptions.BadRequest("bad"),
        DefaultCredentialsError("no"),
        RefreshError("invalid grant"),
    ],
)
def test_the_same_request_will_fail_again(error):
    with pytest.raises(UserError) as raised, translate_api_errors("Vertex AI", "show a run"):
        raise error
    assert not isinstance(raised.value, UnavailableError)


def test_a_metadata_server_that_does_not_answer_may_answer_later(monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between attempts

    def no_answer(**_: object) -> None:
        raise TransportError("connection refused")

    with pytest.raises(UnavailableError, match="cannot show a run"), translate_api_errors("Vertex AI", "show a run"):
        Credentials().refresh(no_answer)
