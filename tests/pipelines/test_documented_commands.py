"""The commands of the pages on Vertex AI and Kubeflow, run as they are written, against the stand-ins."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests import documents
from tests.pipelines import documented_commands
from tests.standin import bucket
from tests.standin.kubeflow import Kubeflow
from tests.standin.vertex import Vertex
from tf_image_classification.vertex.client import ENDPOINT_VARIABLE

# Blocks that need what is outside of the machine: Google's serving image.
_NOT_HERE = re.compile(r"docker pull us-docker\.pkg\.dev/vertex-ai")
# The page on Vertex AI says in words where the addresses of the artifacts are printed.
_ARTIFACTS = """
shown=$(.venv/bin/python -m pipelines runs show fourth $VERTEX)
MODEL=$(awk '$1 == "train.model" { print $2 }' <<< "$shown")
EVALUATION=$(awk '$1 == "evaluate.evaluation" { print $2 }' <<< "$shown")
"""
# And that on Kubeflow, that its UI shows them: here, they are where the launcher puts them.
_ARTIFACTS_IN_THE_UI = """
MODEL=$(gcloud storage ls gs://my-bucket/runs/**/model/model.json)
EVALUATION=$(gcloud storage ls gs://my-bucket/runs/**/evaluation/report.html)
MODEL=${MODEL%/*} EVALUATION=${EVALUATION%/*}
"""


@pytest.fixture
def checkout(tmp_path, image_folder) -> Path:
    """A checkout with the user's images beside it, and the parameter file of the README without its checkpoint."""
    folder = documents.copy_of_the_checkout(tmp_path / "checkout")
    (folder / "photos").symlink_to(image_folder)
    (folder / "flags.yaml").write_text("image_size: 16\nbatch_size: 8\ntrain_steps: 4\nseed: 7\n")
    documented_commands.install(tmp_path / "programs")
    return folder


def _run(text: str, checkout: Path, environment: dict[str, str], before: dict[str, str]) -> str:
    """Runs a page's bash blocks in one shell, and returns what they print.

    Args:
        before: text in a block -> what the shell runs before this block.
    """
    script = ["set -euo pipefail"]
    for block in documents.blocks(text, "bash"):
        if _NOT_HERE.search(block):
            continue
        script += [extra for text, extra in before.items() if text in block]
        script.append(block)
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=checkout,
        env=os.environ | environment | {"PATH": f"{checkout.parent / 'programs'}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_the_page_on_vertex_leads_from_a_new_project_to_a_scheduled_retrain(checkout, tmp_path):
    with bucket.serving("of-another") as storage_url:
        vertex = Vertex(tmp_path / "vertex", storage_url)
        vertex.start()
        try:
            printed = _run(
                documents.read("docs/vertex.md"),
                checkout,
                {"STORAGE_EMULATOR_HOST": storage_url, ENDPOINT_VARIABLE: vertex.url},
                {"--model $MODEL": _ARTIFACTS},
            )
        finally:
            vertex.stop()
    for run in ("first", "second", "third", "fourth"):
        assert f"Run {run} SUCCEEDED" in printed, printed
    assert "weekly" in printed


@pytest.mark.slow
def test_the_page_on_kubeflow_leads_from_a_forwarded_port_to_a_scheduled_retrain(checkout, tmp_path, image_folder):
    with bucket.serving("my-bucket") as storage_url:
        bucket.fill(storage_url, "my-bucket", "photos", image_folder)
        bucket.client(storage_url).create_bucket("my-service-bucket")
        kubeflow = Kubeflow(tmp_path / "kubeflow", storage_url)
        kubeflow.start()
        try:
            page = documents.read("docs/kubeflow.md").replace("http://127.0.0.1:8080", kubeflow.url)
            printed = _run(
                page, checkout, {"STORAGE_EMULATOR_HOST": storage_url}, {"--model $MODEL": _ARTIFACTS_IN_THE_UI}
            )
        finally:
            kubeflow.stop()
    for run in ("first", "second", "third"):
        assert f"Run {run} SUCCEEDED" in printed, printed
    assert "nightly" in printed
