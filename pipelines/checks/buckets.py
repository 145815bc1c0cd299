"""Checks of the bucket of --pipeline_root."""

from __future__ import annotations

from pipelines.checks.google_api import ApiError, GoogleApi
from pipelines.checks.lines import Obstacle, Unknown
from pipelines.checks.plan import Plan

_NEEDED = ("storage.objects.list", "storage.objects.get", "storage.objects.create")
# Regions of the predefined dual-regions, see https://cloud.google.com/storage/docs/locations#location-dr.
_DUAL_REGIONS = {
    "ASIA1": ("asia-northeast1", "asia-northeast2"),
    "EUR4": ("europe-north1", "europe-west4"),
    "EUR5": ("europe-west1", "europe-west2"),
    "EUR7": ("europe-west2", "europe-west3"),
    "EUR8": ("europe-west3", "europe-west6"),
    "NAM4": ("us-central1", "us-east1"),
}
_MULTI_REGIONS = {"ASIA": "asia-", "EU": "europe-", "US": "us-"}


def region(api: GoogleApi, plan: Plan, bucket: str) -> str:
    """Whether the bucket exists, and is where the runs are."""
    create = "gcloud storage buckets create gs://{} " + (f"--project {plan.project} " if plan.project else "")
    create += f"--location {plan.location} --uniform-bucket-level-access"
    try:
        found = api.get("storage", f"storage/v1/b/{bucket}", projection="noAcl")
    except ApiError as error:
        if error.status == 404:
            raise Obstacle(f"gs://{bucket} does not exist", create.format(bucket)) from None
        if error.status == 403:
            mend = f"gcloud storage buckets describe gs://{bucket} --format 'value(location)'    # by somebody who may"
            raise Unknown(f"this account may not see where gs://{bucket} is ({error.found})", mend) from None
        raise
    location = str(found["location"])
    regions = found.get("customPlacementConfig", {}).get("dataLocations") or _DUAL_REGIONS.get(location, (location,))
    covered = plan.location in [one.lower() for one in regions]
    if covered or plan.location.startswith(_MULTI_REGIONS.get(location, "\0")):
        return f"gs://{bucket} is in {location}"
    raise Obstacle(
        f"gs://{bucket} is in {location}, and the runs in {plan.location}: what crosses regions costs time and money",
        f"{create.format('NAME')}    # or give --location {regions[0].lower()}",
    )


def permissions(api: GoogleApi, bucket: str) -> str:
    """Whether the caller may list, read and write the bucket."""
    try:
        answer = api.get("storage", f"storage/v1/b/{bucket}/iam/testPermissions", permissions=_NEEDED)
    except ApiError as error:
        if error.status == 404:
            raise Unknown(f"gs://{bucket} does not exist") from None
        raise
    missing = [permission for permission in _NEEDED if permission not in answer.get("permissions", [])]
    if missing:
        mend = (
            f"gcloud storage buckets add-iam-policy-binding gs://{bucket} --member {api.member} "
            "--role roles/storage.objectUser"
        )
        raise Obstacle(f"this account lacks {', '.join(missing)} on gs://{bucket}", mend)
    return f"this account may list, read and write gs://{bucket}"
