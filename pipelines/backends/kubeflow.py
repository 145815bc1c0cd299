"""Kubeflow Pipelines as a backend, over kfp.Client.

The service chooses the ids of runs and recurring runs itself, so this module finds them by their display names. These
need not be unique: an id is accepted too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import itertools
import json
import logging
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import kfp_server_api
import yaml

from pipelines.backends import base, kubeflow_bucket, kubeflow_version, run_differences
from pipelines.backends import kubeflow_messages as messages
from pipelines.backends.base import Recurrence, Run, Schedule, Submission
from pipelines.backends.kubeflow_errors import retried, translate_api_errors
from pipelines.backends.kubeflow_sign_in import SignIn, address, connect
from tf_image_classification import storage
from tf_image_classification.errors import FlagError

_log = logging.getLogger(__name__)

_PAGE_SIZE = 200  # the largest that the service returns


class Kubeflow:
    """The backend for the runs and recurring runs of one experiment."""

    def __init__(
        self, host: str, namespace: str = "", experiment: str = "Default", sign_in: SignIn | None = None
    ) -> None:
        self._host = address(host)
        self._client, self._namespace = connect(self._host, namespace, sign_in or SignIn())
        self._experiment = self._find_experiment(experiment)

    def check_pipeline_root(self, pipeline_root: str) -> None:
        """See `Backend`; without a root, the cluster's own is used."""
        if pipeline_root and not kubeflow_bucket.check(pipeline_root):
            _log.warning("%s is not checked: this machine has no address and credentials of its service", pipeline_root)

    def submit(self, submission: Submission) -> tuple[Run, bool]:
        """See `Backend`; the run id becomes the display name."""
        messages.check_options(submission)

        def create() -> Any:
            # A repetition must not start a second run when the first attempt was carried out.
            if existing := self._find_run(submission.run_id):
                return existing
            with _package(submission) as package:
                return self._client.run_pipeline(
                    self._experiment,
                    submission.run_id,
                    package,
                    messages.parameters(submission),
                    pipeline_root=submission.pipeline_root or None,
                    service_account=submission.service_account or None,
                )

        with translate_api_errors("submit a run"):
            retried(lambda: kubeflow_version.check(self._client, submission.spec, submission.platforms))
            existing = self._find_run(submission.run_id)
            run = messages.to_run(self._with_spec(existing or retried(create)), self._host)
        if existing and (differences := run_differences.find(run.submission, submission)):
            raise base.run_id_taken(submission.run_id, differences)
        return run, existing is None

    def get_run(self, run_id: str) -> Run:
        """See `Backend`; the newest run with this display name, or the one with this id."""
        with translate_api_errors(f"show the run {run_id}"):
            found = retried(lambda: self._find_run(run_id))
            run = retried(lambda: self._client.get_run(found.run_id if found else run_id))
            return messages.to_run(self._with_spec(run), self._host)

    def list_runs(self, limit: int, schedule_id: str = "") -> list[Run]:
        """See `Backend`; of several runs with one display name, the newest has it as its id, the others their own."""
        where = _equals("recurring_run_id", schedule_id) if schedule_id else None

        def page(token: str) -> Any:
            size = min(limit, _PAGE_SIZE)
            return self._client.list_runs(token, size, "created_at desc", self._experiment, filter=where)

        with translate_api_errors("list runs"):
            found = list(itertools.islice(_items(page, "runs"), limit))
        runs: dict[str, Run] = {}
        for message in found:
            run = messages.to_run(message, self._host)
            run = dataclasses.replace(run, id=message.run_id) if run.id in runs else run
            runs[run.id] = run
        return list(runs.values())

    def cancel_run(self, run_id: str) -> None:
        """See `Backend`."""
        with translate_api_errors(f"cancel the run {run_id}"):
            found = self._find_run(run_id)
            retried(lambda: self._client.terminate_run(found.run_id if found else run_id))

    def create_schedule(self, name: str, recurrence: Recurrence, submission: Submission) -> Schedule:
        """See `Backend`; Kubeflow has one time zone, and with `queue` also starts the runs that a pause skipped."""
        if self._find_recurring_runs(name):
            raise base.schedule_exists(name)
        return self._create_recurring_run(name, recurrence, submission, enabled=True)

    def _create_recurring_run(
        self, name: str, recurrence: Recurrence, submission: Submission, *, enabled: bool
    ) -> Schedule:
        messages.check_options(submission)
        messages.check_recurrence(recurrence)
        with translate_api_errors("read the version"):
            retried(lambda: kubeflow_version.check(self._client, submission.spec, submission.platforms))
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
                    **messages.trigger(recurrence),
                    params=messages.parameters(submission),
                    pipeline_package_path=package,
                    enabled=enabled,
                    pipeline_root=submission.pipeline_root or None,
                    service_account=submission.service_account or None,
                )

        with translate_api_errors("create a schedule"):
            return messages.to_schedule(retried(create), self._host)

    def get_schedule(self, name: str) -> Schedule:
        """See `Backend`; the recurring run with this display name, or with this id."""
        found = self._find_recurring_runs(name)
        with translate_api_errors(f"show the schedule {name}"):
            if not found and _is_id(name):
                found = [retried(lambda: self._client.get_recurring_run(name))]
            if len(found) == 1:
                return messages.to_schedule(self._with_spec(found[0]), self._host)
        if not found:
            raise base.schedule_not_found(self, name)
        ids = " or ".join(one.recurring_run_id for one in found)
        raise FlagError("Several schedules have this name", received=name, expected=f"the id of one: {ids}")

    def list_schedules(self) -> list[Schedule]:
        """See `Backend`."""

        def page(token: str) -> Any:
            return self._client.list_recurring_runs(
                token, _PAGE_SIZE, "created_at desc", experiment_id=self._experiment
            )

        with translate_api_errors("list schedules"):
            return [messages.to_schedule(found, self._host) for found in _items(page, "recurring_runs")]

    def pause_schedule(self, schedule: Schedule) -> None:
        """See `Backend`."""
        with translate_api_errors("pause a schedule"):
            retried(lambda: self._client.disable_recurring_run(schedule.id))

    def resume_schedule(self, schedule: Schedule, catch_up: bool) -> None:
        """See `Backend`; whether a recurring run catches up is decided when it is created."""
        if catch_up and not schedule.recurrence.queue:
            raise FlagError(
                "This schedule cannot start all runs that the pause skipped",
                received="--catch_up",
                hint="Resuming it starts the latest of them. Kubeflow catches up if the schedule was created with "
                "--queue true, before the pause.",
            )
        if schedule.recurrence.queue and not catch_up:
            raise FlagError(
                "Resuming this schedule starts every run that the pause skipped",
                received="a schedule that catches up",
                hint="Give --catch_up if they are to start; `schedule update --queue false` makes it forget them.",
            )
        self._enable(schedule)

    def _enable(self, schedule: Schedule) -> None:
        with translate_api_errors("resume a schedule"):
            retried(lambda: self._client.enable_recurring_run(schedule.id))

    def update_schedule(self, schedule: Schedule, recurrence: Recurrence, submission: Submission) -> Schedule:
        """See `Backend`; a recurring run cannot be changed, so it is replaced.

        The new one is enabled last, so that no run is started twice.
        """
        self._check_runs_outlive(schedule)
        created = self._create_recurring_run(schedule.name, recurrence, submission, enabled=False)
        try:
            self.delete_schedule(schedule)
        except FlagError:  # as when it has started a run since
            self.delete_schedule(created)
            raise
        if schedule.state != "PAUSED":
            self._enable(created)
        return self.get_schedule(created.id)

    def delete_schedule(self, schedule: Schedule) -> None:
        """See `Backend`; Kubeflow Pipelines before 2.16 would end its active runs, so then it is refused."""
        self._check_runs_outlive(schedule)

        def delete() -> None:
            api = self._client._recurring_run_api  # kfp.Client's own method has no propagation_policy
            try:
                api.recurring_run_service_delete_recurring_run(schedule.id, propagation_policy="ORPHAN")
            except kfp_server_api.ApiException as error:
                if error.status != 404:  # an earlier attempt was carried out
                    raise

        with translate_api_errors("delete a schedule"):
            retried(delete)

    def _check_runs_outlive(self, schedule: Schedule) -> None:
        with translate_api_errors("read the version"):
            if retried(lambda: kubeflow_version.orphans_runs(self._client)):
                return
        active = [run.id for run in self.list_runs(_PAGE_SIZE, schedule.id) if not run.state.has_ended]
        if active:
            raise FlagError(
                "Kubeflow Pipelines before 2.16 ends the active runs of a schedule when it is deleted or replaced",
                received=", ".join(active),
                hint="Pause the schedule, and wait for them or cancel them: python -m pipelines runs cancel RUN",
            )

    def _find_experiment(self, name: str) -> str:
        """The id of the experiment with this name or id.

        Default is made where a namespace has none, as elsewhere by the service itself.
        """

        def page(token: str) -> Any:
            return self._client.list_experiments(token, _PAGE_SIZE, "", self._namespace, _equals("display_name", name))

        with translate_api_errors(f"find the experiment {name}"):
            found = [experiment.experiment_id for experiment in _items(page, "experiments")]
            if not found and _is_id(name):
                found = [self._client.get_experiment(name).experiment_id]
            if not found and name == "Default" and self._namespace:
                with contextlib.redirect_stdout(io.StringIO()):  # kfp prints its link
                    return str(self._client.create_experiment(name, namespace=self._namespace).experiment_id)
        if len(found) > 1:
            raise FlagError("Several experiments have this name", received=name, expected=" or ".join(found))
        if not found:
            where = f", in the namespace {self._namespace}" if self._namespace else ""
            raise FlagError("The --experiment is not found", received=name + where, hint="Create it in the UI first.")
        return str(found[0])

    def _find_run(self, name: str) -> Any:
        """The newest run with this display name; None without one."""
        named = _equals("display_name", name)
        page = self._client.list_runs("", 1, "created_at desc", self._experiment, filter=named)
        return page.runs[0] if page.runs else None

    def _find_recurring_runs(self, name: str) -> list[Any]:
        def page(token: str) -> Any:
            named = _equals("display_name", name)
            return self._client.list_recurring_runs(token, _PAGE_SIZE, "", self._experiment, None, named)

        with translate_api_errors("list schedules"):
            return list(_items(page, "recurring_runs"))

    def _with_spec(self, message: Any) -> Any:
        """The message of a run or a recurring run, with its pipeline: that of the uploaded version that it refers to.

        Without an id of the version, it is the latest one. A version that was deleted has none.
        """
        reference = message.pipeline_version_reference
        if message.pipeline_spec or not (reference and reference.pipeline_id):
            return message
        pipeline_id, version_id = reference.pipeline_id, reference.pipeline_version_id
        try:
            if version_id:
                versions = [retried(lambda: self._client.get_pipeline_version(pipeline_id, version_id))]
            else:
                latest = functools.partial(self._client.list_pipeline_versions, pipeline_id, "", 1, "created_at desc")
                versions = retried(latest).pipeline_versions or []
        except kfp_server_api.ApiException as error:
            if error.status != 404:
                raise
            versions = []
        message.pipeline_spec = versions[0].pipeline_spec if versions else None
        return message


def _items(page: Callable[[str], Any], field: str) -> Iterator[Any]:
    """The items of all pages of a list, in order.

    Args:
        page: requests the page of a token; '' is the first one's.
        field: of the answer, with the items.
    """
    token = ""
    while True:
        answer = retried(functools.partial(page, token))
        yield from getattr(answer, field) or []
        token = answer.next_page_token or ""
        if not token:
            return


def _equals(field: str, value: str) -> str:
    """A filter of the service's API."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": field, "stringValue": value}]})


def _is_id(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


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
