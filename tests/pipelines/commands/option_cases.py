"""A case for each option of each command: words with which what the command sends or prints must be another."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import NamedTuple

from pipelines import __main__ as pipelines_main

_DIGEST = "0" * 64


class Case(NamedTuple):
    """Words that give an option.

    Attributes:
        words: with the option; REGISTRY stands for a registry on this machine, GPU for the backend's name of one.
        beside: words of the call that it is compared with, too.
        compiles: this checkout's pipeline, not a template of the test.
    """

    words: tuple[str, ...]
    beside: tuple[str, ...] = ()
    compiles: bool = False


def _compiled(*words: str, beside: tuple[str, ...] = ()) -> Case:
    return Case(words, beside, compiles=True)


_SERVICE = {
    "backend": Case(("--backend", "kubeflow")),
    "project": Case(("--project", "other")),
    "location": Case(("--location", "us-central1")),
    "api_endpoint": Case(("--api_endpoint", "http://127.0.0.1:1")),
    "host": Case(("--host", "http://127.0.0.1:1")),
    "namespace": Case(("--namespace", "other")),
    "experiment": Case(("--experiment", "other")),
    "token_file": Case(("--token_file", "missing")),
    "cookie_file": Case(("--cookie_file", "missing")),
    "iap_client_id": Case(("--iap_client_id", "id.apps.googleusercontent.com")),
    "ca_file": Case(("--ca_file", "missing")),
}
_DATAFLOW = ("--build_runner", "dataflow", "--build_region", "europe-west4")
_COMPILATION = {
    "image_registry": _compiled("--image_registry", "REGISTRY/other"),
    "image_tag": _compiled("--image_tag", "v9"),
    "image_base": _compiled("--image_base", f"python@sha256:{_DIGEST}"),
    "image_user": _compiled("--image_user", "1000:1000"),
    "image_platform": _compiled("--image_platform", "linux/arm64"),
    "cpu": _compiled("--cpu", "4"),
    "memory": _compiled("--memory", "16G"),
    "accelerator": _compiled("--accelerator", "GPU:1"),
    "replicas": _compiled("--replicas", "1", beside=("--replicas", "2", "--parameter_servers", "1")),
    "parameter_servers": _compiled("--parameter_servers", "1"),
    "evaluator": _compiled("--evaluator"),
    "spot": _compiled("--spot"),
    "tensorboard": _compiled("--tensorboard", "projects/p/locations/l/tensorboards/1"),
    "build_runner": _compiled("--build_runner", "dataflow", "--build_region", "europe-west4"),
    "build_max_workers": _compiled("--build_max_workers", "7", beside=_DATAFLOW),
    "build_region": _compiled("--build_region", "us-central1", beside=_DATAFLOW),
    "build_machine_type": _compiled("--build_machine_type", "n2-standard-4", beside=_DATAFLOW),
    "build_service_account": _compiled("--build_service_account", "a@p.iam.gserviceaccount.com", beside=_DATAFLOW),
    "build_network": _compiled("--build_network", "builders", beside=_DATAFLOW),
    "build_subnetwork": _compiled("--build_subnetwork", "regions/europe-west4/subnetworks/b", beside=_DATAFLOW),
    "build_temp_location": _compiled("--build_temp_location", "gs://bucket/temp", beside=_DATAFLOW),
    "retries": _compiled("--retries", "3"),
    "notify": _compiled("--notify", "projects/p/topics/t"),
    "notify_insecure": _compiled("--notify_insecure", beside=("--notify", "https://example.com/hook")),
    "kubernetes": _compiled("--kubernetes", "kubernetes.yaml"),
}
_SHARED = {
    "pipeline_root": Case(("--pipeline_root", "gs://bucket/other")),
    "labels": Case(("--labels", "team=vision")),
    "service_account": Case(("--service_account", "a@p.iam.gserviceaccount.com")),
    "network": Case(("--network", "projects/1/global/networks/n")),
    "encryption_key": Case(("--encryption_key", "projects/p/locations/l/keyRings/r/cryptoKeys/k")),
    "failure_policy": Case(("--failure_policy", "fast")),
    "caching": Case(("--caching", "false")),
    "params": Case(("--params", "parameters.yaml")),
}
_RECURRENCE = {
    "cron": Case(("--cron", "0 5 * * 1")),
    "time_zone": Case(("--time_zone", "Europe/Berlin")),
    "start": Case(("--start", "2090-01-01T00:00")),
    "end": Case(("--end", "2090-01-01T00:00")),
    "max_concurrent_runs": Case(("--max_concurrent_runs", "3")),
    "queue": Case(("--queue", "true")),
}
_TEMPLATE = {"template": Case(("--template", "other.yaml"))}
_RUN = {"run_id": Case(("--run_id", "other")), "wait": Case(("--wait",))}
_WRITING = {**_SERVICE, **_RECURRENCE, **_TEMPLATE, **_COMPILATION, **_SHARED}

CASES: dict[str, dict[str, Case]] = {
    "compile": {
        "output": Case(("--output", "other.yaml")),
        "components_dir": Case(("--components_dir", "components")),
        **_COMPILATION,
        "backend": Case(("--backend", "vertex"), beside=("--accelerator", "NVIDIA_TESLA_T4:1")),
    },
    "run": {
        "runs_dir": Case(("--runs_dir", "other")),
        "runner": Case(("--runner", "docker")),
        "build_runner": Case(("--build_runner", "dataflow")),
        "replicas": Case(("--replicas", "2"), beside=("--batch_size", "2")),
        "parameter_servers": Case(("--parameter_servers", "1")),
        "evaluator": Case(("--evaluator",)),
        "image_base": Case(("--image_base", "other"), beside=("--runner", "docker")),
        "image_user": Case(("--image_user", "1000:1000"), beside=("--runner", "docker")),
        "image_platform": Case(("--image_platform", "linux/arm64"), beside=("--runner", "docker")),
        "verbose": Case(("--verbose",)),
        "show": Case(("--show",), beside=("--recipe", "scratch")),
        "params": Case(("--params", "flags.yaml")),
    },
    "submit": {**_SERVICE, **_TEMPLATE, **_COMPILATION, **_SHARED, **_RUN},
    "runs": {},
    "runs list": {
        **_SERVICE,
        "limit": Case(("--limit", "1")),
        "schedule": Case(("--schedule", "tiny")),
    },
    "runs show": {**_SERVICE, "wait": Case(("--wait",))},
    "runs cancel": _SERVICE,
    "runs rerun": {**_SERVICE, **_SHARED, **_RUN},
    "schedule": {},
    "schedule create": _WRITING,
    "schedule list": _SERVICE,
    "schedule show": _SERVICE,
    "schedule update": _WRITING,
    "schedule pause": _SERVICE,
    "schedule resume": {**_SERVICE, "catch_up": Case(("--catch_up",))},
    "schedule delete": _SERVICE,
}


def commands() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Each command's words and its parser."""

    def walk(words: tuple[str, ...], parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
        if words:
            yield " ".join(words), parser
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, inner in action.choices.items():
                    yield from walk((*words, name), inner)

    return walk((), pipelines_main._make_parser())
