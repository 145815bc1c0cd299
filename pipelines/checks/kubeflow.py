"""The checklist of Kubeflow."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import requests

from pipelines.backends import kubeflow_bucket, kubeflow_messages, kubeflow_sign_in, kubeflow_version, options
from pipelines.backends.kubeflow_errors import translate_api_errors
from pipelines.checks import shared
from pipelines.checks.lines import Line, Obstacle, Unknown, line
from pipelines.checks.plan import Plan
from pipelines.registry import cause_of

_TIMEOUT = 20  # seconds
_SINCE = {(2, 3): "limits of CPU and memory", (2, 5): "--retries", (2, 14): "--notify"}


def checklist(plan: Plan, arguments: argparse.Namespace) -> Iterator[Line]:
    """Makes the checks, one after the other.

    Args:
        arguments: the options of the service.
    """
    yield line("options", lambda: _accepted(plan))
    address = kubeflow_sign_in.address(options.host(arguments))
    yield line("address", partial(_answers, address, arguments.ca_file))
    client = []

    def sign_in() -> str:
        signed_in, namespace = kubeflow_sign_in.connect(address, arguments.namespace, options.sign_in(arguments))
        client.append((signed_in, namespace))
        return f"namespace {namespace}" if namespace else "a cluster without several users"

    yield line("sign-in", sign_in)
    for signed_in, namespace in client:
        yield line("version", partial(_version, signed_in))
        yield line("experiment", partial(_experiment, signed_in, arguments.experiment, namespace))
    if plan.pipeline_root:
        yield line("bucket", partial(_bucket, plan.pipeline_root))
    yield from shared.images(plan, "kubeflow")
    yield from shared.data(plan)


def _accepted(plan: Plan) -> str:
    kubeflow_messages.check_options(plan.submission)
    return "Kubeflow has them"


def _answers(address: str, ca_file: str) -> str:
    trusted = ca_file or os.environ.get(kubeflow_sign_in.CA_VARIABLE) or True
    url = f"{address}/apis/v2beta1/healthz"
    try:
        # Without an `auth` of its own, the request would be sent the password that ~/.netrc has.
        answer = requests.get(
            url, timeout=_TIMEOUT, allow_redirects=False, verify=trusted, auth=lambda request: request
        )
    except requests.RequestException as error:
        forward = "kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80    # and --host http://127.0.0.1:8080"
        raise Obstacle(f"{address} does not answer: {cause_of(error)}", forward) from None
    return f"{address} answers with HTTP {answer.status_code}"


def _version(client: Any) -> str:
    with translate_api_errors("tell its version"):
        found = kubeflow_version.read(client)
    parts = re.match(r"v?(\d+)\.(\d+)", found)
    if not parts:
        raise Unknown(
            f"Kubeflow Pipelines calls its version {found}", "kubectl get deploy -n kubeflow ml-pipeline -o wide"
        )
    version = int(parts[1]), int(parts[2])
    if version < (2, 0):
        raise Obstacle(f"Kubeflow Pipelines {found} runs no pipelines of KFP 2", "upgrade it, to 2.14 if you can")
    missing = [f"{what} (from {since[0]}.{since[1]})" for since, what in _SINCE.items() if version < since]
    return f"Kubeflow Pipelines {found}" + (f"; not for {', '.join(missing)}" if missing else "")


def _experiment(client: Any, name: str, namespace: str) -> str:
    with translate_api_errors("show an experiment"):
        try:
            client.get_experiment(experiment_name=name, namespace=namespace or None)
        except ValueError:
            if name == "Default" and namespace:
                return f"{name} does not exist yet in {namespace}: `submit` makes it"
            raise Obstacle(f"{name} does not exist", "create it in the UI, or give another --experiment") from None
    return name


def _bucket(pipeline_root: str) -> str:
    if not kubeflow_bucket.check(pipeline_root):
        raise Unknown(
            f"{pipeline_root}: this machine has no address and credentials of its service",
            "export AWS_ENDPOINT_URL_S3=https://HOST AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=...",
        )
    return f"{pipeline_root}, as this machine sees it"
