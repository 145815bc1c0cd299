"""What is shown of the errors that Google's services answer with."""

from __future__ import annotations

import json
import re

import pytest
import requests
from google.api_core import exceptions
from google.auth.exceptions import DefaultCredentialsError, TransportError
from google.cloud.storage.exceptions import InvalidResponse
from google.rpc.error_details_pb2 import ErrorInfo

from tf_image_classification.errors import ServiceError, UserError
from tf_image_classification.promotion.google_errors import translate_api_errors
from tf_image_classification.storage.error_reasons import next_step
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


def _http_error(code: int, message: str, **details: object) -> exceptions.GoogleAPICallError:
    return exceptions.from_http_response(_response(json.dumps({"error": {"message": message, **details}}), code))


def _info(reason: str, **metadata: str) -> dict[str, object]:
    return {"details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "metadata": metadata}]}


def _over_grpc() -> exceptions.GoogleAPICallError:
    info = ErrorInfo(reason="SERVICE_DISABLED", domain="googleapis.com")
    info.metadata.update({"service": "aiplatform.googleapis.com", "consumer": "projects/my-project"})
    return exceptions.PermissionDenied("Vertex AI API is disabled", error_info=info)


@pytest.mark.parametrize(
    ("error", "step"),
    [
        (_over_grpc(), "gcloud services enable aiplatform.googleapis.com --project my-project"),
        (
            _http_error(403, "Pub/Sub is off", **_info("SERVICE_DISABLED", service="pubsub.googleapis.com")),
            "gcloud services enable pubsub.googleapis.com --project PROJECT",
        ),
        (
            _http_error(403, "Permission denied on resource project p.", **_info("CONSUMER_INVALID")),
            "Check the project's ID",
        ),
        (
            _http_error(403, "denied", **_info("IAM_PERMISSION_DENIED", permission="aiplatform.pipelineJobs.create")),
            "Ask for roles/aiplatform.user on the project.",
        ),
        (
            _http_error(403, "You do not have permission to act as service account: iam.serviceAccounts.actAs"),
            "roles/iam.serviceAccountUser on the project.",
        ),
        (
            _http_error(400, "does not have `[storage.objects.get, storage.objects.create]` IAM permission(s) to b"),
            "roles/storage.objectViewer and roles/storage.objectUser on the bucket.",
        ),
        (
            _http_error(403, "a@b does not have storage.objects.get access to the Google Cloud Storage object."),
            "Ask for roles/storage.objectViewer on the bucket.",
        ),
        (_http_error(400, "User project specified in the request is invalid."), "project ID of --billing_project"),
        (
            _http_error(
                403,
                "The aiplatform.googleapis.com API requires a quota project, which is not set by default.",
                **_info("SERVICE_DISABLED", service="aiplatform.googleapis.com", consumer="projects/764086051850"),
            ),
            "gcloud auth application-default set-quota-project",
        ),
        (_http_error(403, "This API method requires billing to be enabled."), "gcloud billing projects link"),
        (_http_error(403, "Object is under active Event-Based hold"), "retention policy, or its objects are on hold"),
    ],
)
def test_a_services_reason_leads_to_the_step_that_mends_it(error, step):
    assert step in next_step(error)
    with pytest.raises(UserError, match=re.escape(step)), translate_api_errors("Vertex AI", "submit a run", "roles/r"):
        raise error


def test_an_error_without_a_reason_leaves_the_hint_to_its_caller():
    for error in (_http_error(403, "see storage.googleapis.com/storage"), requests.ConnectionError("away")):
        assert next_step(error) == ""
    with pytest.raises(UserError, match="Ask for roles/r on the project"), translate_api_errors("S", "a", "roles/r"):
        raise _http_error(403, "no")


def test_a_token_service_that_cannot_be_reached_is_no_lack_of_credentials():
    error = missing_credentials("submit a run", TransportError("oauth2.googleapis.com: Name or service not known"))
    assert "cannot be reached" in str(error)
    assert "login" not in str(error)
