"""The project's pipeline on Kubeflow without mounts: images, checkpoints, report and champion are in a bucket."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import yaml

from tests.standin import bucket as standin_bucket
from tests.standin.kubeflow import Kubeflow

ROOT = "gs://bucket/kubeflow/runs"
FLAGS = {"batch_size": 8, "train_steps": 4, "image_size": 16, "seed": 7, "learning_rate": 0.1}
PLACES = {"train_metadata": "gs://bucket/kubeflow/photos", "champion": "gs://bucket/kubeflow/service"}


@pytest.mark.slow
def test_a_run_made_in_the_ui_fails_and_what_the_commands_submit_continues_from_its_cache(
    tmp_path, command, storage_url, image_folder
):
    """The first run has neither a model_dir nor the parameters that are at their defaults."""
    from kfp import client

    standin_bucket.fill(storage_url, "bucket", "kubeflow/photos", image_folder)
    kubeflow = Kubeflow(tmp_path / "kubeflow", storage_url)
    kubeflow.start()
    try:
        template = str(tmp_path / "pipeline.yaml")
        assert command("compile", "--output", template).returncode == 0
        with open(template) as file:
            version = kubeflow.uploaded.upload("retraining", yaml.safe_load(file))
        kubeflow.runner.fail_once = ["evaluate"]
        (experiment,) = kubeflow.experiments
        ui = client.Client(host=kubeflow.url)
        first = ui.run_pipeline(experiment, "first", None, PLACES | FLAGS, *version, pipeline_root=ROOT).run_id
        kubeflow.join()
        states = {one["display_name"]: one["state"] for one in kubeflow.runs[first]["run_details"]["task_details"]}
        logs = "".join(log.read_text()[-3000:] for log in (kubeflow.runner.folder / "logs").iterdir())
        assert (states["train"], states["evaluate"]) == ("SUCCEEDED", "FAILED"), logs
        assert states["gate"] == "RUNTIME_STATE_UNSPECIFIED"  # never reached
        backend = ["--backend", "kubeflow", "--host", kubeflow.url, "--pipeline_root", ROOT]
        flags = [f"--{name}={value}" for name, value in (PLACES | FLAGS).items()]
        done = command("submit", *backend, "--template", template, "--run_id", "second", *flags, "--wait")
        logs = "".join(log.read_text()[-3000:] for log in (kubeflow.runner.folder / "logs").iterdir())
        assert done.returncode == 0, done.stderr + logs
    finally:
        kubeflow.stop()
    client_of_bucket = standin_bucket.client(storage_url)
    names = [blob.name for blob in client_of_bucket.list_blobs("bucket", prefix="kubeflow/")]
    models = [name for name in names if re.search("/train/[^/]*/model/model.json$", name)]
    assert len(models) == 1  # the second run took it from the cache
    assert any(name.startswith("kubeflow/runs/checkpoints/") and name.endswith("model.ckpt-4.index") for name in names)
    (report,) = [name for name in names if name.endswith("evaluation/report.html")]
    assert b"<html" in client_of_bucket.bucket("bucket").blob(report).download_as_bytes()
    pointer = json.loads(client_of_bucket.bucket("bucket").blob("kubeflow/service/champion.json").download_as_bytes())
    assert pointer["run"]
    assert f"kubeflow/service/{pointer['model']}/saved_model/saved_model.pb" in names


@pytest.mark.slow
def test_a_mounted_claim_holds_the_images_the_checkpoints_and_the_model_in_service(
    tmp_path, command, storage_url, image_folder
):
    mount = tmp_path / "mnt"
    shutil.copytree(image_folder, mount / "photos")
    settings = tmp_path / "kubernetes.yaml"
    settings.write_text(
        "volumes: [{name: training, persistentVolumeClaim: {claimName: training}}]\n"
        f"volumeMounts: [{{name: training, mountPath: {mount}}}]\n"
    )
    kubeflow = Kubeflow(tmp_path / "kubeflow", storage_url)
    kubeflow.start()
    try:
        backend = ["--backend", "kubeflow", "--host", kubeflow.url, "--kubernetes", str(settings)]
        paths = [
            "--train_metadata",
            f"{mount}/photos",
            "--model_dir",
            f"{mount}/runs",
            "--champion",
            f"{mount}/service",
        ]
        flags = [f"--{name}={value}" for name, value in FLAGS.items()]
        done = command("submit", *backend, "--pipeline_root", "gs://bucket/mounted", *paths, *flags, "--wait")
        logs = "".join(log.read_text()[-3000:] for log in (kubeflow.runner.folder / "logs").iterdir())
        assert done.returncode == 0, done.stderr + logs
    finally:
        kubeflow.stop()
    assert list((mount / "runs").glob("*/model.ckpt-4.index"))
    pointer = json.loads((mount / "service" / "champion.json").read_text())
    assert (mount / "service" / pointer["model"] / "saved_model" / "saved_model.pb").exists()
