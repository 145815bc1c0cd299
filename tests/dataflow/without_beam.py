"""Lets the build step launch its job where Apache Beam is not installed: the environment of the pipelines has none."""

from __future__ import annotations

import uuid
from types import SimpleNamespace
from typing import Any

import requests

from tf_image_classification import storage
from tf_image_classification.build_tfrecords import beam_runner, builder
from tf_image_classification.build_tfrecords.beam_runner import BeamRunner
from tf_image_classification.dataflow import build_step
from tf_image_classification.dataflow.client import endpoint


def install() -> None:
    """Replaces what needs Beam by a build that only runs the job: it is for jobs that do not succeed.

    The stand-in of Vertex AI gives steps local folders below `buckets` for their outputs; here they are on gs:// again.
    """
    build = build_step.build
    build_step.build = lambda uri, *given, **named: build(f"gs://{uri.partition('/buckets/')[2]}", *given, **named)
    BeamRunner.check_options = lambda self: None
    BeamRunner.pipeline = lambda self: None
    builder.build = run_job


def run_job(*_: object, runner: BeamRunner, **others: object) -> None:
    """Runs the job, which reads no images."""
    assert runner.job is not None
    if not runner.job.is_started():
        storage.write_text(beam_runner.marker(runner.job.folder), "of no images")
    runner.job.run(lambda: start(runner))


def start(runner: BeamRunner) -> SimpleNamespace:
    """Creates a job with the runner's options, and returns what Beam would."""
    options: dict[str, Any] = dict(word.removeprefix("--").partition("=")[::2] for word in runner.options)
    body = {
        "name": options["job_name"],
        "type": "JOB_TYPE_BATCH",
        "clientRequestId": uuid.uuid4().hex,
        "environment": {
            "tempStoragePrefix": options["temp_location"].replace("gs://", "storage.googleapis.com/"),
            "sdkPipelineOptions": {"options": {"pipelineUrl": f"{options['staging_location']}/pipeline.pb"}},
            "serviceAccountEmail": options["service_account_email"],
            "workerPools": [{"workerHarnessContainerImage": options["sdk_container_image"]}],
        },
    }
    path = f"projects/{options['project']}/locations/{options['region']}/jobs"
    answer = requests.post(f"{endpoint()}/v1b3/{path}", json=body, timeout=10)
    answer.raise_for_status()
    return SimpleNamespace(job_id=lambda: answer.json()["id"])
