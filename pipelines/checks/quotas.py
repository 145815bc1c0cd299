"""Checks of the quotas of accelerators, which in a new project are 0."""

from __future__ import annotations

from pipelines.checks.google_api import ApiError, GoogleApi
from pipelines.checks.lines import Obstacle, Unknown
from pipelines.checks.plan import Plan

_SERVICE = "aiplatform.googleapis.com"


def accelerator(api: GoogleApi, plan: Plan, kind: str, count: int, *, is_spot: bool = False) -> str:
    """Whether the quota of an accelerator in the region is large enough for a step of a run.

    Compute Engine's quotas of the same accelerators do not count for Vertex AI. Spot machines have quotas of their own.
    """
    metric = f"{_SERVICE}/{_metric(kind, is_spot)}"
    console = f"https://console.cloud.google.com/iam-admin/quotas?project={plan.project}"
    mend = f"request a higher {metric} in {plan.location}: {console}"
    path = f"v1beta1/projects/{plan.project}/services/{_SERVICE}/consumerQuotaMetrics/{metric.replace('/', '%2F')}"
    try:
        limits = api.get("serviceusage", path).get("consumerQuotaLimits", [])
    except ApiError as error:
        raise Unknown(f"this account may not see the quota {metric} ({error.found})", error.mend or console) from None
    found = _limit(limits, plan.location)
    if found is None:
        raise Unknown(f"the quota {metric} has no limit for {plan.location}", console)
    if 0 <= found < count:  # -1 is no limit
        raise Obstacle(f"the quota of {kind} in {plan.location} is {found}, a step of the run has {count}", mend)
    return f"{kind}: {'no limit' if found < 0 else found} in {plan.location}"


def _metric(kind: str, is_spot: bool) -> str:
    """The quota of an AcceleratorType in training jobs, which is what the steps of a run are."""
    name = kind.removeprefix("NVIDIA_TESLA_").removeprefix("NVIDIA_").lower()
    if kind.startswith("TPU"):
        return f"custom_model_training_{name}"
    # The 80 GB are part of the name where there is another A100, too.
    name = name if name == "a100_80gb" else name.removesuffix("_80gb")
    return f"custom_model_training_{'preemptible_' if is_spot else ''}nvidia_{name}_gpus"


def _limit(limits: list[dict[str, object]], location: str) -> int | None:
    """The limit of a region: its own bucket, else the one of all regions; None without either."""
    found = None
    for limit in limits:
        buckets = limit.get("quotaBuckets", [])
        assert isinstance(buckets, list)
        for bucket in buckets:  # the least specific one first
            if bucket.get("dimensions", {}).get("region", location) == location and "effectiveLimit" in bucket:
                found = int(bucket["effectiveLimit"])
    return found
