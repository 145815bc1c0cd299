"""python -m pipelines submit: start a run, once, with values that were checked before anything is sent."""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import re
import secrets
from collections.abc import Mapping, Sequence

from pipelines import template
from pipelines.backends import options
from pipelines.backends.base import Backend, Submission
from pipelines.commands import following
from tf_image_classification import command_line
from tf_image_classification import flags as flag_table
from tf_image_classification.errors import FlagError
from tf_image_classification.promotion import champion

_ID = re.compile(r"[a-z0-9][a-z0-9_-]*")
_LABEL = re.compile(r"([a-z][a-z0-9_-]{0,62})=([a-z0-9_-]{0,63})")


def main(argv: Sequence[str]) -> int:
    parser = command_line.Parser(
        "python -m pipelines submit",
        "Submits the pipeline to Vertex AI or Kubeflow. Flags and options are checked before anything is sent.",
        "A second submit with the same --run_id starts no second run.",
    )
    options.add_options(parser)
    template.add_options(parser)
    template.add_params_option(parser)
    add_options(parser)
    parser.add_argument("--wait", action="store_true", help="follow the run, task by task, and exit with its result")
    given, words = template.parse_options(parser, argv)

    spec = template.chosen(given)
    parameters = read_parameters(parser, given, words, spec)
    service = options.connect(given)
    blank = Submission(run_id="", spec=spec or template.compiled(given), parameters={}, pipeline_root="")
    return send(service, changed(blank, given, parameters), given.wait)


def send(service: Backend, submission: Submission, wait: bool) -> int:
    """Checks the bucket, submits, prints the link; returns the exit code."""
    service.check_root(submission.pipeline_root)
    run, new = service.submit(submission)
    print(f"Run {run.id} submitted" if new else f"Run {run.id} was submitted before; it is {run.state}")
    print(run.link, flush=True)
    if wait:
        following.until_ended(service, run.id)
    return 0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of a run."""
    group = parser.add_argument_group("Run")
    group.add_argument(
        "--run_id", help="name of the run, unique in project and region (default: the pipeline's name and the time)"
    )
    add_shared_options(group)


def add_shared_options(group: argparse._ActionsContainer) -> None:
    """Options of a run that a schedule's runs share."""
    group.add_argument(
        "--pipeline_root", metavar="gs://BUCKET/FOLDER", help="where the run's artifacts and checkpoints go"
    )
    group.add_argument("--labels", nargs="+", metavar="KEY=VALUE", help="labels of the run, as a bill shows them")
    group.add_argument(
        "--service_account",
        metavar="EMAIL",
        help="account that the steps run as (default: the project's Compute Engine one)",
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
        help="false: every task runs anew; true: as compiled, only those do that are never cached (default)",
    )


def read_parameters(
    parser: command_line.Parser,
    given: argparse.Namespace,
    words: Sequence[str],
    spec: template.Spec | None,
    base: Submission | None = None,
) -> dict[str, object]:
    """The run's parameters: those of `base`, then those of --params, then those on the command line; checked."""
    on_command_line = template.parse_parameters(parser, words, spec)
    in_file = template.read_parameters(given.params) if given.params else {}
    parameters = template.check(spec, {**(base.parameters if base else {}), **in_file, **on_command_line})
    if flag_table.BY_NAME["champion"] in template.signature(spec):
        parameters |= _in_full(parameters, given.project, given.location)
        champion.check(parameters.get("checkpoint_path"), parameters.get("champion"), parameters.get("endpoint"))
    template.check_paths(parameters)
    return parameters


def _in_full(parameters: Mapping[str, object], project: str | None, location: str | None) -> dict[str, object]:
    """What Vertex AI keeps by an id alone, with the project and the location that the run is in."""
    kinds = {"champion": "models", "endpoint": "endpoints"}
    ids = {name: str(parameters[name]) for name in kinds if _ID.fullmatch(str(parameters.get(name, "")))}
    return (
        {name: f"projects/{project}/locations/{location}/{kinds[name]}/{value}" for name, value in ids.items()}
        if project
        else {}
    )


def changed(base: Submission, given: argparse.Namespace, parameters: Mapping[str, object]) -> Submission:
    """`base` with these parameters and what the options say; a new run id unless one is given.

    Raises:
        FlagError: a label is none.
    """
    names = ("pipeline_root", "service_account", "network", "encryption_key", "failure_policy")
    options: dict[str, object] = {name: getattr(given, name) for name in names if getattr(given, name) is not None}
    if given.labels:
        options["labels"] = dict(_label(text) for text in given.labels)
    spec = dict(base.spec)
    if given.caching == "false":
        options["spec"] = template.without_cache(spec)
    if not base.pipeline_root and "pipeline_root" not in options:
        options["pipeline_root"] = spec.get("defaultPipelineRoot", "")
    options["parameters"] = parameters
    options["run_id"] = getattr(given, "run_id", None) or _new_id(template.name(spec))
    return dataclasses.replace(base, **options)  # type: ignore[arg-type]


def _label(text: str) -> tuple[str, str]:
    found = _LABEL.fullmatch(text)
    if not found:
        raise FlagError(
            "Invalid value for --labels",
            received=text,
            expected=(
                "KEY=VALUE of lower-case letters, digits, hyphens and underscores, at most 63 "
                "each, the key's first a letter"
            ),
        )
    return found[1], found[2]


def _new_id(pipeline: str) -> str:
    stem = re.sub(r"[^a-z0-9]+", "-", pipeline.lower()).strip("-")
    return f"{stem}-{dt.datetime.now(dt.UTC):%Y%m%d%H%M%S}-{secrets.token_hex(2)}"
