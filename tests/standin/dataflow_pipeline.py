"""Executes the pipeline of a job in this process: `python -m tests.standin.dataflow_pipeline gs://.../pipeline.pb`.

A worker of Dataflow would be a container; here it is a thread. The pipeline's code runs: it is only given what the
stand-in's own clients have staged.
"""

from __future__ import annotations

import sys

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.runner import PipelineState

from tf_image_classification import storage


def main() -> None:
    """Ends with 1 if the pipeline fails."""
    pipeline = beam_runner_api_pb2.Pipeline.FromString(storage.read_bytes(sys.argv[1]))
    for environment in pipeline.components.environments.values():
        environment.urn, environment.payload = python_urns.EMBEDDED_PYTHON, b""
        del environment.dependencies[:]
    result = FnApiRunner().run_via_runner_api(pipeline, PipelineOptions([]))
    if result.wait_until_finish() != PipelineState.DONE:
        sys.exit(1)


if __name__ == "__main__":
    main()
