"""The options that say where the pipeline builds its TFRecords: on the machine of the step, or on Dataflow."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

from tf_image_classification.errors import FlagError

if TYPE_CHECKING:
    from tf_image_classification.dataflow.options import DataflowOptions

LOCAL, DATAFLOW = "local", "dataflow"
_RUNNER = "build_runner"

# Option -> metavar, form, what the form is in words, help.
_OPTIONS = {
    "build_region": ("REGION", r"[a-z]+-[a-z]+[0-9]+", "a region, as europe-west4", "region (default: the run's)"),
    "build_machine_type": ("TYPE", r"[a-z][a-z0-9-]+", "a machine type, as n2-standard-4", "machine of a worker"),
    "build_service_account": (
        "ACCOUNT",
        r"[^@\s]+@[^@\s]+",
        "an e-mail address, as builder@PROJECT.iam.gserviceaccount.com",
        "account of the workers (default: the run's on Vertex AI, else the project's Compute Engine one)",
    ),
    "build_network": ("NAME", r"[a-z0-9:./_-]+", "the name of a network", "VPC network of the workers"),
    "build_subnetwork": (
        "NAME",
        r"(https://\S+/)?(projects/\S+/)?regions/[a-z0-9-]+/subnetworks/[a-z0-9-]+",
        "regions/REGION/subnetworks/NAME, or its whole address",
        "subnetwork of the workers: regions/REGION/subnetworks/NAME",
    ),
    "build_temp_location": (
        "gs://BUCKET/FOLDER",
        r"gs://[a-z0-9][a-z0-9._-]+(/.*)?",
        "gs://BUCKET/FOLDER",
        "temporary files of the job (default: the folder of the step, in the pipeline root)",
    ),
}


def add_runner(parser: argparse._ActionsContainer) -> None:
    """Adds --build_runner."""
    parser.add_argument(
        f"--{_RUNNER}",
        choices=(LOCAL, DATAFLOW),
        default=LOCAL,
        help="build TFRecords on the machine of the step, or as a Dataflow job (default: %(default)s)",
    )


def add_options(parser: argparse._ActionsContainer) -> None:
    """Adds all options."""
    add_runner(parser)
    parser.add_argument(
        "--build_max_workers", type=int, default=0, metavar="N", help="Dataflow: machines at most (default: its own)"
    )
    for name, (metavar, _, _, text) in _OPTIONS.items():
        parser.add_argument(f"--{name}", default="", metavar=metavar, help=f"Dataflow: {text}")


def read(arguments: argparse.Namespace, image: str) -> DataflowOptions | None:
    """The job that the options describe; None for a build on the machine of the step.

    Args:
        image: of the step and the workers.

    Raises:
        FlagError: an option has an invalid value, or no effect.
    """
    from tf_image_classification.dataflow.options import DataflowOptions

    if arguments.build_max_workers < 0:
        raise FlagError(
            "Invalid value for --build_max_workers",
            received=arguments.build_max_workers,
            expected="a whole number >= 0, 0 for Dataflow's default",
        )
    given = {name: getattr(arguments, name) for name in ("build_max_workers", *_OPTIONS) if getattr(arguments, name)}
    if arguments.build_runner == LOCAL:
        for name, value in given.items():
            raise FlagError(
                f"--{name} has no effect without --build_runner dataflow", received=value, expected="both, or neither"
            )
        return None
    for name, (_, form, expected, _) in _OPTIONS.items():
        if name in given and not re.fullmatch(form, given[name]):
            raise FlagError(f"Invalid value for --{name}", received=given[name], expected=expected)
    return DataflowOptions(image, **{name.removeprefix("build_"): value for name, value in given.items()})


def as_options(dataflow: DataflowOptions) -> dict[str, object]:
    """The options that describe a job, by name."""
    values = {f"build_{name}": getattr(dataflow, name) for name in dataflow.__slots__ if name != "image"}
    return {_RUNNER: DATAFLOW} | values


def refuse_dataflow(arguments: argparse.Namespace) -> None:
    """Refuses --build_runner dataflow where the pipeline runs on this machine.

    Raises:
        FlagError: it is given.
    """
    if arguments.build_runner == DATAFLOW:
        raise FlagError(
            "--build_runner dataflow is for Vertex AI and Kubeflow: a run on this machine keeps its data set here, "
            "where Dataflow cannot write",
            received="--build_runner dataflow",
            expected="--build_runner local",
            hint="`python -m tf_image_classification.build_tfrecords --runner DataflowRunner` builds to gs://; give "
            "its --output_dir as --train_metadata.",
        )
