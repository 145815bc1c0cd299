"""What is shown of the errors that Google's services answer with."""

from __future__ import annotations

import json

import pytest
import requests
from google.api_core import exceptions
from google.auth.exceptions import DefaultCredentialsError
from google.cloud.storage.exceptions import InvalidResponse

from tf_image_classification.errors import ServiceError
from tf_image_classification.storage.service_errors import last_error, missing_credentials, server_message

UPLOAD = "https://storage.googleapis.com/upload/storage/v1/b/bucket/o?uploadType=resumable&upload_id=ABC-secret"


def _response(body: str, code: int = 503) -> requests.Response:
    response = requests.Response()
    response.status_code, response.reason, response._content = code, "Service Unavailable", body.encode()
    response.request = requests.Request("PUT", UPLOAD).prepare()
    return response


def test_the_message_of_a_response_is_shown_whole_with_its_quotation_marks():
    message = 'There are other operations running on the Endpoint "projects/1/locations/l/endpoints/2".'
    response = _response(json.dumps({"error": {"code": 503, "message": message, "status": "UNAVAILABLE"}}))
    for error in (exceptions.from_http_response(response), InvalidResponse(response, "Request failed")):
        assert server_message(error) == message


@pytest.mark.parametrize(
    "error",
    [
        exceptions.ServiceUnavailable(f"PUT {UPLOAD}: try later"),
        exceptions.from_http_response(_response("try later")),
        requests.ConnectionError(f"Max retries exceeded with url: {UPLOAD} (try later)"),
        requests.ConnectionError(f"try later: {UPLOAD}"),
    ],
)
def test_the_address_of_an_upload_is_never_shown(error):
    assert "try later" in server_message(error)
    assert "secret" not in server_message(error)


def test_of_a_proxys_page_the_beginning_is_shown():
    page = "<html><title>502 Bad Gateway</title>" + "x" * 5000
    assert server_message(exceptions.from_http_response(_response(page, 502))) == page[:200]


def test_when_retries_end_the_error_of_the_last_attempt_counts():
    cause = exceptions.ServiceUnavailable("away")
    assert last_error(exceptions.RetryError("Timeout exceeded", cause)) is cause
    assert last_error(cause) is cause


def test_missing_credentials_are_an_error_with_the_command_to_sign_in():
    error = missing_credentials("submit a run", DefaultCredentialsError("No credentials were found. See https://..."))
    assert isinstance(error, ServiceError)
    assert str(error).startswith(
        "Cannot submit a run: no usable Google Cloud credentials. Received: No credentials were found. Run `gcloud auth"
    )
