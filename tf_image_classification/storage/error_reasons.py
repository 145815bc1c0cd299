"""Why a service of Google refused a request, in its own word for it, and the step that mends it.

The word is in a JSON body's `errors[].reason`, see https://cloud.google.com/storage/docs/json_api/v1/status-codes, or
in a google.rpc.ErrorInfo among its details, see https://cloud.google.com/apis/design/errors. The body of a refused
download is the message alone.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from tf_image_classification.storage.service_errors import server_message

_ACTIVATION = re.compile(r"/apis/(?:api|library)/([a-z0-9-]+\.[a-z.]+)(?:/overview)?\?project=([\w:.-]+)")
_PERMISSION = re.compile(
    r"\b(?:storage|aiplatform|iam|pubsub|serviceusage|artifactregistry|resourcemanager)\.(?!googleapis)\w+\.\w+\b"
)
_VPC_IDENTIFIER = re.compile(r"vpcServiceControlsUniqueIdentifier: ([\w-]+)")
# Permission, or its beginning -> the least role that has it; of several the longest counts.
_ROLES = {
    "storage.objects.get": "storage.objectViewer",
    "storage.objects.list": "storage.objectViewer",
    "storage.objects.": "storage.objectUser",
    "storage.buckets.get": "storage.bucketViewer",
    "aiplatform.": "aiplatform.user",
    "iam.serviceAccounts.actAs": "iam.serviceAccountUser",
    "pubsub.topics.publish": "pubsub.publisher",
    "serviceusage.services.use": "serviceusage.serviceUsageConsumer",
    "artifactregistry.": "artifactregistry.reader",
}


class _Refusal(NamedTuple):
    """What a service said.

    Attributes:
        words: its reasons and its message, for a search.
        facts: `metadata` of its ErrorInfo.
    """

    words: str
    facts: Mapping[str, str]


def next_step(error: BaseException) -> str:
    """What the user has to do, or to ask for; '' if the service gave no reason that says it.

    Args:
        error: what the client library of the service raised.
    """
    refusal = _refusal(error)
    for pattern, step in _STEPS:
        if re.search(pattern, refusal.words):
            return step(refusal) if callable(step) else step
    permissions = _PERMISSION.findall(" ".join([refusal.facts.get("permission", ""), refusal.words]))
    roles = dict.fromkeys(role for permission in permissions if (role := _role(permission)))
    place = "the bucket" if all(role.startswith("roles/storage.") for role in roles) else "the project"
    return f"Ask for {' and '.join(roles)} on {place}." if roles else ""


def _refusal(error: BaseException) -> _Refusal:
    reasons: list[str] = []
    facts: dict[str, str] = {}
    with contextlib.suppress(Exception):  # there is no response, or its body is no JSON
        body = error.response.json()["error"]  # type: ignore[attr-defined]
        reasons += [str(item.get("reason")) for item in body.get("errors", [])]
        for detail in body.get("details", []):
            reasons.append(str(detail.get("reason", "")))
            facts |= detail.get("metadata") or {}
    reasons.append(str(getattr(error, "reason", None) or ""))  # of an error that came over gRPC
    facts |= getattr(error, "metadata", None) or {}
    # `server_message` leaves out the query of an address, which names the project.
    return _Refusal("\n".join([*reasons, server_message(error), str(error)]), facts)


def _role(permission: str) -> str:
    fitting = [beginning for beginning in _ROLES if permission.startswith(beginning)]
    return f"roles/{_ROLES[max(fitting, key=len)]}" if fitting else ""


def _enable_api(refusal: _Refusal) -> str:
    match = _ACTIVATION.search(refusal.facts.get("activationUrl", "") + "\n" + refusal.words)
    service = refusal.facts.get("service") or (match[1] if match else "SERVICE.googleapis.com")
    project = _project(refusal) or (match[2] if match else "PROJECT")
    return f"Run `gcloud services enable {service} --project {project}`, and try again some minutes later."


def _project(refusal: _Refusal) -> str:
    """The project that the service counts the request for; '' if it does not say."""
    return refusal.facts.get("consumer", "").removeprefix("projects/")


def _enable_billing(refusal: _Refusal) -> str:
    command = f"gcloud billing projects link {_project(refusal) or 'PROJECT'} --billing-account ACCOUNT"
    return f"Link the project that is billed to an open billing account: `{command}`."


def _ask_for_perimeter(refusal: _Refusal) -> str:
    match = _VPC_IDENTIFIER.search(refusal.words)
    identifier = refusal.facts.get("uid") or (match[1] if match else "")
    found_by = f" Its unique identifier, {identifier}, finds the violation in the audit log." if identifier else ""
    return (
        "VPC Service Controls refuse it: run inside the perimeter, or ask its administrator for an ingress or egress "
        f"rule.{found_by}"
    )


# Searched in this order in the reasons and the message.
_STEPS: tuple[tuple[str, str | Callable[[_Refusal], str]], ...] = (
    # Of user credentials without one: the project that the message says to enable the API in is gcloud's own.
    (r"requires a quota project", "Run `gcloud auth application-default set-quota-project PROJECT`."),
    (r"SERVICE_DISABLED|accessNotConfigured|has not been used in project \S+ before or it is disabled", _enable_api),
    (r"SECURITY_POLICY_VIOLATED|vpcServiceControls|VPC_SERVICE_CONTROLS", _ask_for_perimeter),
    (
        r"userProjectMissing|requester pays bucket but no user project|authenticationRequiredRequesterPays",
        "The bucket has Requester Pays: name the project that pays for the requests with --billing_project.",
    ),
    (
        r"USER_PROJECT_DENIED|userProjectAccessDenied|serviceusage\.services\.use",
        "Ask for roles/serviceusage.serviceUsageConsumer on the project that pays for the request (--billing_project).",
    ),
    (
        r"userProjectInvalid|userProjectInconsistent|[Uu]ser project specified in the request is invalid",
        "Check the project ID of --billing_project.",
    ),
    (
        r"(?i)accountDisabled|BILLING_DISABLED|userProjectAccountProblem|billing account for|absent billing account"
        r"|closed billing account|not configured billing|billing disabled|requires billing to be enabled",
        _enable_billing,
    ),
    (
        r"(?i)permission denied on cloud kms key|CLOUD_KMS_PERMISSION_DENIED|cloudkms\.cryptoKeyVersions\.use",
        "Let Cloud Storage's service agent use the key: `gcloud storage service-agent --authorize-cmek KEY`.",
    ),
    (
        r"cloudKmsDisabledKey|(?i:kms key.*(disabled|destroyed)|state is: DISABLED)",
        "Enable the version of the Cloud KMS key that encrypts the object: `gcloud kms keys versions enable`.",
    ),
    (
        r"cloudKms\w+|(?i:cloud kms key)",
        "Check the Cloud KMS key that the object or the bucket names: that it exists, and its location.",
    ),
    (
        r"retentionPolicyNotMet|objectUnderActiveHold|retention policy|(?i:active.{0,20} hold)",
        "The bucket has a retention policy, or its objects are on hold: use one whose objects may be overwritten and "
        "deleted.",
    ),
    (
        r"(?m)^(CONSUMER_INVALID|CONSUMER_SUSPENDED)$|[Pp]roject.{0,60}(has been deleted|was not found|not found)",
        "Check the project's ID: it is wrong, was deleted or is suspended, or this account may not use it.",
    ),
)
