"""The project's pipeline on Kubeflow without mounts: images, checkpoints, report and champion are in a bucket."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.standin import bucket as standin_bucket
from tests.standin.kubeflow import Kubeflow

FLAGS = ["--batch_size", "8", "--train_steps", "4", "--image_size", "16", "--seed", "7", "--learning_rate", "0.1"]


@pytest.mark.slow
def test_the_pipeline_runs_on_kubeflow_and_continues_after_a_failure(tmp_path, command, storage_url, image_folder):
    standin_bucket.fill(storage_url, "bucket", "kubeflow/photos", image_folder)
    kubeflow = Kubeflow(tmp_path / "kubeflow", storage_url)
    kubeflow.start()
    try:
        backend = ["--backend", "kubeflow", "--host", kubeflow.url]
        root = ["--pipeline_root", "gs://bucket/kubeflow/runs", "--champion", "gs://bucket/kubeflow/service"]
        kubeflow.runner.fail_once = ["evaluate"]
        flags = [*root, "--train_metadata", "gs://bucket/kubeflow/photos", *FLAGS]
        failed = command("submit", *backend, "--run_id", "first", *flags, "--wait")
        assert failed.returncode == 1 and "evaluate:" in failed.stderr
        rerun = command("runs", "rerun", "first", *backend, "--run_id", "second", "--wait")
        logs = "".join(log.read_text()[-3000:] for log in (kubeflow.runner.folder / "logs").iterdir())
        assert rerun.returncode == 0, rerun.stderr + logs
    finally:
        kubeflow.stop()
    client = standin_bucket.client(storage_url)
    names = [blob.name for blob in client.list_blobs("bucket", prefix="kubeflow/")]
    models = [name for name in names if name.endswith("train/model/model.json")]
    assert len(models) == 1  # the second run took it from the cache
    assert any(name.startswith("kubeflow/runs/checkpoints/") and name.endswith("model.ckpt-4.index") for name in names)
    (report,) = [name for name in names if name.endswith("evaluation/report.html")]
    assert b"<html" in client.bucket("bucket").blob(report).download_as_bytes()
    pointer = json.loads(client.bucket("bucket").blob("kubeflow/service/champion.json").download_as_bytes())
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
        done = command("submit", *backend, "--pipeline_root", "gs://bucket/mounted", *paths, *FLAGS, "--wait")
        logs = "".join(log.read_text()[-3000:] for log in (kubeflow.runner.folder / "logs").iterdir())
        assert done.returncode == 0, done.stderr + logs
    finally:
        kubeflow.stop()
    assert list((mount / "runs").glob("*/model.ckpt-4.index"))
    pointer = json.loads((mount / "service" / "champion.json").read_text())
    assert (mount / "service" / pointer["model"] / "saved_model" / "saved_model.pb").exists()
