"""The Dataflow job that the build step of a compiled pipeline launches, in the pipeline's spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.clusters import OF_THE_RUN as _OF_THE_RUN
from tf_image_classification.dataflow.options import DataflowOptions
from tf_image_classification.errors import FlagError
from tf_image_classification.flag_types import BUILD_STEP

IMAGE = "beam"  # of the step and of the workers
# The network is left out: Vertex AI's is one to peer with, in another form than Dataflow's.
OF_THE_RUN = {name: _OF_THE_RUN[name] for name in ("project", "location", "service_account", "encryption_key")}


def of_spec(spec: Mapping[str, Any]) -> DataflowOptions | None:
    """The options of the job; None where the step builds on its own machine, or in a pipeline that is not this
    project's."""
    for component in [spec.get("root", {}), *spec.get("components", {}).values()]:
        task = component.get("dag", {}).get("tasks", {}).get(BUILD_STEP.replace("_", "-"), {})
        constant = task.get("inputs", {}).get("parameters", {}).get("dataflow", {}).get("runtimeValue", {})
        if isinstance(text := constant.get("constant"), str):
            return DataflowOptions.from_json(text)
    return None


def check_backend(dataflow: DataflowOptions, backend: str) -> None:
    """Checks that the steps of a backend will know where the job is to run.

    Raises:
        FlagError: they will not.
    """
    if backend == "kubeflow" and not dataflow.region:
        raise FlagError(
            "--build_runner dataflow needs --build_region on Kubeflow",
            received="no region",
            expected="a region of Dataflow, as europe-west4",
        )


def check_root(dataflow: DataflowOptions, pipeline_root: str) -> None:
    """Checks that Dataflow can write to a run's folder; '' is the default of the backend, which the step checks.

    Raises:
        FlagError: it is not on gs://.
    """
    if pipeline_root and not pipeline_root.startswith("gs://"):
        raise FlagError(
            "--build_runner dataflow needs a --pipeline_root on gs://",
            received=pipeline_root,
            expected="gs://BUCKET/FOLDER",
        )
