"""The checklist of Vertex AI."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from google.auth.exceptions import GoogleAuthError

from pipelines.backends import vertex_messages
from pipelines.backends.base import Backend
from pipelines.checks import accounts, buckets, projects, quotas, shared
from pipelines.checks.google_api import GoogleApi
from pipelines.checks.lines import Line, Obstacle, Unknown, Verdict, line
from pipelines.checks.plan import Plan
from tf_image_classification import storage


def checklist(plan: Plan, connect: Callable[[], Backend]) -> Iterator[Line]:
    """Makes the checks, one after the other.

    Args:
        connect: to the service that runs would be submitted to.
    """
    api = GoogleApi(plan.project)
    yield line("options", lambda: _accepted(plan))
    yield line("credentials", partial(projects.credentials, api))
    if plan.project:
        yield line("project", lambda: f"{plan.project}, number {projects.number(api, plan.project)}")
        yield line("billing", partial(projects.billing, api, plan.project))
        yield line("APIs", partial(projects.services, api, plan))
        yield line("permissions", partial(projects.permissions, api, plan.project))
    if plan.project and plan.location:
        yield line("Vertex AI", lambda: _answers(plan, connect))
        for kind, count in plan.accelerators.items():
            yield line("quota", partial(quotas.accelerator, api, plan, kind, count))
        for kind, count in plan.spot_accelerators.items():
            yield line("quota", partial(quotas.accelerator, api, plan, kind, count, is_spot=True))
    if plan.pipeline_root:
        yield from _bucket(api, plan)
    yield from shared.images(plan, "vertex")
    if plan.project or plan.service_account:
        yield from _account(api, plan)
    yield from shared.data(plan)


def _accepted(plan: Plan) -> str:
    vertex_messages.from_submission(plan.submission)
    return "they have the form that Vertex AI wants"


def _answers(plan: Plan, connect: Callable[[], Backend]) -> str:
    connect().list_runs(1)
    return f"it answers in {plan.location}"


def _bucket(api: GoogleApi, plan: Plan) -> Iterator[Line]:
    if not storage.is_gcs(plan.pipeline_root):
        found = f"--pipeline_root {plan.pipeline_root} is not on gs://"
        yield Line(Verdict.FAIL, "bucket", found, "--pipeline_root gs://BUCKET/FOLDER")
        return
    bucket, _ = storage.split_gcs(plan.pipeline_root)
    if plan.location:
        yield line("bucket", partial(buckets.region, api, plan, bucket))
    yield line("bucket's permissions", partial(buckets.permissions, api, bucket))


def _account(api: GoogleApi, plan: Plan) -> Iterator[Line]:
    try:
        account = plan.service_account or f"{projects.number(api, plan.project)}-compute@developer.gserviceaccount.com"
    except (Obstacle, Unknown, GoogleAuthError) as error:
        found = f"the project's Compute Engine account is not known: {str(error).partition('. ')[0]}"
        yield Line(Verdict.UNKNOWN, "account", found, "give --service_account")
        return
    yield line("account", partial(accounts.exists, api, plan, account))
    yield line("acting as it", partial(accounts.act_as, api, plan, account))
    if plan.project:
        yield line("its roles", partial(accounts.roles, api, plan, account))
        if plan.launches_as_itself:
            yield line("its machines", partial(accounts.act_as_itself, api, plan, account))
