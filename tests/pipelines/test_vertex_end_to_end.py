"""The project's pipeline on Vertex AI, from images in a bucket to a model and a report in a bucket."""

from __future__ import annotations

import json

import pytest

SECRET = "hidden-refresh-token"  # noqa: S105 - of no real account


@pytest.fixture
def account(tmp_path, monkeypatch):
    """Credentials of the user of the command line, which are not sent over plain HTTP."""
    file = tmp_path / "account.json"
    file.write_text(
        json.dumps({"type": "authorized_user", "client_id": "c", "client_secret": SECRET, "refresh_token": SECRET})
    )
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))


@pytest.mark.slow
def test_the_pipeline_runs_on_vertex_and_retrains_only_on_new_data(
    account, pipelines, vertex, storage_url, image_folder
):
    from tests.standin import bucket as standin_bucket

    client = standin_bucket.client(storage_url)
    bucket = client.bucket("bucket")
    images = sorted(image_folder.rglob("*.*"))
    for image in images[1:]:
        bucket.blob(f"photos/{image.relative_to(image_folder)}").upload_from_filename(str(image))
    flags = ["--batch_size", "8", "--train_steps", "4", "--image_size", "16", "--seed", "7", "--learning_rate", "0.1"]
    root = ["--pipeline_root", "gs://bucket/runs"]

    vertex.runner.fail_once = ["train"]
    failed = pipelines("submit", "--run_id", "first", *root, "--train_metadata", "gs://bucket/photos", *flags, "--wait")
    assert failed.returncode == 1 and "train:" in failed.stderr
    rerun = pipelines("runs", "rerun", "first", "--run_id", "second", "--wait")
    assert rerun.returncode == 0, rerun.stderr + (vertex.runner.folder / "logs" / "second.log").read_text()[-3000:]
    assert _states(vertex, "second") == {
        "resolve": "SUCCEEDED",
        "build-tfrecords": "SKIPPED",
        "train": "SUCCEEDED",
        "evaluate": "SUCCEEDED",
        "gate": "SUCCEEDED",
        "register": "NOT_TRIGGERED",
    }
    assert "gate.passed" in rerun.stdout and "evaluate.evaluation" in rerun.stdout

    outputs = {line.split()[0]: line.split()[1] for line in rerun.stdout.splitlines() if "gs://bucket/" in line}
    metrics = json.loads(_read(bucket, outputs["evaluate.evaluation"], "metrics.json"))
    assert metrics["num_examples"] > 0
    assert b"<html" in _read(bucket, outputs["evaluate.evaluation"], "report.html")
    assert _read(bucket, outputs["train.model"], "saved_model/saved_model.pb")

    assert pipelines("runs", "rerun", "second", "--run_id", "unchanged", "--wait").returncode == 0
    unchanged = _states(vertex, "unchanged")
    assert {unchanged[task] for task in ("build-tfrecords", "train", "evaluate")} == {"SKIPPED"}

    bucket.blob(f"photos/{images[0].relative_to(image_folder)}").upload_from_filename(str(images[0]))
    assert pipelines("runs", "rerun", "second", "--run_id", "one-more", "--wait").returncode == 0
    assert {state for task, state in _states(vertex, "one-more").items() if task != "register"} == {"SUCCEEDED"}

    assert not vertex.saw_credentials
    # Compiled pipelines, logs and artifacts.
    contents = [path.read_bytes() for path in vertex.runner.folder.rglob("*") if path.is_file()]
    contents += [blob.download_as_bytes() for blob in client.list_blobs("bucket")]
    assert len(contents) > 100
    assert not [content for content in contents if SECRET.encode() in content]


def _states(vertex, run: str) -> dict[str, str]:
    return {task.task_name: task.state.name for task in vertex.jobs[run].job_detail.task_details}


def _read(bucket, folder: str, name: str) -> bytes:
    return bucket.blob(f"{folder.removeprefix('gs://bucket/')}/{name}").download_as_bytes()
