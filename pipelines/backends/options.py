"""The options that say which service runs the pipeline, and the backend that they name."""

from __future__ import annotations

import argparse

from pipelines.backends.base import Backend
from tf_image_classification.errors import FlagError


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options that say which service."""
    group = parser.add_argument_group("Service")
    group.add_argument("--backend", choices=("vertex", "kubeflow"), default="vertex", help="default: %(default)s")
    group.add_argument("--project", help="Vertex AI: Google Cloud project")
    group.add_argument("--location", help="Vertex AI: region, as europe-west4")
    group.add_argument("--host", metavar="URL", help="Kubeflow: address of its API, as http://127.0.0.1:8080")
    group.add_argument("--namespace", default="", help="Kubeflow: namespace of a multi-user cluster")
    group.add_argument(
        "--experiment", default="Default", help="Kubeflow: experiment that runs belong to (default: %(default)s)"
    )
    group.add_argument(
        "--api_endpoint",
        default="",
        metavar="URL",
        help="another address of the service; one with http:// is sent no credentials",
    )


def connect(given: argparse.Namespace) -> Backend:
    """The service that the options name.

    Raises:
        FlagError: an option is missing.
    """
    if given.backend == "kubeflow":
        if not given.host:
            raise FlagError(
                "--host is required", expected="the address of Kubeflow's API", hint="--help lists the options."
            )
        from pipelines.backends.kubeflow import Kubeflow

        return Kubeflow(given.host, given.namespace, given.experiment)
    for name in ("project", "location"):
        if not getattr(given, name):
            raise FlagError(f"--{name} is required", hint="There is no default: a run costs money where it runs.")
    from pipelines.backends.vertex import Vertex

    return Vertex(given.project, given.location, given.api_endpoint)
