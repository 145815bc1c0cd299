"""Starts the stand-ins for use from the command line: python -m tests.standin [--folder DIR] [--port N] ..."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from pathlib import Path

from tests.standin import bucket
from tests.standin.kubeflow import Kubeflow
from tests.standin.registry import Registry
from tests.standin.vertex import Vertex
from tf_image_classification.vertex.client import ENDPOINT_VARIABLE


def main() -> None:
    """Serves until Ctrl-C; starts scheduled runs when they are due."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.standin",
        description="Stand-ins for Vertex AI, Kubeflow Pipelines, Cloud Storage and a registry, on this machine.",
    )
    parser.add_argument("--folder", type=Path, help="for the files and logs of runs (default: a temporary folder)")
    parser.add_argument(
        "--port",
        type=int,
        default=8900,
        help="of Vertex AI; Cloud Storage and Kubeflow get the next two (default: %(default)s)",
    )
    parser.add_argument("--bucket", default="my-bucket", help="name of the bucket (default: %(default)s)")
    parser.add_argument("--photos", type=Path, metavar="DIR", help="a folder that is copied to gs://BUCKET/photos")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="standin-"))
    with (
        bucket.serving(arguments.bucket, port=arguments.port + 1) as storage_url,
        Registry(has_all=True) as registry,
        contextlib.suppress(KeyboardInterrupt),
    ):
        if arguments.photos:
            bucket.fill(storage_url, arguments.bucket, "photos", arguments.photos)
        vertex = Vertex(folder.resolve(), storage_url, arguments.port)
        kubeflow = Kubeflow(folder.resolve() / "kubeflow", storage_url, arguments.port + 2)
        vertex.start()
        kubeflow.start()
        print(
            f"""Files and logs of runs: {folder}

Whoever has these addresses runs pipelines as you: keep them in the environment, out of commands, which `ps` shows.

In another terminal:
  export STORAGE_EMULATOR_HOST={storage_url}
  export {ENDPOINT_VARIABLE}={vertex.url}
  export KF_PIPELINES_ENDPOINT={kubeflow.url}
  VERTEX="--project my-project --location europe-west4"
  KUBEFLOW="--backend kubeflow"
  python -m pipelines submit $VERTEX --pipeline_root gs://{arguments.bucket}/runs \\
      --image_registry {registry.host}/training --train_metadata gs://{arguments.bucket}/photos --wait

Advance the clock, fail a task of the next run, lose the response to the next submission:
  control() {{ curl --json "$2" --config - <<< "url = ${ENDPOINT_VARIABLE}/standin/$1"; }}
  control clock '{{"weeks": 1}}'
  control fail_once '["train"]'
  control faults '{{"code": 503, "path": "pipelineJobs", "carried_out": true}}'

Ctrl-C ends.""",
            flush=True,
        )
        try:
            while True:
                vertex.fire_due()
                time.sleep(1)
        finally:
            vertex.stop()
            kubeflow.stop()


if __name__ == "__main__":
    main()
