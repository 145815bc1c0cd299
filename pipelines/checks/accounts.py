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
_FOR_DATAFLOW = {"roles/dataflow.developer": {"roles/dataflow.admin"}}
_OF_ITS_WORKERS: dict[str, set[str]] = {"roles/dataflow.worker": set()}
_ON_BUCKET = {"roles/storage.objectUser": {"roles/storage.objectAdmin", "roles/storage.admin"}}
_ALL = {"roles/owner", "roles/editor"}


def exists(api: GoogleApi, plan: Plan, account: str) -> str:
    """Whether the account exists and is enabled."""
    try:
        found = api.get("iam", _resource(plan, account))
    except ApiError as error:
        if error.status != 404:
            raise
        if not plan.service_account:
            mend = (
                f"gcloud services enable compute.googleapis.com --project {plan.project}    # or give --service_account"
            )
            raise Obstacle(f"the project's Compute Engine account {account} does not exist", mend) from None
        mend = f"gcloud iam service-accounts create {account.partition('@')[0]} --project {_project(plan, account)}"
        raise Obstacle(f"{account} does not exist", mend) from None
    if found.get("disabled"):
        raise Obstacle(f"{account} is disabled", f"gcloud iam service-accounts enable {account}")
    return account


def act_as(api: GoogleApi, plan: Plan, account: str) -> str:
    """Whether the caller may start runs that have the account."""
    answer = api.post("iam", f"{_resource(plan, account)}:testIamPermissions", {"permissions": [_ACT_AS]})
    if _ACT_AS not in answer.get("permissions", []):
        mend = (
            f"gcloud iam service-accounts add-iam-policy-binding {account} --member {api.member} "
            "--role roles/iam.serviceAccountUser"
        )
        raise Obstacle(f"this account lacks {_ACT_AS} on {account}", mend)
    return f"this account may act as {account}"


def act_as_itself(api: GoogleApi, plan: Plan, account: str) -> str:
    """Whether the account may start a cluster whose tasks have it, or a Dataflow job whose workers do."""
    role, larger = "roles/iam.serviceAccountUser", {"roles/iam.serviceAccountAdmin"}
    on_account = dict(projects.policy(api, plan.project))
    for binding in api.post("iam", f"{_resource(plan, account)}:getIamPolicy", {}).get("bindings", []):
        on_account[binding["role"]] = {*on_account.get(binding["role"], ()), *binding["members"]}
    if not _lacking({role: larger}, on_account, account):
        return f"{account} may start machines that have it"
    mend = (
        f"gcloud iam service-accounts add-iam-policy-binding {account} --member serviceAccount:{account} --role {role}"
    )
    found = f"{account} lacks {_ACT_AS} on itself, which starting machines that have it takes"
    if _may_have_others(on_account, account):
        raise Unknown(f"{found}, unless a group or a role of your own gives it that", mend)
    raise Obstacle(found, mend)


def roles(api: GoogleApi, plan: Plan, account: str) -> str:
    """Whether the account has the roles on the project and the bucket that steps need, as far as these show it."""
    on_project = projects.policy(api, plan.project)
    member = f"--member serviceAccount:{account}"
    needed = _ON_PROJECT | (_FOR_DATAFLOW if plan.dataflow else {})
    needed |= _OF_ITS_WORKERS if plan.dataflow and not plan.dataflow.service_account else {}
    lacks, mends, hidden = _lacking(needed, on_project, account), [], ""
    for role in lacks:
        mends.append(f"gcloud projects add-iam-policy-binding {plan.project} {member} --role {role} --condition None")
    if storage.is_gcs(plan.pipeline_root):
        bucket, _ = storage.split_gcs(plan.pipeline_root)
        try:
            on_bucket = _on_bucket(api, bucket, on_project)
        except ApiError as error:
            on_bucket, hidden = {}, f"its roles on gs://{bucket} are not shown to this account ({error.found})"
        for role in [] if hidden else _lacking(_ON_BUCKET, on_bucket, account):
            lacks.append(f"{role} on gs://{bucket}")
            mends.append(f"gcloud storage buckets add-iam-policy-binding gs://{bucket} {member} --role {role}")
    if lacks and _may_have_others(on_project, account):
        found = f"{account} lacks {', '.join(lacks)}, unless a group or a role of your own gives it that"
        raise Unknown(found, "; ".join(mends))
    if lacks:
        raise Obstacle(f"{account} lacks {', '.join(lacks)}", "; ".join(mends))
    if hidden:
        raise Unknown(hidden, f"gcloud storage buckets get-iam-policy gs://{bucket}    # by somebody who may")
    return ", ".join([*needed, *(_ON_BUCKET if plan.pipeline_root else ())])


def _on_bucket(api: GoogleApi, bucket: str, on_project: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """The members of each role on the bucket, those on its project included."""
    members = dict(on_project)
    for binding in api.get("storage", f"storage/v1/b/{bucket}/iam").get("bindings", []):
        members[binding["role"]] = {*members.get(binding["role"], ()), *binding["members"]}
    return members


def _resource(plan: Plan, account: str) -> str:
    """The account's address. Under projects/- IAM answers for one that does not exist as for one that it hides."""
    return f"v1/projects/{_project(plan, account)}/serviceAccounts/{account}"


def _project(plan: Plan, account: str) -> str:
    """The project of an account: NAME@PROJECT.iam.gserviceaccount.com, or one of Google's in the run's project."""
    name, suffix, _ = account.partition("@")[2].partition(".iam.gserviceaccount.com")
    if not suffix:
        return plan.project or "-"
    project, _, domain = name.partition(".")  # of an organisation with a domain of its own: PROJECT.DOMAIN
    return f"{domain}:{project}" if domain else project


def _lacking(needed: Mapping[str, set[str]], members: Mapping[str, set[str]], account: str) -> list[str]:
    held = {role for role, having in members.items() if f"serviceAccount:{account}" in having}
    return [role for role, larger in needed.items() if not held & {role, *larger, *_ALL}]


def _may_have_others(members: Mapping[str, set[str]], account: str) -> bool:
    """Whether the account may have what no predefined role gives it: by a custom role, or by a group."""
    custom = any(
        not role.startswith("roles/") and f"serviceAccount:{account}" in having for role, having in members.items()
    )
    return custom or any(member.startswith("group:") for having in members.values() for member in having)
