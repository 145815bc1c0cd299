"""What a bucket refuses by its settings, its project's or its account's rights, in the JSON that Cloud Storage answers.

The forms are those that users have published, see https://cloud.google.com/storage/docs/json_api/v1/status-codes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ACCOUNT = "steps@project.iam.gserviceaccount.com"
RETAINED_UNTIL = "2099-01-01T08:00:00Z"
KEY_DISABLED, KEY_FORBIDDEN = "key disabled", "key forbidden"
API_DISABLED, BILLING_DISABLED, OUTSIDE_PERIMETER = "API disabled", "billing disabled", "outside of the perimeter"
_ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"
_CONSUMER = "projects/123456789012"


class RefusedError(Exception):
    """A request that is refused: HTTP status and body."""

    def __init__(self, code: int, body: dict[str, Any]) -> None:
        super().__init__(body["error"]["message"])
        self.code, self.body = code, body

    def text(self, is_content: bool) -> bytes:
        """The body; of a request for an object's content it is the message alone."""
        return str(self).encode() if is_content else json.dumps(self.body).encode()


@dataclass
class Rules:
    """The settings of all buckets of a service.

    Attributes:
        retention: a retention policy keeps every object for years.
        deletion: whether the account has storage.objects.delete, which overwriting takes too.
        payers: projects that pay for requests, one of which each request must name; empty if the owner pays.
        blocked: one of the constants above, which refuses every request, or '' for none.
    """

    retention: bool = False
    deletion: bool = True
    payers: tuple[str, ...] = ()
    blocked: str = ""

    def check_request(self, query: Mapping[str, str], headers: Mapping[str, str]) -> None:
        """Checks what holds for every request.

        Raises:
            RefusedError: it is refused.
        """
        if self.blocked:
            raise _BLOCKED[self.blocked]
        payer = query.get("userProject") or headers.get("x-goog-user-project")
        # A session of a resumable upload belongs to the request that opened it.
        if self.payers and "upload_id" not in query:
            if not payer:
                message = "Bucket is a requester pays bucket but no user project provided."
                raise _refused(400, message, "required")
            if payer not in self.payers:
                message = f"{ACCOUNT} does not have serviceusage.services.use access to the Google Cloud project."
                raise _refused(403, message, "forbidden")

    def check_removal(self, bucket: str, name: str) -> None:
        """Checks that an object that exists may be deleted or overwritten.

        Raises:
            RefusedError: it may not.
        """
        if self.retention:
            message = (
                f"Object '{bucket}/{name}' is subject to bucket's retention policy or object retention and cannot be "
                f"deleted or overwritten until {RETAINED_UNTIL}"
            )
            raise _refused(403, message, "retentionPolicyNotMet")
        if not self.deletion:
            permission = "storage.objects.delete"
            message = (
                f"{ACCOUNT} does not have {permission} access to the Google Cloud Storage object. "
                f"Permission '{permission}' denied on resource (or it may not exist)."
            )
            raise _refused(403, message, "forbidden")


def _refused(code: int, message: str, reason: str, domain: str = "global", **more: Any) -> RefusedError:
    errors = [{"message": message, "domain": domain, "reason": reason}]
    return RefusedError(code, {"error": {"code": code, "message": message, "errors": errors, **more}})


def _info(reason: str, **metadata: str) -> dict[str, Any]:
    return {"@type": _ERROR_INFO, "reason": reason, "domain": "googleapis.com", "metadata": metadata}


_ACTIVATION = f"https://console.developers.google.com/apis/api/storage.googleapis.com/overview?project={_CONSUMER[9:]}"
_VIOLATION = "eYhDkfYCu-dOCjuj8X4Am9"
_BLOCKED = {
    KEY_DISABLED: _refused(
        400, "Cloud KMS key is disabled, destroyed, or scheduled to be destroyed.", "cloudKmsDisabledKey"
    ),
    KEY_FORBIDDEN: _refused(
        403,
        "Permission denied on Cloud KMS key. Please ensure that your Cloud Storage service account has been authorized "
        "to use this key.",
        "forbidden",
    ),
    API_DISABLED: _refused(
        403,
        f"Cloud Storage JSON API has not been used in project {_CONSUMER[9:]} before or it is disabled. Enable it by "
        f"visiting {_ACTIVATION} then retry. If you enabled this API recently, wait a few minutes for the action to "
        "propagate to our systems and retry.",
        "accessNotConfigured",
        "usageLimits",
        status="PERMISSION_DENIED",
        details=[
            _info("SERVICE_DISABLED", service="storage.googleapis.com", consumer=_CONSUMER, activationUrl=_ACTIVATION)
        ],
    ),
    BILLING_DISABLED: _refused(
        403, "The billing account for the owning project is disabled in state absent", "accountDisabled"
    ),
    OUTSIDE_PERIMETER: _refused(
        403,
        f"Request is prohibited by organization's policy. vpcServiceControlsUniqueIdentifier: {_VIOLATION}",
        "forbidden",
        status="PERMISSION_DENIED",
        details=[
            _info("SECURITY_POLICY_VIOLATED", service="storage.googleapis.com", uid=_VIOLATION, consumer=_CONSUMER)
        ],
    ),
}
