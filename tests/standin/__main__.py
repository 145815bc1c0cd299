"""Starts the stand-ins for a person: python -m tests.standin [--folder DIR] [--port N] [--bucket NAME]"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from pathlib import Path

from tests.standin import bucket
from tests.standin.kubeflow import Kubeflow
from tests.standin.vertex import Vertex


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.standin",
        description="Vertex AI Pipelines, Kubeflow Pipelines and a bucket, on this machine.",
    )
    parser.add_argument("--folder", type=Path, help="where runs keep their files (default: a temporary folder)")
    parser.add_argument(
        "--port",
        type=int,
        default=8900,
        help="of Vertex AI; the bucket's and Kubeflow's are the next (default: %(default)s)",
    )
    parser.add_argument("--bucket", default="my-bucket", help="name of the bucket (default: %(default)s)")
    parser.add_argument("--photos", type=Path, metavar="DIR", help="a folder to copy to gs://BUCKET/photos")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="standin-"))
    with bucket.serving(given.bucket, port=given.port + 1) as storage_url, contextlib.suppress(KeyboardInterrupt):
        if given.photos:
            bucket.fill(storage_url, given.bucket, "photos", given.photos)
        vertex = Vertex(folder.resolve(), storage_url, given.port)
        kubeflow = Kubeflow(folder.resolve() / "kubeflow", storage_url, given.port + 2)
        vertex.start()
        kubeflow.start()
        print(
            f"""Logs and files of runs: {folder}

In another terminal:
  export STORAGE_EMULATOR_HOST={storage_url}
  VERTEX="--project my-project --location europe-west4 --api_endpoint {vertex.url}"
  KUBEFLOW="--backend kubeflow --host {kubeflow.url}"
  python -m pipelines submit $VERTEX --pipeline_root gs://{given.bucket}/runs \\
      --train_metadata gs://{given.bucket}/photos --wait

Move the clock, fail a task of the next run, lose the answer to the next submission:
  curl -d '{{"weeks": 1}}' {vertex.url}/standin/clock
  curl -d '["train"]' {vertex.url}/standin/fail_once
  curl -d '{{"code": 503, "path": "pipelineJobs", "carried_out": true}}' {vertex.url}/standin/faults

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
