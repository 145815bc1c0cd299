"""Kubeflow Pipelines as a backend, over kfp.Client.

The service chooses the ids of runs and recurring runs itself, so this module finds them by their display names.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from pipelines.backends import base, bucket, kubeflow_version, run_differences
from pipelines.backends import kubeflow_messages as messages
from pipelines.backends.base import Recurrence, Run, Schedule, Submission
from pipelines.backends.kubeflow_errors import retried as _retried
from pipelines.backends.kubeflow_errors import translate_api_errors as _translate_api_errors
from pipelines.backends.kubeflow_sign_in import SignIn, address, connect
from tf_image_classification import storage
from tf_image_classification.errors import FlagError, UserError

_PAGE_SIZE = 50
# The service cannot filter runs by recurring run, so this many of the newest runs are searched for those of one.
_MAX_SEARCHED = 200


class Kubeflow:
    """The backend for the runs and recurring runs of one experiment."""

    def __init__(
        self, host: str, namespace: str = "", experiment: str = "Default", sign_in: SignIn | None = None
    ) -> None:
        self._host = address(host)
        self._client, self._namespace = connect(self._host, namespace, sign_in or SignIn())
        self._experiment = self._find_experiment(experiment)

    def _find_experiment(self, name: str) -> str:
        """The id of the experiment. Default is made where a namespace has none, as elsewhere by the service itself."""
        with _translate_api_errors(f"find the experiment {name}"):
            try:
                return self._client.get_experiment(experiment_name=name, namespace=self._namespace).experiment_id
            except UserError:
                raise
            except ValueError:  # kfp's for none
                if name == "Default" and self._namespace:
                    with contextlib.redirect_stdout(io.StringIO()):  # kfp prints its link
                        return self._client.create_experiment(name, namespace=self._namespace).experiment_id
        where = f", in the namespace {self._namespace}" if self._namespace else ""
        raise FlagError("The --experiment is not found", received=name + where, hint="Create it in the UI first.")

    def check_pipeline_root(self, pipeline_root: str) -> None:
        """See `Backend`; without a root, the cluster's own is used."""
        if pipeline_root:
            bucket.check(pipeline_root)

    def submit(self, submission: Submission) -> tuple[Run, bool]:
        """See `Backend`; the run id becomes the display name."""
        messages.check_options(submission)
        parameters = messages.parameters(submission)

        def create() -> Any:
            # A repetition must not start a second run when the first attempt was carried out.
            if existing := self._find_run(submission.run_id):
                return existing
            with _package(submission.spec) as package:
                return self._client.run_pipeline(
                    self._experiment,
                    submission.run_id,
                    package,
                    parameters,
                    pipeline_root=submission.pipeline_root or None,
                    service_account=submission.service_account or None,
                )

        with _translate_api_errors("submit a run"):
            _retried(lambda: kubeflow_version.check(self._client, submission.spec))
            existing = self._find_run(submission.run_id)
            run = messages.to_run(existing or _retried(create), self._host)
        if existing and (differences := run_differences.find(run.submission, submission)):
            raise base.run_id_taken(submission.run_id, differences)
        return run, existing is None

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
        with _translate_api_errors("read the version"):
            _retried(lambda: kubeflow_version.check(self._client, submission.spec))
        earlier = {found.recurring_run_id for found in self._find_recurring_runs(name)}

        def create() -> Any:
            # A repetition must not create a second one when the first attempt was carried out.
            for found in self._find_recurring_runs(name):
                if found.recurring_run_id not in earlier:
                    return found
            with _package(submission.spec) as package:
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
def _package(spec: Mapping[str, Any]) -> Iterator[str]:
    """The pipeline as the file that kfp.Client reads; stdout is redirected, because the client prints links."""
    with storage.temporary_dir() as folder, contextlib.redirect_stdout(io.StringIO()):
        package = storage.join(folder, "pipeline.yaml")
        storage.write_text(package, yaml.safe_dump(dict(spec)))
        yield package
