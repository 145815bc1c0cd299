"""What `pipelines check` reads of a Google Cloud project, on 127.0.0.1.

Served: a project and its policy (Resource Manager), billing, services and quotas (Service Usage), service accounts
(IAM), a bucket's metadata and policy (Cloud Storage), and access tokens. Everything is fine with the project until a
test changes an attribute.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from werkzeug.wrappers import Request, Response

from tests.standin.loopback import Loopback, Route

_SERVICES = ("cloudresourcemanager", "cloudbilling", "serviceusage", "iam", "storage")
CALLER = "caller@my-project.iam.gserviceaccount.com"
TRAINER = "trainer@my-project.iam.gserviceaccount.com"


class GoogleApis(Loopback):
    """A project, as its caller sees it.

    Attributes:
        projects, accounts: ids, and e-mail addresses, of those that exist.
        billing: whether it is enabled.
        disabled: APIs that are not enabled.
        held: permissions of the caller, on the project, the bucket and the accounts.
        roles: role on the project -> its members.
        bucket_roles: role on the bucket -> its members; empty if there is no bucket.
        account_roles: role on the account of the steps -> its members.
        location: of the bucket.
        quota: metric -> limit in europe-west4; elsewhere it is 0.
        revoked: whether the caller's credentials are.
        hidden: what the caller may not see: quota, bucket, bucket's policy.
    """

    def __init__(self, key: Path) -> None:
        """Writes a key of the caller's to the file `key`; its tokens come from here."""
        self._key = key
        self.projects, self.accounts = {"my-project"}, {TRAINER}
        self.billing = True
        self.disabled: set[str] = set()
        self.held = {
            *(f"aiplatform.pipelineJobs.{verb}" for verb in ("create", "get", "list")),
            *(f"storage.objects.{verb}" for verb in ("create", "get", "list")),
            "iam.serviceAccounts.actAs",
        }
        trainer = f"serviceAccount:{TRAINER}"
        names = ("aiplatform.user", "artifactregistry.reader", "logging.logWriter")
        self.roles = {f"roles/{name}": [trainer] for name in names}
        self.bucket_roles = {"roles/storage.objectUser": [trainer]}
        self.account_roles = {"roles/iam.serviceAccountUser": [trainer]}
        self.location = "EUROPE-WEST4"
        self.quota = {"custom_model_training_nvidia_t4_gpus": 1}
        self.revoked = False
        self.hidden: tuple[str, ...] = ()
        super().__init__()
        account = {"type": "service_account", "client_email": CALLER, "token_uri": f"{self.url}/token"}
        key.write_text(json.dumps({**account, "private_key": _private_key()}))

    def routes(self) -> list[Route]:
        bucket = "/storage/v1/b/<bucket>"
        return [
            ("POST", "/token", self._give_token),
            ("GET", "/v3/projects/<project>", self._project),
            ("POST", "/v3/projects/<project>:testIamPermissions", self._test_permissions),
            ("POST", "/v3/projects/<project>:getIamPolicy", lambda request, project: _policy(self.roles)),
            ("GET", "/v1/projects/<project>/billingInfo", lambda request, project: {"billingEnabled": self.billing}),
            ("GET", "/v1/projects/<project>/services:batchGet", self._services),
            ("GET", "/v1beta1/projects/<project>/services/<service>/consumerQuotaMetrics/<path:metric>", self._quota),
            ("GET", "/v1/projects/<project>/serviceAccounts/<account>", self._account),
            ("POST", "/v1/projects/<project>/serviceAccounts/<account>:testIamPermissions", self._test_permissions),
            ("POST", "/v1/projects/<project>/serviceAccounts/<account>:getIamPolicy", self._account_policy),
            ("GET", bucket, self._bucket),
            ("GET", f"{bucket}/iam", self._bucket_policy),
            ("GET", f"{bucket}/iam/testPermissions", self._test_bucket),
        ]

    def environment(self) -> dict[str, str]:
        """The variables that lead the caller here."""
        overrides = {f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{service.upper()}": self.url for service in _SERVICES}
        return {"GOOGLE_APPLICATION_CREDENTIALS": str(self._key), **overrides}

    def _give_token(self, request: Request) -> Any:
        if self.revoked:
            body = {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
            return Response(json.dumps(body), status=400, mimetype="application/json")
        return {"access_token": "token", "expires_in": 3600, "token_type": "Bearer"}

    def _project(self, request: Request, project: str) -> Any:
        if project not in self.projects:
            return self.error(403, "The caller does not have permission", "PERMISSION_DENIED")
        return {"name": "projects/123456789012", "projectId": project, "state": "ACTIVE"}

    def _test_permissions(self, request: Request, **_: str) -> Any:
        return {"permissions": [one for one in json.loads(request.data)["permissions"] if one in self.held]}

    def _test_bucket(self, request: Request, bucket: str) -> Any:
        if not self.bucket_roles:
            return self.error(404, "The specified bucket does not exist.")
        return {"permissions": [one for one in request.args.getlist("permissions") if one in self.held]}

    def _services(self, request: Request, project: str) -> Any:
        listed = []
        for name in request.args.getlist("names"):
            service = name.rpartition("/")[2]
            state = "DISABLED" if service.partition(".")[0] in self.disabled else "ENABLED"
            listed.append({"name": name, "config": {"name": service}, "state": state})
        return {"services": listed}

    def _quota(self, request: Request, project: str, service: str, metric: str) -> Any:
        if "quota" in self.hidden:
            return self.error(403, "Permission denied to get quota", "PERMISSION_DENIED")
        limit = self.quota.get(metric.rpartition("/")[2])
        if limit is None:
            return self.error(404, "Quota metric not found", "NOT_FOUND")
        regional = {"effectiveLimit": str(limit), "dimensions": {"region": "europe-west4"}}
        buckets = [{"effectiveLimit": "0", "defaultLimit": "0"}, regional]
        return {"metric": metric, "consumerQuotaLimits": [{"unit": "1/{project}/{region}", "quotaBuckets": buckets}]}

    def _account(self, request: Request, project: str, account: str) -> Any:
        if account not in self.accounts:
            if project == "-":  # as the reference of the method says
                return self.error(403, "Permission iam.serviceAccounts.get is required", "PERMISSION_DENIED")
            return self.error(404, f"Unknown service account {account}", "NOT_FOUND")
        return {"email": account}

    def _account_policy(self, request: Request, project: str, account: str) -> Any:
        return _policy(self.account_roles)

    def _bucket_policy(self, request: Request, bucket: str) -> Any:
        if "bucket's policy" in self.hidden:
            return self.error(403, f"{CALLER} does not have storage.buckets.getIamPolicy access", "PERMISSION_DENIED")
        return _policy(self.bucket_roles)

    def _bucket(self, request: Request, bucket: str) -> Any:
        if not self.bucket_roles:
            return self.error(404, "The specified bucket does not exist.")
        if "bucket" in self.hidden:
            return self.error(403, f"{CALLER} does not have storage.buckets.get access", "PERMISSION_DENIED")
        return {"name": bucket, "location": self.location}


@functools.cache
def _private_key() -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(pem, pkcs8, serialization.NoEncryption()).decode()


def _policy(roles: dict[str, list[str]]) -> dict[str, Any]:
    return {"bindings": [{"role": role, "members": members} for role, members in roles.items()]}
