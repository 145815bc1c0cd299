"""The options that select the service which runs the pipeline, and the connection to it."""

from __future__ import annotations

import argparse
import os

from pipelines.backends.base import Backend
from tf_image_classification.errors import FlagError

_HOST_VARIABLE = "KF_PIPELINES_ENDPOINT"  # as kfp.Client names it
_VERTEX = ("project", "location", "api_endpoint")
_KUBEFLOW = ("host", "namespace", "experiment", "token_file", "cookie_file", "iap_client_id", "ca_file")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that select the service."""
    group = parser.add_argument_group("Service")
    group.add_argument("--backend", choices=("vertex", "kubeflow"), default="vertex", help="default: %(default)s")
    group.add_argument("--project", help="Vertex AI: Google Cloud project")
    group.add_argument("--location", help="Vertex AI: region, as europe-west4")
    group.add_argument(
        "--host",
        metavar="URL",
        help=f"Kubeflow: address of its API, as http://127.0.0.1:8080 (default: ${_HOST_VARIABLE})",
    )
    group.add_argument(
        "--namespace",
        default="",
        help="Kubeflow: namespace of a multi-user cluster (default: kfp's context file's, or that of this pod)",
    )
    group.add_argument(
        "--experiment", default="Default", help="Kubeflow: experiment that runs belong to (default: %(default)s)"
    )
    group.add_argument(
        "--token_file", default="", metavar="FILE", help="Kubeflow: bearer token, read again when it is renewed"
    )
    group.add_argument(
        "--cookie_file", default="", metavar="FILE", help="Kubeflow: cookies of a browser's session, NAME=VALUE; ..."
    )
    group.add_argument(
        "--iap_client_id", default="", metavar="ID", help="Kubeflow: OAuth client of the Identity-Aware Proxy before it"
    )
    group.add_argument(
        "--ca_file", default="", metavar="FILE", help="Kubeflow: certificates to trust (default: $SSL_CERT_FILE)"
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
        FlagError: an option is missing, or belongs to the other service.
        ServiceError: the service cannot be reached, or there are no usable credentials.
    """
    _check_backend(arguments)
    if arguments.backend == "kubeflow":
        host = arguments.host or os.environ.get(_HOST_VARIABLE)
        if not host:
            raise FlagError(
                "--host is required", expected="the address of Kubeflow's API", hint="--help lists the options."
            )
        from pipelines.backends.kubeflow import Kubeflow
        from pipelines.backends.kubeflow_sign_in import SignIn

        sign_in = SignIn(arguments.token_file, arguments.cookie_file, arguments.iap_client_id, arguments.ca_file)
        return Kubeflow(host, arguments.namespace, arguments.experiment, sign_in)
    for name in ("project", "location"):
        if not getattr(arguments, name):
            raise FlagError(f"--{name} is required", hint="There is no default: a run costs money where it runs.")
    from pipelines.backends.vertex import Vertex

    return Vertex(arguments.project, arguments.location, arguments.api_endpoint)


def given(arguments: argparse.Namespace) -> list[str]:
    """The words of a command line that select the same service."""
    words = []
    for name in ("backend", *_VERTEX, *_KUBEFLOW):
        value = getattr(arguments, name)
        if value and value != arguments.parser.get_default(name):
            words += [f"--{name}", value]
    return words


def _check_backend(arguments: argparse.Namespace) -> None:
    # A project and a location also complete the ids of models, which runs on Kubeflow may name.
    others = _KUBEFLOW if arguments.backend == "vertex" else ("api_endpoint",)
    for name in others:
        value = getattr(arguments, name)
        if value != arguments.parser.get_default(name):
            raise FlagError(f"--{name} does nothing with --backend {arguments.backend}", received=value)
