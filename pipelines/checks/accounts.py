"""Checks of the account that the steps of a run have."""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.checks import projects
from pipelines.checks.google_api import ApiError, GoogleApi
from pipelines.checks.lines import Obstacle, Unknown
from pipelines.checks.plan import Plan
from tf_image_classification import storage

_ACT_AS = "iam.serviceAccounts.actAs"
# Roles that steps need -> roles that hold all of it.
_ON_PROJECT = {
    "roles/aiplatform.user": {"roles/aiplatform.admin"},
    "roles/artifactregistry.reader": {"roles/artifactregistry.writer", "roles/artifactregistry.admin"},
    "roles/logging.logWriter": {"roles/logging.admin"},
}
_ON_BUCKET = {"roles/storage.objectUser": {"roles/storage.objectAdmin", "roles/storage.admin"}}
_ALL = {"roles/owner", "roles/editor"}


def exists(api: GoogleApi, plan: Plan, account: str) -> str:
    """Whether the account exists and is enabled."""
    try:
        found = api.get("iam", f"v1/projects/-/serviceAccounts/{account}")
    except ApiError as error:
        if error.status != 404:
            raise
        if not plan.service_account:
            mend = (
                f"gcloud services enable compute.googleapis.com --project {plan.project}    # or give --service_account"
            )
            raise Obstacle(f"the project's Compute Engine account {account} does not exist", mend) from None
        name, _, domain = account.partition("@")
        mend = f"gcloud iam service-accounts create {name} --project {domain.partition('.')[0]}"
        raise Obstacle(f"{account} does not exist", mend) from None
    if found.get("disabled"):
        raise Obstacle(f"{account} is disabled", f"gcloud iam service-accounts enable {account}")
    return account


def act_as(api: GoogleApi, account: str) -> str:
    """Whether the caller may start runs that have the account."""
    answer = api.post("iam", f"v1/projects/-/serviceAccounts/{account}:testIamPermissions", {"permissions": [_ACT_AS]})
    if _ACT_AS not in answer.get("permissions", []):
        mend = (
            f"gcloud iam service-accounts add-iam-policy-binding {account} --member {api.member} "
            "--role roles/iam.serviceAccountUser"
        )
        raise Obstacle(f"this account lacks {_ACT_AS} on {account}", mend)
    return f"this account may act as {account}"


def roles(api: GoogleApi, plan: Plan, account: str) -> str:
    """Whether the account has the roles on the project and the bucket that steps need, as far as these show it."""
    on_project = projects.policy(api, plan.project)
    lacks = _lacking(_ON_PROJECT, on_project, account)
    mends = [
        f"gcloud projects add-iam-policy-binding {plan.project} --member serviceAccount:{account} --role {role} "
        "--condition None"
        for role in lacks
    ]
    if storage.is_gcs(plan.pipeline_root):
        bucket, _ = storage.split_gcs(plan.pipeline_root)
        on_bucket = {**on_project}
        for binding in api.get("storage", f"storage/v1/b/{bucket}/iam").get("bindings", []):
            on_bucket[binding["role"]] = {*on_bucket.get(binding["role"], ()), *binding["members"]}
        for role in _lacking(_ON_BUCKET, on_bucket, account):
            lacks.append(f"{role} on gs://{bucket}")
            mends.append(
                f"gcloud storage buckets add-iam-policy-binding gs://{bucket} --member serviceAccount:{account} "
                f"--role {role}"
            )
    if not lacks:
        return ", ".join([*_ON_PROJECT, *(_ON_BUCKET if plan.pipeline_root else ())])
    found, mend = f"{account} lacks {', '.join(lacks)}", "; ".join(mends)
    if _may_have_others(on_project, account):
        raise Unknown(f"{found}, unless a group, or a role of your own, gives it that", mend)
    raise Obstacle(found, mend)


def _lacking(needed: Mapping[str, set[str]], members: Mapping[str, set[str]], account: str) -> list[str]:
    held = {role for role, having in members.items() if f"serviceAccount:{account}" in having}
    return [role for role, larger in needed.items() if not held & {role, *larger, *_ALL}]


def _may_have_others(members: Mapping[str, set[str]], account: str) -> bool:
    """Whether the account may have what no predefined role gives it: by a custom role, or by a group."""
    custom = any(
        not role.startswith("roles/") and f"serviceAccount:{account}" in having for role, having in members.items()
    )
    return custom or any(member.startswith("group:") for having in members.values() for member in having)
