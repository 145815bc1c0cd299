"""The options that select the service which runs the pipeline, and the connection to it."""

from __future__ import annotations

import argparse
import os

from pipelines.backends.base import Backend
from tf_image_classification.errors import FlagError

# The options that only one of the services has.
_OF_SERVICE = {"vertex": ("project", "location", "api_endpoint"), "kubeflow": ("host", "namespace", "experiment")}
_EXPERIMENT = "Default"  # Kubeflow makes it
_HOST_VARIABLE = "KF_PIPELINES_ENDPOINT"  # as kfp.Client names it


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that select the service."""
    group = parser.add_argument_group("Service")
    group.add_argument("--backend", choices=("vertex", "kubeflow"), default="vertex", help="default: %(default)s")
    group.add_argument("--project", help="Vertex AI: Google Cloud project (required)")
    group.add_argument("--location", help="Vertex AI: region, as europe-west4 (required)")
    group.add_argument(
        "--host",
        metavar="URL",
        help=f"Kubeflow: address of its API, as http://127.0.0.1:8080 (default: ${_HOST_VARIABLE})",
    )
    group.add_argument("--namespace", default="", help="Kubeflow: namespace of a multi-user cluster")
    group.add_argument(
        "--experiment", default="", help=f"Kubeflow: experiment that runs belong to (default: {_EXPERIMENT})"
    )
    group.add_argument(
        "--api_endpoint",
        default="",
        metavar="URL",
        help="Vertex AI: another address of its API; over http:// no credentials are sent",
    )


def connect(arguments: argparse.Namespace) -> Backend:
    """The service that the options select.

    Raises:
        FlagError: an option is missing, or is one of the other service.
        ServiceError: the service cannot be reached, or there are no usable credentials.
    """
    for service, names in _OF_SERVICE.items():
        for name in names:
            if service != arguments.backend and getattr(arguments, name):
                raise FlagError(
                    f"--{name} is an option of --backend {service}",
                    received=f"--{name} {getattr(arguments, name)} with --backend {arguments.backend}",
                    hint="The default is --backend vertex.",
                )
    if arguments.backend == "kubeflow":
        host = arguments.host or os.environ.get(_HOST_VARIABLE)
        if not host:
            raise FlagError(
                "--host is required", expected="the address of Kubeflow's API", hint="--help lists the options."
            )
        from pipelines.backends.kubeflow import Kubeflow

        return Kubeflow(host, arguments.namespace, arguments.experiment or _EXPERIMENT)
    for name in ("project", "location"):
        if not getattr(arguments, name):
            raise FlagError(f"--{name} is required", hint="There is no default: a run costs money where it runs.")
    from pipelines.backends.vertex import Vertex

    return Vertex(arguments.project, arguments.location, arguments.api_endpoint)
