"""The README's recipes for Vertex AI and Kubeflow, as written, against the stand-ins."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.standin import bucket
from tests.standin.kubeflow import Kubeflow
from tests.standin.vertex import Vertex

REPOSITORY = Path(__file__).resolve().parents[2]
# Instead of the README's, which need a pretrained network and hours.
_FLAGS = "image_size: 16\nbatch_size: 8\ntrain_steps: 4\nseed: 7\n"


def _recipes() -> list[str]:
    text = (REPOSITORY / "README.md").read_text()
    section = text.split("\n## On Vertex AI and Kubeflow\n")[1].split("\n## ")[0]
    return re.findall(r"```bash\n(.*?)```", section, re.DOTALL)


@pytest.mark.slow
def test_the_recipes_work_as_written(tmp_path, image_folder):
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    (tmp_path / "flags.yaml").write_text(_FLAGS)
    with bucket.serving("my-bucket") as storage_url:
        client = bucket.client(storage_url)
        for picture in image_folder.rglob("*.*"):
            client.bucket("my-bucket").blob(f"photos/{picture.relative_to(image_folder)}").upload_from_filename(
                str(picture)
            )
        vertex, kubeflow = Vertex(tmp_path / "vertex", storage_url), Kubeflow(tmp_path / "kubeflow", storage_url)
        vertex.start()
        kubeflow.start()
        try:
            script = "set -e\n" + "\n".join(_recipes()).replace(
                'europe-west4"', f'europe-west4 --api_endpoint {vertex.url}"', 1
            )
            script = script.replace("http://127.0.0.1:8080", kubeflow.url)
            environment = os.environ | {
                "STORAGE_EMULATOR_HOST": storage_url,
                "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path]),
            }
            done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
        finally:
            vertex.stop()
            kubeflow.stop()
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(vertex.jobs) == ["first", "second", "third"]
    assert {job.state.name for job in vertex.jobs.values()} == {"PIPELINE_STATE_SUCCEEDED"}
    (weekly,) = vertex.schedules.values()
    scheduled = dict(weekly.create_pipeline_job_request.pipeline_job.runtime_config.parameter_values)
    pets = "projects/my-project/locations/europe-west4/models/pets"
    assert (scheduled["train_steps"], scheduled["champion"], scheduled["checkpoint_path"]) == (4000, pets, "champion")
    assert [list(version.version_aliases) for version in vertex.models.versions["pets"].values()] == [["default"]]
    assert weekly.state.name == "ACTIVE"
    assert [run["state"] for run in kubeflow.runs.values()] == ["SUCCEEDED"]
    assert [recurring["display_name"] for recurring in kubeflow.recurring.values()] == ["nightly"]
