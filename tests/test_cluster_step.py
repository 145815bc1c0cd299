"""The step that launches a cluster: the job's name, what the tasks are told, and what it hands on."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests import model_folders
from tf_image_classification import cluster_exchange, cluster_step, cluster_task, storage
from tf_image_classification import flags as flag_table
from tf_image_classification.cluster_exchange import Training
from tf_image_classification.errors import FlagError, ServiceError
from tf_image_classification.launch.job import ClusterShape, Job
from tf_image_classification.training_run import TrainOutputs

_CLUSTER = ClusterShape(replicas=2, image="trainer:1").to_json()
_RUN = {"project": "p", "location": "l", "service_account": "a@p", "network": "", "encryption_key": "{{$.other}}"}
_UUID = "0a1b2c3d-0a1b-0a1b-0a1b-0a1b2c3d4e5f"


class Platform:
    """A launcher that runs nothing: it writes what a chief would, if it is told to."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.succeeds = True

    def run(self, job: Job) -> None:
        self.jobs.append(job)
        if self.succeeds:
            with storage.temporary_dir() as folder:
                model_folders.write(Path(folder) / cluster_exchange.MODEL, digest="0" * 64)
                os.makedirs(os.path.join(folder, cluster_exchange.LOGS, "eval"))
                for page in (cluster_exchange.CURVES, cluster_exchange.SAMPLES):
                    storage.write_text(os.path.join(folder, page), page)
                Training.from_json(job.command[-1]).publish(folder, {"accuracy": 0.5})


@pytest.fixture
def platform(monkeypatch) -> Platform:
    platform = Platform()
    monkeypatch.setattr(cluster_step, "choose", lambda *_: platform)
    return platform


def train(tmp_path, *, run: str = "run-1", task_id: str = "", **flags: object) -> dict[str, float]:
    values = {flag.name: flag.default for flag in flag_table.of_step("train")} | {"batch_size": 8, **flags}
    task = f"gs://bucket/root/image-classification/{run}/train" + (f"/{task_id}" if task_id else "")
    outputs = TrainOutputs(*(str(tmp_path / name) for name in ("model", "logs", "curves.html", "samples.html")))
    return cluster_step.train(
        "gs://bucket/data",
        flag_table.validate(values, values),
        outputs,
        cluster=_CLUSTER,
        run=_RUN,
        pipeline_root=str(tmp_path / "root"),
        output_uri=f"{task}/model",
        checkpoint_version="1",
        estimator_version="",
    )


def test_the_outputs_of_the_chief_become_those_of_the_step(platform, tmp_path):
    assert train(tmp_path) == {"accuracy": 0.5}
    (job,) = platform.jobs
    assert job.folder == str(tmp_path / "root" / "checkpoints" / "clusters" / job.name)
    assert (job.shape.service_account, job.shape.encryption_key, job.shape.replicas) == ("a@p", "", 2)
    assert (tmp_path / "model" / "model.json").exists() and (tmp_path / "logs" / "eval").is_dir()
    assert (tmp_path / "curves.html").read_text() == "curves.html"
    assert not os.path.exists(os.path.join(job.folder, "outputs")), "a model is kept once"
    training = Training.from_json(job.command[-1])
    flags = flag_table.for_step("train", training.flags)  # as a task reads them
    assert (flags.batch_size, flags.model_dir) == (8, str(tmp_path / "root" / "checkpoints"))


def test_an_attempt_has_the_name_of_the_earlier_one_and_another_run_or_training_has_not(platform, tmp_path):
    train(tmp_path)
    train(tmp_path)
    train(tmp_path, task_id=_UUID)  # of Kubeflow, for which a repeated task is another one
    train(tmp_path, run="run-2")
    train(tmp_path, train_steps=7)
    names = [job.name for job in platform.jobs]
    assert names[0] == names[1] == names[2] and len(set(names)) == 3


def test_a_cluster_without_a_model_and_batches_that_cannot_be_divided_are_errors(platform, tmp_path):
    with pytest.raises(FlagError, match="7 examples for 2 devices in 2 replicas"):
        train(tmp_path, batch_size=7)
    assert not platform.jobs
    platform.succeeds = False
    with pytest.raises(ServiceError, match=r"has left no model.*result\.json"):
        train(tmp_path)


@pytest.mark.parametrize("is_remote", [True, False])
def test_a_step_that_is_killed_while_it_removes_the_outputs_does_not_leave_some_for_all(
    platform, tmp_path, monkeypatch, is_remote
):
    def killed_at_the_second(path: str) -> None:
        if is_remote and path.endswith("/result.json"):
            os.remove(path)
        else:
            raise SystemExit

    monkeypatch.setattr(storage, "is_remote", lambda path: is_remote and path.endswith("/outputs"))
    monkeypatch.setattr(storage, "delete", killed_at_the_second)
    local = SimpleNamespace(copytree=shutil.copytree, rmtree=killed_at_the_second)
    monkeypatch.setattr(cluster_exchange, "shutil", local)
    with pytest.raises(SystemExit):
        train(tmp_path)
    platform.succeeds = False
    with pytest.raises(ServiceError, match="has left no model"):
        train(tmp_path)


@pytest.mark.slow
def test_the_chief_copies_new_summaries_to_the_tensorboard_of_its_job(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(cluster_task, "_INTERVAL_SECS", 0.05)
    flags = flag_table.validate({"model_dir": str(tmp_path)}, ["model_dir"])
    shown = tmp_path / "shown" / "events.out.tfevents.1"
    (tmp_path / "key" / "eval").mkdir(parents=True)
    (shown.parent / "eval").mkdir(parents=True)
    with cluster_task.copying_summaries(flags, str(shown.parent)):
        flags.model_dir = str(tmp_path / "key")
        (tmp_path / "key" / "model.ckpt-1.index").write_text("no summary")
        (tmp_path / "key" / "eval" / "events.out.tfevents.2").write_text("evaluated")
        (tmp_path / "key" / shown.name).write_text("step 1")
        while not shown.exists():
            assert not caplog.records
        (tmp_path / "key" / shown.name).write_text("step 1, step 2")
    assert shown.read_text() == "step 1, step 2"
    assert sorted(file.name for file in shown.parent.rglob("*[a-z].[0-9]")) == [shown.name, "events.out.tfevents.2"]
    assert not caplog.records
