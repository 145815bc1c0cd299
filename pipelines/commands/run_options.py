"""The options of a run, which a schedule's runs share, and the submission that they describe."""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import logging
import re
import secrets
from collections.abc import Mapping

from pipelines import backend_limits, build_runner, clusters, kubernetes_platform, template
from pipelines.backends.base import Submission
from pipelines.commands import parameter_files, parameters
from tf_image_classification import flags as flag_table
from tf_image_classification import storage
from tf_image_classification.errors import FlagError

_log = logging.getLogger(__name__)
_RESOURCE_ID = re.compile(r"[a-z0-9][a-z0-9_-]*")
_LABEL = re.compile(r"([a-z][a-z0-9_-]{0,62})=([a-z0-9_-]{0,63})")


def add_options(parser: argparse.ArgumentParser, *, of_new: bool) -> None:
    """Adds the options of a single run; see `add_shared_options`."""
    group = parser.add_argument_group("Run")
    group.add_argument(
        "--run_id", help="name of the run, unique in project and region (default: the pipeline's name and the time)"
    )
    add_shared_options(group, of_new=of_new)


def add_wait_option(parser: argparse.ArgumentParser) -> None:
    """Adds --wait."""
    parser.add_argument("--wait", action="store_true", help="follow the run, task by task, and exit with its result")


def add_shared_options(group: argparse._ActionsContainer, *, of_new: bool) -> None:
    """Adds the options of a run that all runs of a schedule share.

    Args:
        of_new: for a new run or schedule, not for one that has a pipeline root already.
    """
    group.add_argument(
        "--pipeline_root",
        metavar="gs://BUCKET/FOLDER",
        help="folder for the run's artifacts and checkpoints" + (" (required on Vertex AI)" if of_new else ""),
    )
    group.add_argument(
        "--labels",
        nargs="+",
        action="extend",
        metavar="KEY=VALUE",
        help="labels of the run, shown in billing reports; '' for none",
    )
    group.add_argument(
        "--service_account",
        metavar="ACCOUNT",
        help="account that the steps run as: on Vertex AI its e-mail address (default: the project's Compute Engine "
        "one), on Kubeflow the name of a Kubernetes service account",
    )
    group.add_argument(
        "--network", metavar="NAME", help="VPC network to peer with: projects/NUMBER/global/networks/NAME"
    )
    group.add_argument("--encryption_key", metavar="KEY", help="Cloud KMS key that encrypts what Vertex AI stores")
    group.add_argument(
        "--failure_policy", choices=("slow", "fast"), help="after a failed task, start what can be started, or nothing"
    )
    group.add_argument(
        "--caching",
        choices=("true", "false"),
        help="false: no task is cached; true: as compiled, with a few tasks that are never cached (default)",
    )


def read_parameters(
    arguments: argparse.Namespace, spec: template.Spec | None, base: Submission | None = None
) -> dict[str, object]:
    """The run's checked parameters: those of `base`, overridden by --params, overridden by the command line.

    What `base` has and the pipeline has not, as another --template may, is left out with a warning. A recipe is
    replaced by its values, see `parameters.combine`.

    Args:
        spec: the pipeline; None for this project's own.

    Raises:
        FlagError: a parameter is unknown, invalid or missing; or the service does not have the pipeline of `base`.
    """
    if base and not spec:
        raise FlagError(
            "The service does not have this pipeline any more, or it is of Kubeflow Pipelines 1",
            hint="Submit it from its file: --template PIPELINE.yaml",
        )
    on_command_line = parameters.parse(arguments, spec)
    flags = {flag.name: flag for flag in template.signature(spec)}
    in_file = parameter_files.read(arguments.params, flags) if arguments.params else {}
    inherited = _kept(spec, base.parameters) if base and spec else {}
    combined = parameters.combine(spec, inherited, {**in_file, **on_command_line})
    values = template.check_parameters(spec, combined)
    if combined.get("recipe") == "":  # sent, because a template may have a recipe as its default
        values["recipe"] = ""
    values |= check_together(spec, values, arguments)
    storage.bill_to(str(values.get("billing_project") or ""))
    return values


def check_together(
    spec: template.Spec | None, values: Mapping[str, object], arguments: argparse.Namespace
) -> dict[str, object]:
    """Checks parameters that need each other, see `parameters.check_together`, of a pipeline that has them.

    Returns:
        The full names of Vertex AI resources that `values` gives by their ids.
    """
    if flag_table.BY_NAME["champion"] not in template.signature(spec):
        return {}
    names = _resource_names(values, arguments.project, arguments.location)
    parameters.check_together({**values, **names}, in_images=True)
    return names


def _kept(spec: template.Spec, inherited: Mapping[str, object]) -> dict[str, object]:
    """The parameters that the pipeline has."""
    known = template.parameter_names(spec)
    for name, value in inherited.items():
        if name not in known and value != "":
            _log.warning("The pipeline has no --%s: its value %s is left out", name, value)
    return {name: value for name, value in inherited.items() if name in known}


def new_submission(
    arguments: argparse.Namespace, pipeline: template.Pipeline, values: Mapping[str, object]
) -> Submission:
    """The submission that the options describe.

    Args:
        values: the checked parameters.

    Raises:
        FlagError: a label is invalid, see `change` too.
    """
    empty = Submission(run_id="", spec=pipeline.spec, parameters={}, pipeline_root="", platforms=pipeline.platforms)
    return change(empty, arguments, values)


def change(base: Submission, arguments: argparse.Namespace, values: Mapping[str, object]) -> Submission:
    """`base` with the options that are given, and a new run id unless one is given.

    Args:
        values: the checked parameters.

    Raises:
        FlagError: a label is invalid, a parameter is a path that the steps cannot see, the batches cannot be divided
            among the replicas, Dataflow cannot write to the pipeline root, or the backend does not take the pipeline's
            hardware or Kubernetes settings.
    """
    backend_limits.check(base.spec, base.platforms, arguments.backend)
    backend_limits.check_service_account(arguments.service_account or "", arguments.backend)
    template.check_paths(values, arguments.backend, kubernetes_platform.claim_mounts(base.spec, base.platforms))
    if cluster := clusters.of_spec(base.spec):
        cluster.check_flags(values)
    names = ("pipeline_root", "service_account", "network", "encryption_key", "failure_policy")
    changes: dict[str, object] = {
        name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None
    }
    if arguments.labels:
        changes["labels"] = {} if arguments.labels == [""] else dict(_parse_label(text) for text in arguments.labels)
    spec = dict(base.spec)
    if arguments.caching == "false":
        changes["spec"] = template.without_caching(spec)
    elif arguments.caching == "true" and template.is_without_caching(spec):
        changes["spec"] = _with_caching(spec)
    if not base.pipeline_root and "pipeline_root" not in changes:
        changes["pipeline_root"] = spec.get("defaultPipelineRoot", "")
    changes["pipeline_root"] = template.check_root(str(changes.get("pipeline_root", base.pipeline_root)))
    if dataflow := build_runner.of_spec(base.spec):
        build_runner.check_root(dataflow, str(changes["pipeline_root"]))
    changes["parameters"] = values
    changes["run_id"] = getattr(arguments, "run_id", None) or _new_run_id(template.pipeline_name(spec))
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def _with_caching(spec: template.Spec) -> template.Spec:
    from pipelines import definition  # imports kfp

    is_ours = template.pipeline_name(spec) == definition.NAME
    never_cached = [step.replace("_", "-") for step in definition.NEVER_CACHED] if is_ours else ()
    return template.with_caching(spec, never_cached)


def _resource_names(values: Mapping[str, object], project: str | None, location: str | None) -> dict[str, object]:
    """The full names of Vertex AI resources that are given by their ids, in the project and location of the run."""
    if not project:
        return {}
    names: dict[str, object] = {}
    for flag, collection in (("champion", "models"), ("endpoint", "endpoints")):
        resource_id = str(values.get(flag, ""))
        if _RESOURCE_ID.fullmatch(resource_id):
            names[flag] = f"projects/{project}/locations/{location}/{collection}/{resource_id}"
    return names


def _parse_label(text: str) -> tuple[str, str]:
    found = _LABEL.fullmatch(text)
    if not found:
        raise FlagError(
            "Invalid value for --labels",
            received=text,
            expected="KEY=VALUE of lower-case letters, digits, hyphens and underscores, at most 63 characters each, "
            "the key starting with a letter",
        )
    return found[1], found[2]


def _new_run_id(pipeline: str) -> str:
    stem = re.sub(r"[^a-z0-9]+", "-", pipeline.lower()).strip("-")[:100]
    if not stem[:1].isalpha():  # as the ids of Vertex AI begin
        stem = f"run-{stem}"
    return f"{stem}-{dt.datetime.now(dt.UTC):%Y%m%d%H%M%S}-{secrets.token_hex(2)}"
