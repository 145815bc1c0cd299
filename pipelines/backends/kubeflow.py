"""Kubeflow Pipelines as a backend, over kfp.Client.

The service chooses the ids of runs and recurring runs itself, so this module finds them by their display names.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import kfp_server_api
import tenacity
import urllib3
import yaml
from kfp import client as kfp_client

from pipelines.backends import base, kubeflow_bucket
from pipelines.backends import kubeflow_messages as messages
from pipelines.backends.base import Recurrence, Run, Schedule, Submission
from tf_image_classification import storage
from tf_image_classification.errors import FlagError, ServiceError

_PAGE_SIZE = 50
# The service cannot filter runs by recurring run, so this many of the newest runs are searched for those of one.
_MAX_SEARCHED = 200

Result = TypeVar("Result")


class Kubeflow:
    """The backend for the runs and recurring runs of one experiment."""

    def __init__(self, host: str, namespace: str = "", experiment: str = "Default") -> None:
        self._host, self._namespace = host.rstrip("/"), namespace or None
        with _translate_api_errors("sign in"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that servers before 2.0 are not supported
            self._client = kfp_client.Client(host=self._host, **({"namespace": namespace} if namespace else {}))
            try:
                found = self._client.get_experiment(experiment_name=experiment, namespace=self._namespace)
            except ValueError:
                raise FlagError(
                    "The --experiment is not found", received=experiment, hint="Create it in the UI first."
                ) from None
            self._experiment = found.experiment_id

    def check_pipeline_root(self, pipeline_root: str) -> None:
        """See `Backend`; without a root, the cluster's own is used."""
        if pipeline_root:
            kubeflow_bucket.check(pipeline_root)

    def submit(self, submission: Submission) -> tuple[Run, bool]:
        """See `Backend`; the run id becomes the display name."""
        messages.check_options(submission)
        parameters = messages.parameters(submission)

        def create() -> Any:
            # A repetition must not start a second run when the first attempt was carried out.
            if existing := self._find_run(submission.run_id):
                return existing
            with _package(submission) as package:
                return self._client.run_pipeline(
                    self._experiment,
                    submission.run_id,
                    package,
                    parameters,
                    pipeline_root=submission.pipeline_root or None,
                    service_account=submission.service_account or None,
                )

        with _translate_api_errors("submit a run"):
            existing = self._find_run(submission.run_id)
            run = existing or _retried(create)
        if existing and messages.sent_parameters(existing) != parameters:
            raise base.run_id_taken(submission.run_id)
        return messages.to_run(run, self._host), existing is None

    def get_run(self, run_id: str) -> Run:
        """See `Backend`; the newest run with this display name, or the one with this id."""
        with _translate_api_errors(f"show the run {run_id}"):
            found = _retried(lambda: self._find_run(run_id))
            run = _retried(lambda: self._client.get_run(found.run_id if found else run_id))
        return messages.to_run(run, self._host)

    def list_runs(self, limit: int, schedule_id: str = "") -> list[Run]:
        """See `Backend`; runs of a schedule are searched for among the newest runs."""
        found: list[Run] = []
        token = ""
        with _translate_api_errors("list runs"):
            for _ in range(0, _MAX_SEARCHED if schedule_id else limit, _PAGE_SIZE):
                list_page = functools.partial(
                    self._client.list_runs, token, _PAGE_SIZE, "created_at desc", self._experiment
                )
                page = _retried(list_page)
                for run in page.runs or []:
                    if not schedule_id or run.recurring_run_id == schedule_id:
                        found.append(messages.to_run(run, self._host))
                token = page.next_page_token or ""
                if len(found) >= limit or not token:
                    break
        return found[:limit]

    def cancel_run(self, run_id: str) -> None:
        """See `Backend`."""
        with _translate_api_errors(f"cancel the run {run_id}"):
            found = self._find_run(run_id)
            _retried(lambda: self._client.terminate_run(found.run_id if found else run_id))

    def create_schedule(self, name: str, recurrence: Recurrence, submission: Submission) -> Schedule:
        """See `Backend`; Kubeflow has no time zones and no queue."""
        if self._find_recurring_runs(name):
            raise base.schedule_exists(name)
        return self._create_recurring_run(name, recurrence, submission)

    def _create_recurring_run(self, name: str, recurrence: Recurrence, submission: Submission) -> Schedule:
        messages.check_options(submission)
        messages.check_recurrence(recurrence)
        earlier = {found.recurring_run_id for found in self._find_recurring_runs(name)}

        def create() -> Any:
            # A repetition must not create a second one when the first attempt was carried out.
            for found in self._find_recurring_runs(name):
                if found.recurring_run_id not in earlier:
                    return found
            with _package(submission) as package:
                return self._client.create_recurring_run(
                    self._experiment,
                    name,
                    start_time=recurrence.start.isoformat() if recurrence.start else None,
                    end_time=recurrence.end.isoformat() if recurrence.end else None,
                    cron_expression=f"0 {recurrence.cron}",  # Kubeflow's first field is the second
                    max_concurrency=recurrence.max_concurrent_runs,
                    no_catchup=True,
                    params=messages.parameters(submission),
                    pipeline_package_path=package,
                    pipeline_root=submission.pipeline_root or None,
                    service_account=submission.service_account or None,
                )

        with _translate_api_errors("create a schedule"):
            return messages.to_schedule(_retried(create), self._host)

    def get_schedule(self, name: str) -> Schedule:
        """See `Backend`; the recurring run with this display name."""
        found = self._find_recurring_runs(name)
        if not found:
            raise base.schedule_not_found(self, name)
        if len(found) > 1:
            raise FlagError("Several schedules have this name", received=name, hint="Delete all but one in the UI.")
        return messages.to_schedule(found[0], self._host)

    def list_schedules(self) -> list[Schedule]:
        """See `Backend`."""
        with _translate_api_errors("list schedules"):
            page = _retried(
                lambda: self._client.list_recurring_runs(
                    page_size=100, sort_by="created_at desc", experiment_id=self._experiment
                )
            )
        return [messages.to_schedule(found, self._host) for found in page.recurring_runs or []]

    def pause_schedule(self, schedule: Schedule) -> None:
        """See `Backend`."""
        with _translate_api_errors("pause a schedule"):
            _retried(lambda: self._client.disable_recurring_run(schedule.id))

    def resume_schedule(self, schedule: Schedule, catch_up: bool) -> None:
        """See `Backend`; Kubeflow cannot catch up."""
        if catch_up:
            raise FlagError(
                "Kubeflow cannot start the runs that a pause skipped",
                received="--catch_up",
                hint="Submit the runs instead.",
            )
        with _translate_api_errors("resume a schedule"):
            _retried(lambda: self._client.enable_recurring_run(schedule.id))

    def update_schedule(self, schedule: Schedule, recurrence: Recurrence, submission: Submission) -> Schedule:
        """See `Backend`; a recurring run cannot be changed, so it is replaced."""

        def create() -> Schedule:
            return self._create_recurring_run(schedule.name, recurrence, submission)

        return base.replace_schedule(self, schedule, create)

    def delete_schedule(self, schedule: Schedule) -> None:
        """See `Backend`."""
        with _translate_api_errors("delete a schedule"):
            _retried(lambda: self._client.delete_recurring_run(schedule.id))

    def _find_run(self, name: str) -> Any:
        """The newest run with this display name; None without one."""
        page = self._client.list_runs(
            page_size=1, sort_by="created_at desc", experiment_id=self._experiment, filter=_has_display_name(name)
        )
        return page.runs[0] if page.runs else None

    def _find_recurring_runs(self, name: str) -> list[Any]:
        with _translate_api_errors("list schedules"):
            page = _retried(
                lambda: self._client.list_recurring_runs(experiment_id=self._experiment, filter=_has_display_name(name))
            )
        return page.recurring_runs or []


def _has_display_name(name: str) -> str:
    """A filter of the service's API."""
    predicate = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
    return json.dumps({"predicates": [predicate]})


@contextlib.contextmanager
def _package(submission: Submission) -> Iterator[str]:
    """The pipeline as the file that kfp.Client reads; stdout is redirected, because the client prints links."""
    with storage.temporary_dir() as folder, contextlib.redirect_stdout(io.StringIO()):
        package = storage.join(folder, "pipeline.yaml")
        documents = [dict(submission.spec)]
        if submission.platforms:
            documents.append({"platforms": dict(submission.platforms)})
        storage.write_text(package, yaml.safe_dump_all(documents))
        yield package


def _retried(call: Callable[[], Result]) -> Result:
    """Calls, and repeats at growing intervals for up to two minutes while the error is transient."""
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_is_transient),
        wait=tenacity.wait_exponential(multiplier=1, max=20),
        stop=tenacity.stop_after_delay(120),
        reraise=True,
    )
    return retrying(call)


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, kfp_server_api.ApiException):
        return error.status in (500, 502, 503, 504)
    return isinstance(error, (urllib3.exceptions.ProtocolError, urllib3.exceptions.ReadTimeoutError))


@contextlib.contextmanager
def _translate_api_errors(action: str) -> Iterator[None]:
    """Turns the errors of kfp_server_api in the block into FlagError and ServiceError.

    Args:
        action: an infinitive, as "submit a run".
    """
    try:
        yield
    except kfp_server_api.ApiException as error:
        message = _message(error)
        if error.status == 404:
            raise FlagError(f"Kubeflow cannot {action}: not found", received=message) from None
        if error.status in (400, 409):
            raise FlagError(f"Kubeflow refuses to {action}", received=message) from None
        if error.status in (401, 403):
            raise ServiceError(
                f"Kubeflow does not let this account {action}", received=message, hint="Check --host and --namespace."
            ) from None
        if error.status == 429:
            raise ServiceError(
                f"Too many requests to Kubeflow; cannot {action} now", received=message, hint="Try again later."
            ) from None
        raise ServiceError(
            f"Kubeflow did not answer; cannot {action}", received=message, hint="Try again with the same --run_id."
        ) from None
    except urllib3.exceptions.HTTPError as error:
        raise ServiceError(
            f"Kubeflow cannot be reached; cannot {action}", received=error, hint="Check --host and the network."
        ) from None


def _message(error: kfp_server_api.ApiException) -> str:
    """The service's message: the body of its answer is JSON, or a proxy's page."""
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError, RecursionError):
        return f"{error.status} {error.reason}"
