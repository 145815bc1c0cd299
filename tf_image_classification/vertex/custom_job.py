"""A cluster as a custom job of Vertex AI: a worker pool for each role.

The service chooses a job's id, so that a job is found again by a label. Vertex AI itself restarts what loses a machine,
with `restart_job_on_worker_restart` all tasks: six times where Spot machines were taken, three times where none was
free. Most exit codes, 138 among them, end a job at once. What fails since a task or its machine was lost is started
again here. See https://docs.cloud.google.com/vertex-ai/docs/training/understanding-training-service and
https://docs.cloud.google.com/vertex-ai/docs/training/use-spot-vms.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Mapping

from google.api_core import exceptions
from google.cloud import aiplatform_v1 as vertex

from tf_image_classification import cluster, storage, task_log
from tf_image_classification.errors import ServiceError, TrainingError, UnavailableError, printable
from tf_image_classification.launch import stop_signal
from tf_image_classification.launch.job import Job
from tf_image_classification.launch.restarts import Restarts
from tf_image_classification.launch.stop_signal import StopSignal
from tf_image_classification.promotion.google_errors import RETRY, translate_api_errors
from tf_image_classification.vertex import machines
from tf_image_classification.vertex.client import ROLE, SERVICE, client_options

LABEL = "training"

_RUN_LABELS_VARIABLE = "VERTEX_AI_PIPELINES_RUN_LABELS"  # of a pipeline's steps: a JSON object
_POLL_SECS = 5.0
_MAX_SILENCE_SECS = 1800.0  # of the service, while a job is followed
_MAX_CANCEL_SECS = 600.0
# Machines come one by one, and the first task that gives up waiting ends the job. A task that fails does, too.
_JOIN_SECS = 1800
_MAX_REASON_SECS = 180.0  # until a job that failed says why: Vertex AI takes about a minute
_STATE = vertex.JobState
_ENDED = (
    _STATE.JOB_STATE_SUCCEEDED,
    _STATE.JOB_STATE_FAILED,
    _STATE.JOB_STATE_CANCELLED,
    _STATE.JOB_STATE_EXPIRED,
    _STATE.JOB_STATE_PARTIALLY_SUCCEEDED,
)
_UNUSABLE = {*_ENDED, _STATE.JOB_STATE_CANCELLING} - {_STATE.JOB_STATE_SUCCEEDED}
_EXIT_CODE = re.compile(r"non-zero status of (\d+)")
_OUT_OF_MEMORY = re.compile(r"out[- ]of[- ]memory", re.IGNORECASE)
_STOCKOUT = re.compile(r"resources are insufficient|stockout", re.IGNORECASE)  # also of Spot machines that were taken
_SIGKILL, _SIGTERM = 137, 143  # exit codes of a task that was killed, or stopped to free its machine

_log = logging.getLogger(__name__)


class CustomJobs:
    """Runs clusters as custom jobs of one project in one region; see `launch.job.Launcher`."""

    def __init__(self, project: str, location: str) -> None:
        self._project, self._location = project, location
        self._parent = f"projects/{project}/locations/{location}"
        with translate_api_errors(SERVICE, "sign in"):
            self._client = vertex.JobServiceClient(**client_options(location))

    def run(self, job: Job) -> None:
        """See `Launcher`."""
        message = to_message(job)
        with stop_signal.listening() as stop:
            earlier = self._find(job.name)
            if earlier:
                _log.info("An earlier attempt of this step has started %s", earlier.name)
            restarts = Restarts()
            while True:
                ended = self._follow(earlier or self._create(message), job, stop)
                earlier = None
                if ended.state == _STATE.JOB_STATE_SUCCEEDED:
                    return
                if not is_retryable(ended.error.message) or not restarts.add(ran_secs(ended)):
                    break
                _log.warning("The training goes on in another job: %s", printable(ended.error.message))
                if stop.wait(restarts.pause_secs):
                    raise stop.exit()
        raise _failure(ended, self._page(ended), job)

    def _find(self, name: str) -> vertex.CustomJob | None:
        """The newest job of a training that runs or has succeeded."""
        request = vertex.ListCustomJobsRequest(parent=self._parent, filter=f'labels.{LABEL}="{name}"')
        with translate_api_errors(SERVICE, "list custom jobs", ROLE):
            found = list(self._client.list_custom_jobs(request, retry=RETRY))
        usable = [job for job in found if job.state not in _UNUSABLE]
        return max(usable, key=lambda job: job.create_time, default=None)

    def _create(self, message: vertex.CustomJob) -> vertex.CustomJob:
        lost = False

        def create() -> vertex.CustomJob:
            # The service chooses the id, so a repetition must find out whether the first attempt was carried out.
            nonlocal lost
            if lost and (found := self._find(message.labels[LABEL])):
                return found
            lost = True
            return self._client.create_custom_job(parent=self._parent, custom_job=message, timeout=60)

        with translate_api_errors(SERVICE, "start a custom job", ROLE):
            return RETRY(create)()

    def _follow(self, started: vertex.CustomJob, job: Job, stop: StopSignal) -> vertex.CustomJob:
        """Waits for the end of a job, and shows its page, its states and the chief's log.

        Raises:
            SystemExit: after a signal, when the job was cancelled.
        """
        _log.info("Custom job: %s", self._page(started))
        log = task_log.Reader(job.folder, "chief-0")
        current, shown, answered = started, None, time.monotonic()
        since = answered
        while True:
            if current.state != shown:
                shown, since = current.state, time.monotonic()
                _log.info("%s", current.state.name)
            for line in log.new_lines():
                _log.info("chief: %s", line)
            # On the reason depends whether the training goes on.
            has_reason = current.state != _STATE.JOB_STATE_FAILED or current.error.message
            if current.state in _ENDED and (has_reason or time.monotonic() - since > _MAX_REASON_SECS):
                return current
            if stop.wait(_POLL_SECS):
                self._cancel(current.name)
                raise stop.exit()
            try:
                current, answered = self._get(current.name), time.monotonic()
            except UnavailableError as error:
                if time.monotonic() - answered > _MAX_SILENCE_SECS:
                    raise
                _log.warning("%s", error)

    def _get(self, name: str) -> vertex.CustomJob:
        with translate_api_errors(SERVICE, f"show the custom job {name}", ROLE):
            return self._client.get_custom_job(name=name, timeout=60)

    def _cancel(self, name: str) -> None:
        """Cancels a job and waits until it has ended."""
        _log.info("Cancelling %s", name)
        with translate_api_errors(SERVICE, f"cancel the custom job {name}", ROLE):
            try:
                self._client.cancel_custom_job(name=name, retry=RETRY, timeout=60)
            except exceptions.BadRequest:  # it has ended in between
                _log.info("%s", self._get(name).state.name)
                return
        end = time.monotonic() + _MAX_CANCEL_SECS
        while time.monotonic() < end:
            state = self._get(name).state
            if state in _ENDED:
                _log.info("%s", state.name)
                return
            time.sleep(1)

    def _page(self, job: vertex.CustomJob) -> str:
        """The job's page in the console."""
        job_id = job.name.rpartition("/")[2]
        site = "https://console.cloud.google.com/vertex-ai"
        return f"{site}/locations/{self._location}/training/{job_id}?project={self._project}"


def to_message(job: Job) -> vertex.CustomJob:
    """The message of a job.

    Raises:
        FlagError: Vertex AI has no such machine.
    """
    shape = job.shape
    pools = [_pool(job, role, count) for role, count in shape.tasks.items()]
    while not pools[-1].replica_count:  # one between others is left empty: its number is its role
        pools.pop()
    strategy = vertex.Scheduling.Strategy
    spec = vertex.CustomJobSpec(
        worker_pool_specs=pools,
        scheduling=vertex.Scheduling(
            restart_job_on_worker_restart=not shape.parameter_servers,  # with them, workers may come and go
            strategy=strategy.SPOT if shape.spot else strategy.STANDARD,
        ),
        service_account=shape.service_account,
        network=shape.network,
    )
    if shape.tensorboard:
        spec.tensorboard = shape.tensorboard
        spec.base_output_directory = vertex.GcsDestination(output_uri_prefix=storage.canonical(job.folder))
    key = shape.encryption_key
    return vertex.CustomJob(
        display_name=job.name,
        labels={**_run_labels(), LABEL: job.name},
        job_spec=spec,
        encryption_spec=vertex.EncryptionSpec(kms_key_name=key) if key else None,
    )


def _pool(job: Job, role: str, count: int) -> vertex.WorkerPoolSpec:
    """A worker pool; an empty one for no task."""
    if not count:
        return vertex.WorkerPoolSpec()
    shape = job.shape
    computes = role in ("worker", "evaluator") or (role == "chief" and not shape.parameter_servers)
    accelerator = shape.accelerator if computes else ""
    machine = vertex.MachineSpec(machine_type=machines.machine_type(shape.cpu, shape.memory, accelerator))
    if accelerator:
        kind, _, number = accelerator.partition(":")
        machine.accelerator_type, machine.accelerator_count = vertex.AcceleratorType[kind], int(number)
    return vertex.WorkerPoolSpec(
        machine_spec=machine,
        replica_count=count,
        container_spec=vertex.ContainerSpec(
            image_uri=shape.image,
            command=job.command,
            env=[vertex.EnvVar(name=cluster.JOIN_SECONDS_VARIABLE, value=str(_JOIN_SECS))],
        ),
    )


def _run_labels() -> Mapping[str, str]:
    """The labels of the pipeline's run, by which costs are reported."""
    labels = json.loads(os.environ.get(_RUN_LABELS_VARIABLE) or "{}")
    return {str(name): str(value) for name, value in labels.items()}


def is_retryable(error: str) -> bool:
    """Whether a job failed since a task or a machine was lost, by its message: it names the exit codes of the tasks."""
    codes = {int(code) for code in _EXIT_CODE.findall(error)}
    is_lost = codes <= {cluster.EXIT_RETRYABLE, _SIGKILL, _SIGTERM} if codes else _STOCKOUT.search(error)
    return bool(is_lost) and not _OUT_OF_MEMORY.search(error)


def ran_secs(ended: vertex.CustomJob) -> float:
    """How long a job has run, without the time that it waited for machines, and its tasks may have for each other."""
    if not ended.start_time:
        return 0.0
    return max(0.0, (ended.end_time - ended.start_time).total_seconds() - _JOIN_SECS)


def _failure(ended: vertex.CustomJob, page: str, job: Job) -> Exception:
    """The error of a job that has not succeeded."""
    if ended.state == _STATE.JOB_STATE_CANCELLED:
        return ServiceError("The training's custom job was cancelled", received=page)
    for line in task_log.last_lines(job.folder):
        _log.error("%s", line)
    hint = "The last lines of each task are above; the job's page has all of them."
    if _OUT_OF_MEMORY.search(ended.error.message):
        hint = "Give each task more --memory, or take a smaller --batch_size."
    elif _STOCKOUT.search(ended.error.message):
        hint = "Another region, or another --accelerator, may have machines."
    elif not _EXIT_CODE.search(ended.error.message):
        hint = f"Look at {page}: the image, the quota or a permission may be missing."
    return TrainingError("The training's custom job failed", received=ended.error.message or page, hint=hint)
