"""The cluster that the train step of a compiled pipeline launches, in the pipeline's spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tf_image_classification.flag_types import TRAIN_STEP
from tf_image_classification.launch.job import ClusterShape

# Inputs of the step that Vertex AI fills in, as google_cloud_pipeline_components documents it. Kubeflow leaves them.
OF_THE_RUN = {
    "project": "{{$.pipeline_google_cloud_project_id}}",
    "location": "{{$.pipeline_google_cloud_location}}",
    "service_account": "{{$.pipeline_service_account}}",
    "network": "{{$.pipeline_network}}",
    "encryption_key": "{{$.pipeline_encryption_key_name}}",
}


def of_spec(spec: Mapping[str, Any]) -> ClusterShape | None:
    """The cluster; None where training is on one machine, or in a pipeline that is not this project's."""
    for component in [spec.get("root", {}), *spec.get("components", {}).values()]:
        task = component.get("dag", {}).get("tasks", {}).get(TRAIN_STEP, {})
        constant = task.get("inputs", {}).get("parameters", {}).get("cluster", {}).get("runtimeValue", {})
        if isinstance(text := constant.get("constant"), str):
            return ClusterShape.from_json(text)
    return None
