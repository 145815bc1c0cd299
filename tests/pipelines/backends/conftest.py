"""Kubeflow on this machine, and the commands that talk to it."""

from __future__ import annotations

import threading

import pytest


@pytest.fixture
def kubeflow(tmp_path, storage_url):
    from tests.standin.kubeflow import Kubeflow

    service = Kubeflow(tmp_path / "kubeflow", storage_url)
    service.start()
    yield service
    service.stop()


@pytest.fixture
def call(kubeflow, command):
    """Calls `python -m pipelines WORDS` with the options of the service on this machine."""
    return lambda *words: command(*words, "--backend", "kubeflow", "--host", kubeflow.url)


@pytest.fixture
def submit(call, tiny_template):
    root = ["--pipeline_root", "gs://bucket/root", "--folder", "gs://bucket/words"]
    return lambda *words: call("submit", "--template", str(tiny_template), *root, *words)


@pytest.fixture
def create(call, tiny_template):
    root = ["--pipeline_root", "gs://bucket/root", "--folder", "gs://bucket/words"]
    return lambda *words: call(
        "schedule", "create", "weekly", "--cron", "0 3 * * 1", "--template", str(tiny_template), *root, *words
    )


@pytest.fixture
def instant(monkeypatch, kubeflow):
    """Runs succeed at once, without running anything."""

    def start(*arguments, **_):
        arguments[-1](True)  # finish
        thread = threading.Thread()
        thread.start()
        return thread

    monkeypatch.setattr(kubeflow.runner, "start", start)
