"""A long training is retried on both backends."""

from __future__ import annotations

import math
from typing import Any

import pytest

from pipelines import template
from pipelines.backends import vertex_messages
from pipelines.backends.base import Submission
from pipelines.compile import compile_pipeline
from pipelines.definition import COMPONENTS, Options

DAY = 86400.0


@pytest.fixture(scope="module")
def spec(tmp_path_factory) -> template.Spec:
    path = tmp_path_factory.mktemp("compiled") / "pipeline.yaml"
    compile_pipeline(str(path), Options(images=dict.fromkeys(COMPONENTS, "images/any:1"), retries=3))
    return template.load(str(path)).spec


def policy_of(spec: template.Spec, step: str) -> dict[str, Any]:
    return spec["root"]["dag"]["tasks"][step]["retryPolicy"]


def seconds(duration: str) -> float:
    return float(duration.removesuffix("s"))


def argo_deadline(policy: dict[str, Any], attempts_secs: list[float]) -> float:
    """When a retry would be stopped, in seconds after the first attempt's start; 0 if Argo does not start it.

    As in Argo's workflow/controller/operator.go, processNodeRetries, and workflowpod.go, getDeadline; KFP's compiler
    passes backoffMaxDuration as maxDuration.
    """
    longest, now = seconds(policy["backoffMaxDuration"]), 0.0
    for number, ran in enumerate(attempts_secs):
        wait = seconds(policy["backoffDuration"]) * math.pow(int(policy["backoffFactor"]), number)
        if now + ran + wait > longest or number >= policy["maxRetryCount"]:
            return 0.0
        now += ran + wait
    return longest


def test_a_training_of_days_is_retried_on_kubeflow_and_the_retry_may_take_as_long(spec):
    policy = policy_of(spec, "train")
    assert argo_deadline(policy, [2 * DAY]) > 10 * DAY
    assert argo_deadline(policy, [2 * DAY, 2 * DAY, 2 * DAY]) > 10 * DAY
    assert argo_deadline({**policy, "backoffMaxDuration": "3600s"}, [2 * DAY]) == 0.0  # KFP's default


def test_vertex_ai_gets_no_longer_time_between_retries_than_an_hour(spec):
    job = vertex_messages.from_submission(Submission(run_id="a", spec=spec, parameters={}, pipeline_root="gs://b/r"))
    sent = policy_of(dict(job.pipeline_spec), "train")
    assert (sent["backoffMaxDuration"], sent["maxRetryCount"]) == ("3600s", 3)
    assert seconds(policy_of(spec, "train")["backoffMaxDuration"]) > 3600, "the caller's is unchanged"
