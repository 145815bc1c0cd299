"""Checks of the caller's credentials, and of the project: billing, APIs, and what the caller may do."""

from __future__ import annotations

from google.auth.exceptions import GoogleAuthError, TransportError

from pipelines.checks.google_api import UNNAMED, ApiError, GoogleApi
from pipelines.checks.lines import Obstacle, Unknown
from pipelines.checks.plan import Plan

_LOGIN = "gcloud auth application-default login"
_APIS = ("aiplatform", "storage", "artifactregistry", "compute")
# What `submit` and `runs` need of roles/aiplatform.user.
_NEEDED = ("aiplatform.pipelineJobs.create", "aiplatform.pipelineJobs.get", "aiplatform.pipelineJobs.list")


def credentials(api: GoogleApi) -> str:
    """Whose Application Default Credentials there are."""
    try:
        _ = api.credentials
    except TransportError as error:
        raise Unknown(f"Google's sign-in cannot be reached: {error}", "Check the network.") from None
    except GoogleAuthError as error:
        raise Obstacle(f"no usable Google Cloud credentials: {str(error).partition('. ')[0]}", _LOGIN) from None
    return "a person's whose name is not known" if api.member == UNNAMED else api.member.partition(":")[2]


def number(api: GoogleApi, project: str) -> str:
    """The project's number.

    Raises:
        Obstacle: there is no such project, or this account may not see it.
        ApiError: it cannot be found out.
    """
    try:
        found = api.get("cloudresourcemanager", f"v3/projects/{project}")
    except ApiError as error:
        if error.status not in (403, 404) or error.mend:
            raise
        mend = f"gcloud projects describe {project}    # its id, not its name; else ask for a role on it"
        raise Obstacle(f"{project}: not found, or not visible to this account ({error.found})", mend) from None
    if found.get("state", "ACTIVE") != "ACTIVE":
        raise Obstacle(f"{project} is {found['state']}", f"gcloud projects undelete {project}")
    return str(found["name"]).rpartition("/")[2]


def billing(api: GoogleApi, project: str) -> str:
    """Whether the project has a billing account."""
    if api.get("cloudbilling", f"v1/projects/{project}/billingInfo").get("billingEnabled"):
        return "enabled"
    mend = f"gcloud billing projects link {project} --billing-account ACCOUNT    # `gcloud billing accounts list`"
    raise Obstacle(f"{project} has no billing account", mend)


def services(api: GoogleApi, plan: Plan) -> str:
    """Whether the APIs are enabled that runs need."""
    project, apis = plan.project, [*_APIS, *(["dataflow"] if plan.dataflow else [])]
    wanted = [f"{name}.googleapis.com" for name in apis]
    names = [f"projects/{project}/services/{name}" for name in wanted]
    answer = api.get("serviceusage", f"v1/projects/{project}/services:batchGet", names=names)
    states = {found["config"]["name"]: found["state"] for found in answer["services"]}
    missing = [name for name in wanted if states.get(name) != "ENABLED"]
    if missing:
        raise Obstacle(
            f"{', '.join(missing)}: disabled", f"gcloud services enable {' '.join(missing)} --project {project}"
        )
    return ", ".join(apis)


def permissions(api: GoogleApi, project: str) -> str:
    """Whether the caller may start runs."""
    body = {"permissions": _NEEDED}
    held = api.post("cloudresourcemanager", f"v3/projects/{project}:testIamPermissions", body).get("permissions", [])
    missing = [permission for permission in _NEEDED if permission not in held]
    if missing:
        mend = (
            f"gcloud projects add-iam-policy-binding {project} --member {api.member} --role roles/aiplatform.user "
            "--condition None"
        )
        raise Obstacle(f"this account lacks {', '.join(missing)}", mend)
    return "this account may start runs"


def policy(api: GoogleApi, project: str) -> dict[str, set[str]]:
    """The members of each role on the project.

    Raises:
        Unknown: this account may not see them.
    """
    try:
        body = {"options": {"requestedPolicyVersion": 3}}
        found = api.post("cloudresourcemanager", f"v3/projects/{project}:getIamPolicy", body)
    except ApiError as error:
        mend = error.mend or f"gcloud projects get-iam-policy {project}    # by somebody who may"
        raise Unknown(f"this account may not see who has which role ({error.found})", mend) from None
    roles: dict[str, set[str]] = {}
    for binding in found.get("bindings", []):
        roles.setdefault(binding["role"], set()).update(binding["members"])
    return roles
