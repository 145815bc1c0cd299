"""Checkpoints on gs:// are fetched first: TensorFlow never sees a gs:// path."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import keras
import pytest
import tensorflow as tf

from tf_image_classification import checkpoints, nets, storage
from tf_image_classification.errors import CheckpointError


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A bucket that holds a folder of checkpoints and a model folder, served by a local emulator."""
    from gcp_storage_emulator.server import create_server

    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    server = create_server("localhost", port, in_memory=True, default_bucket="bucket")
    server.start()
    patch = pytest.MonkeyPatch()
    patch.setenv("STORAGE_EMULATOR_HOST", f"http://localhost:{port}")
    model, folder = small(), tmp_path_factory.mktemp("uploaded")
    with storage.replacing_dir("gs://bucket/exported", "export") as aside:
        os.mkdir(os.path.join(aside, "export"))
        model.save(os.path.join(aside, "export", "model.keras"))
    state = tf.train.Checkpoint(model=model)
    for _ in range(2):
        state.save(str(folder / "ckpt"))
    for name in os.listdir(folder):
        if (folder / name).is_file():
            storage.write_bytes(f"gs://bucket/saved/{name}", Path(folder, name).read_bytes())
    yield "gs://bucket"
    patch.undo()
    server.stop()


def small() -> keras.Model:
    return nets.build("small", image_size=8, outputs={"label": 3})


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("saved", "saved/ckpt-2"),
        ("saved/ckpt-1", "saved/ckpt-1"),
        ("saved/ckpt-1.index", "saved/ckpt-1"),
        ("exported", "exported/export/model.keras"),
        ("exported/export/model.keras", "exported/export/model.keras"),
    ],
)
def test_a_checkpoint_on_gs_is_found_and_loaded(path: str, found: str, bucket: str) -> None:
    report = checkpoints.warm_start(small(), f"{bucket}/{path}", None)
    assert (report.path, len(report.loaded), report.missing) == (f"{bucket}/{found}", 22, [])


def test_a_checkpoint_that_is_not_on_gs_is_an_error_that_names_what_is(bucket: str) -> None:
    with pytest.raises(CheckpointError, match=r"gs://bucket/saved/ckpt-9\. .*Beside it there is gs://bucket/saved/ckpt-1"):
        checkpoints.warm_start(small(), f"{bucket}/saved/ckpt-9", None)
