"""Kubeflow Pipelines as a backend, over kfp.Client.

The service knows runs and recurring runs by ids of its own choice, so this module finds them by their display names.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import kfp_server_api
import tenacity
import urllib3
import yaml
from kfp import client as kfp_client

from pipelines import template
from pipelines.backends import base as backend
from pipelines.backends import bucket
from pipelines.backends.base import Plan, Run, Schedule, Submission, Task
from tf_image_classification import storage
from tf_image_classification.errors import FlagError, ServiceError

_STATES = {
    "RUNNING": backend.RUNNING,
    "SUCCEEDED": backend.SUCCEEDED,
    "SKIPPED": backend.SKIPPED,
    "FAILED": backend.FAILED,
    "CANCELING": backend.RUNNING,
    "CANCELED": backend.CANCELLED,
}
_NEVER = dt.datetime.max.replace(tzinfo=dt.UTC)
_LOOKED_THROUGH = 200  # runs, for those of one schedule: the service cannot filter by it

Result = TypeVar("Result")


class Kubeflow:
    """Runs and recurring runs of one experiment."""

    def __init__(self, host: str, namespace: str = "", experiment: str = "Default") -> None:
        self._host, self._namespace = host.rstrip("/"), namespace or None
        with _translate_api_errors("sign in"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that servers before 2.0 are not supported
            self._client = kfp_client.Client(host=self._host, **({"namespace": namespace} if namespace else {}))
            try:
                found = self._client.get_experiment(experiment_name=experiment, namespace=self._namespace)
            except ValueError:
                raise FlagError(
                    "There is no such --experiment", received=experiment, hint="Create it in the UI first."
                ) from None
            self._experiment = found.experiment_id

    def check_root(self, pipeline_root: str) -> None:
        """Makes sure that a gs:// root's bucket is there; without a root the cluster's own is used."""
        if pipeline_root:
            bucket.check(pipeline_root)

    def submit(self, submission: Submission) -> tuple[Run, bool]:
        """Starts a run, unless one has its name: then that one is the answer.

        Raises:
            FlagError: an option is Vertex AI's, or the name is that of a run with other parameters.
            ServiceError: the service refuses.
        """
        _check(submission)
        attempts: list[int] = []

        def create() -> Any:
            attempts.append(1)
            if existing := self._named(submission.run_id):
                return existing
            with _file(submission.spec) as package:
                return self._client.run_pipeline(
                    self._experiment,
                    submission.run_id,
                    package,
                    _parameters(submission),
                    pipeline_root=submission.pipeline_root or None,
                    service_account=submission.service_account or None,
                )

        with _translate_api_errors("submit a run"):
            before = self._named(submission.run_id)
            made = before or _retried(create)
        if before and (_plain(before.runtime_config).get("parameters") or {}) != _parameters(submission):
            raise FlagError(
                "This --run_id is that of another run, with other parameters",
                received=submission.run_id,
                hint="Choose another --run_id.",
            )
        return self._as_run(made), before is None

    def run(self, run_id: str) -> Run:
        """The newest run of this name, or the one with this id."""
        with _translate_api_errors(f"show the run {run_id}"):
            found = _retried(lambda: self._named(run_id))
            return self._as_run(_retried(lambda: self._client.get_run(found.run_id if found else run_id)))

    def runs(self, limit: int, schedule: str = "") -> list[Run]:
        """The newest runs."""
        found: list[Run] = []
        token = ""
        with _translate_api_errors("list runs"):
            for _ in range(0, _LOOKED_THROUGH if schedule else limit, 50):
                ask = functools.partial(self._client.list_runs, token, 50, "created_at desc", self._experiment)
                page = _retried(ask)
                found += [
                    self._as_run(run) for run in page.runs or [] if not schedule or run.recurring_run_id == schedule
                ]
                token = page.next_page_token or ""
                if len(found) >= limit or not token:
                    break
        return found[:limit]

    def cancel(self, run_id: str) -> None:
        """Asks a run to end."""
        with _translate_api_errors(f"cancel the run {run_id}"):
            found = self._named(run_id)
            _retried(lambda: self._client.terminate_run(found.run_id if found else run_id))

    def create_schedule(self, name: str, plan: Plan, submission: Submission) -> Schedule:
        """Creates a recurring run; a name is taken once.

        Raises:
            FlagError: there is one of this name, or Kubeflow cannot do what the plan says.
        """
        if self._recurring(name):
            raise FlagError("There is a schedule of this name", received=name, hint="Change it with `schedule update`.")
        return self._create_schedule(name, plan, submission)

    def _create_schedule(self, name: str, plan: Plan, submission: Submission) -> Schedule:
        _check(submission)
        if plan.time_zone != "UTC" or plan.queue:
            option, value = ("time_zone", plan.time_zone) if plan.time_zone != "UTC" else ("queue", "true")
            raise FlagError(
                f"Kubeflow has no --{option} for a schedule",
                received=value,
                hint="Its controller has one time zone, UTC unless configured.",
            )
        before = {found.recurring_run_id for found in self._recurring(name)}

        def create() -> Any:
            for found in self._recurring(name):
                if found.recurring_run_id not in before:
                    return found
            with _file(submission.spec) as package:
                return self._client.create_recurring_run(
                    self._experiment,
                    name,
                    start_time=plan.start.isoformat() if plan.start else None,
                    end_time=plan.end.isoformat() if plan.end else None,
                    cron_expression=f"0 {plan.cron}",  # the first field is the second
                    max_concurrency=plan.max_concurrent_runs,
                    no_catchup=True,
                    params=_parameters(submission),
                    pipeline_package_path=package,
                    pipeline_root=submission.pipeline_root or None,
                    service_account=submission.service_account or None,
                )

        with _translate_api_errors("create a schedule"):
            return self._as_schedule(_retried(create))

    def schedule(self, name: str) -> Schedule:
        """The recurring run of this name.

        Raises:
            FlagError: there is none, or there are several.
        """
        found = self._recurring(name)
        if not found:
            known = ", ".join(one.name for one in self.schedules())
            raise FlagError(
                "There is no such schedule", received=name, expected=known or None, hint="`schedule list` shows them."
            )
        if len(found) > 1:
            raise FlagError("Several schedules have this name", received=name, hint="Delete all but one in the UI.")
        return self._as_schedule(found[0])

    def schedules(self) -> list[Schedule]:
        """The recurring runs, the newest first."""
        with _translate_api_errors("list schedules"):
            page = _retried(
                lambda: self._client.list_recurring_runs(
                    page_size=100, sort_by="created_at desc", experiment_id=self._experiment
                )
            )
            return [self._as_schedule(found) for found in page.recurring_runs or []]

    def pause(self, schedule: Schedule) -> None:
        """Starts no more runs until it is resumed."""
        with _translate_api_errors("pause a schedule"):
            _retried(lambda: self._client.disable_recurring_run(schedule.id))

    def resume(self, schedule: Schedule, catch_up: bool) -> None:
        """Goes on.

        Raises:
            FlagError: `catch_up` is set.
        """
        if catch_up:
            raise FlagError(
                "Kubeflow cannot catch up with what a pause left out",
                received="--catch_up",
                hint="Submit the runs instead.",
            )
        with _translate_api_errors("resume a schedule"):
            _retried(lambda: self._client.enable_recurring_run(schedule.id))

    def update_schedule(self, schedule: Schedule, plan: Plan, submission: Submission) -> Schedule:
        """Puts another recurring run in the place of this one: the service cannot change one."""
        return backend.replace_schedule(self, schedule, lambda: self._create_schedule(schedule.name, plan, submission))

    def delete_schedule(self, schedule: Schedule) -> None:
        """Deletes a recurring run; runs that it has started stay."""
        with _translate_api_errors("delete a schedule"):
            _retried(lambda: self._client.delete_recurring_run(schedule.id))

    def _named(self, name: str) -> Any:
        page = self._client.list_runs(
            page_size=1, sort_by="created_at desc", experiment_id=self._experiment, filter=_equals("display_name", name)
        )
        return page.runs[0] if page.runs else None

    def _recurring(self, name: str) -> list[Any]:
        with _translate_api_errors("list schedules"):
            page = _retried(
                lambda: self._client.list_recurring_runs(
                    experiment_id=self._experiment, filter=_equals("display_name", name)
                )
            )
        return page.recurring_runs or []

    def _as_run(self, run: Any) -> Run:
        submission = _submission(run, run.display_name)
        own = template.step_names(submission.spec)  # besides them there are their drivers, and groups of them
        details = [
            one for one in (run.run_details.task_details or [] if run.run_details else []) if one.display_name in own
        ]
        details.sort(key=lambda one: one.start_time or _NEVER)
        return Run(
            id=run.display_name,
            state=_STATES.get(run.state, backend.PENDING),
            pipeline=template.name(dict(submission.spec)) if own else "",
            created=run.created_at,
            ended=run.finished_at if run.state in ("SUCCEEDED", "FAILED", "CANCELED") else None,
            submission=submission,
            tasks=tuple(_task(one) for one in details),
            error=run.error.message or "" if run.error else "",
            schedule=run.recurring_run_id or "",
            link=f"{self._host}/#/runs/details/{run.run_id}",
        )

    def _as_schedule(self, found: Any) -> Schedule:
        cron = found.trigger.cron_schedule
        return Schedule(
            id=found.recurring_run_id,
            name=found.display_name,
            state="ACTIVE" if found.status == "ENABLED" else "PAUSED",
            plan=Plan(
                cron=cron.cron.partition(" ")[2],
                time_zone="UTC",
                start=cron.start_time,
                end=cron.end_time,
                max_concurrent_runs=int(found.max_concurrency or 1),
                queue=False,
            ),
            submission=_submission(found, ""),
            created=found.created_at,
            next_run=None,
            started_runs=None,
            link=f"{self._host}/#/recurringrun/details/{found.recurring_run_id}",
        )


def _parameters(submission: Submission) -> dict[str, Any]:
    """The run's parameters. Kubeflow does not tell its steps the pipeline root, so it is said here where checkpoints
    live."""
    known = submission.spec.get("root", {}).get("inputDefinitions", {}).get("parameters", {})
    parameters = dict(submission.parameters)
    if {"model_dir", "champion"} <= set(known) and not parameters.get("model_dir"):
        if not submission.pipeline_root:
            raise FlagError(
                "--pipeline_root or --model_dir is required", expected="gs://BUCKET/FOLDER, where checkpoints live"
            )
        parameters["model_dir"] = _checkpoints(submission.pipeline_root)
    return parameters


def _checkpoints(pipeline_root: str) -> str:
    return storage.join(pipeline_root, "checkpoints")


def _check(submission: Submission) -> None:
    for name in ("labels", "network", "encryption_key", "failure_policy"):
        if getattr(submission, name):
            raise FlagError(
                f"--{name} is an option of Vertex AI; Kubeflow has none", received=getattr(submission, name)
            )


def _submission(found: Any, run_id: str) -> Submission:
    spec = found.pipeline_spec or {}
    config = _plain(found.runtime_config)
    parameters, root = dict(config.get("parameters") or {}), config.get("pipeline_root") or ""
    if root and parameters.get("model_dir") == _checkpoints(root):  # it was said with the root, and goes with it
        del parameters["model_dir"]
    return Submission(
        run_id=run_id,
        spec=spec.get("pipeline_spec", spec),
        parameters=parameters,
        pipeline_root=root,
        service_account=found.service_account or "",
    )


def _plain(config: Any) -> dict[str, Any]:
    return config.to_dict() if config else {}


def _task(detail: Any) -> Task:
    state = _STATES.get(detail.state, backend.PENDING)
    ended = detail.end_time if state in (backend.SUCCEEDED, backend.FAILED, backend.CANCELLED) else None
    return Task(
        detail.display_name, state, detail.start_time, ended, detail.error.message or "" if detail.error else ""
    )


def _equals(key: str, value: str) -> str:
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": key, "stringValue": value}]})


@contextlib.contextmanager
def _file(spec: Mapping[str, Any]) -> Iterator[str]:
    """The pipeline as the file that kfp.Client asks for, without the links that it prints."""
    with storage.temporary_dir() as folder, contextlib.redirect_stdout(io.StringIO()):
        package = storage.join(folder, "pipeline.yaml")
        storage.write_text(package, yaml.safe_dump(dict(spec)))
        yield package


def _retried(call: Callable[[], Result]) -> Result:
    """Asks again, at growing intervals for two minutes, while the service is away."""
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_passing),
        wait=tenacity.wait_exponential(multiplier=1, max=20),
        stop=tenacity.stop_after_delay(120),
        reraise=True,
    )
    return retrying(call)


def _passing(error: BaseException) -> bool:
    lost = isinstance(error, (urllib3.exceptions.ProtocolError, urllib3.exceptions.ReadTimeoutError))
    return lost or (isinstance(error, kfp_server_api.ApiException) and error.status in (500, 502, 503, 504))


@contextlib.contextmanager
def _translate_api_errors(doing: str) -> Iterator[None]:
    try:
        yield
    except kfp_server_api.ApiException as error:
        said = _message(error)
        if error.status == 404:
            raise FlagError(f"Kubeflow cannot {doing}: it is not there", received=said) from None
        if error.status in (400, 409):
            raise FlagError(f"Kubeflow refuses to {doing}", received=said) from None
        if error.status in (401, 403):
            raise ServiceError(
                f"Kubeflow does not let this account {doing}", received=said, hint="Check --host and --namespace."
            ) from None
        if error.status == 429:
            raise ServiceError(
                f"Kubeflow is asked too often; cannot {doing} now", received=said, hint="Try again later."
            ) from None
        raise ServiceError(
            f"Kubeflow did not answer; cannot {doing}", received=said, hint="Try again with the same --run_id."
        ) from None
    except urllib3.exceptions.HTTPError as error:
        raise ServiceError(
            f"Kubeflow cannot be reached; cannot {doing}", received=error, hint="Check --host and the network."
        ) from None


def _message(error: kfp_server_api.ApiException) -> str:
    """What the service said: its body is JSON, or a proxy's page."""
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return f"{error.status} {error.reason}"
