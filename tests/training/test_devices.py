from __future__ import annotations

import os

import pytest
import tensorflow as tf

from tf_image_classification.training import devices


@pytest.fixture
def growth(monkeypatch) -> list[str]:
    """The GPUs that got memory growth; TF_GPU_THREAD_MODE is not set."""
    monkeypatch.setenv("TF_GPU_THREAD_MODE", "")
    monkeypatch.delenv("TF_GPU_THREAD_MODE")
    grown: list[str] = []
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", lambda gpu, enable: grown.append(gpu))
    return grown


def test_gpus_get_threads_of_their_own_and_memory_as_they_need_it(growth, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [f"{kind}:0", f"{kind}:1"])
    devices.prepare()
    assert growth == ["GPU:0", "GPU:1"]
    assert os.environ["TF_GPU_THREAD_MODE"] == "gpu_private"
    monkeypatch.setenv("TF_GPU_THREAD_MODE", "global")
    devices.prepare()
    assert os.environ["TF_GPU_THREAD_MODE"] == "global"


def test_a_machine_without_gpus_is_left_alone(growth, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    devices.prepare()
    assert growth == []
    assert "TF_GPU_THREAD_MODE" not in os.environ
