"""The project's own pipeline on Vertex AI: images in a bucket, the model and the report in a bucket."""

from __future__ import annotations

import json

import pytest

SECRET = "hidden-refresh-token"  # noqa: S105 - nobody's


@pytest.fixture
def account(tmp_path, monkeypatch):
    """Credentials of whoever gives the commands; on plain http they are not used."""
    file = tmp_path / "account.json"
    file.write_text(
        json.dumps({"type": "authorized_user", "client_id": "c", "client_secret": SECRET, "refresh_token": SECRET})
    )
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))


@pytest.mark.slow
def test_the_pipeline_runs_on_vertex_and_trains_anew_only_when_the_data_is_new(
    account, pipelines, vertex, storage_url, image_folder
):
    from tests.standin import bucket as standin

    client = standin.client(storage_url)
    bucket = client.bucket("bucket")
    pictures = sorted(image_folder.rglob("*.*"))
    for picture in pictures[1:]:
        bucket.blob(f"photos/{picture.relative_to(image_folder)}").upload_from_filename(str(picture))
    flags = ["--batch_size", "8", "--train_steps", "4", "--image_size", "16", "--seed", "7", "--learning_rate", "0.1"]
    root = ["--pipeline_root", "gs://bucket/runs"]

    vertex.runner.fail_once = ["train"]
    failed = pipelines("submit", "--run_id", "first", *root, "--train_metadata", "gs://bucket/photos", *flags, "--wait")
    assert failed.returncode == 1 and "train:" in failed.stderr
    mended = pipelines("runs", "rerun", "first", "--run_id", "second", "--wait")
    assert mended.returncode == 0, mended.stderr + (vertex.runner.folder / "logs" / "second.log").read_text()[-3000:]
    assert _states(vertex, "second") == {
        "resolve": "SUCCEEDED",
        "build-tfrecords": "SKIPPED",
        "train": "SUCCEEDED",
        "evaluate": "SUCCEEDED",
        "gate": "SUCCEEDED",
        "register": "NOT_TRIGGERED",
    }
    assert "gate.passed" in mended.stdout and "evaluate.evaluation" in mended.stdout

    made = {line.split()[0]: line.split()[1] for line in mended.stdout.splitlines() if "gs://bucket/" in line}
    metrics = json.loads(_read(bucket, made["evaluate.evaluation"], "metrics.json"))
    assert metrics["num_examples"] > 0
    assert b"<html" in _read(bucket, made["evaluate.evaluation"], "report.html")
    assert _read(bucket, made["train.model"], "saved_model/saved_model.pb")

    assert pipelines("runs", "rerun", "second", "--run_id", "unchanged", "--wait").returncode == 0
    assert {
        state for task, state in _states(vertex, "unchanged").items() if task not in ("resolve", "gate", "register")
    } == {"SKIPPED"}

    bucket.blob(f"photos/{pictures[0].relative_to(image_folder)}").upload_from_filename(str(pictures[0]))
    assert pipelines("runs", "rerun", "second", "--run_id", "one-more", "--wait").returncode == 0
    assert {state for task, state in _states(vertex, "one-more").items() if task != "register"} == {"SUCCEEDED"}

    assert not vertex.saw_credentials
    made = [
        path.read_bytes() for path in vertex.runner.folder.rglob("*") if path.is_file()
    ]  # compiled pipelines, logs, artifacts
    made += [blob.download_as_bytes() for blob in client.list_blobs("bucket")]
    assert len(made) > 100
    assert not [content for content in made if SECRET.encode() in content]


def _states(vertex, run: str) -> dict[str, str]:
    return {task.task_name: task.state.name for task in vertex.jobs[run].job_detail.task_details}


def _read(bucket, folder: str, name: str) -> bytes:
    return bucket.blob(f"{folder.removeprefix('gs://bucket/')}/{name}").download_as_bytes()
