"""--checkpoint_path imagenet: where the published weights come from, where they are kept, and what can go wrong."""

from __future__ import annotations

import errno
import gc
import hashlib
import http.server
import inspect
import json
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests.nets import published
from tests.standin import bucket as standin
from tf_image_classification import built_in_estimator, checkpoints, imagenet_weights, nets, train_estimator
from tf_image_classification.checkpoints.published import open_file
from tf_image_classification.errors import CheckpointError, FlagError
from tf_image_classification.imagenet_weights import FILES, PublishedFile

NAME = "MobileNetV3Small"
QUICK = ("MobileNet", "MobileNetV3Small", "EfficientNetB0", "ConvNeXtTiny", "ResNet50V2", "NASNetMobile", "VGG16")


class AskedForError(Exception):
    """Ends a build at the call of get_file."""


# Keras builds a network before it asks for its file: larger ones take gigabytes of memory each.
BUILDABLE = [name for name in FILES if name not in QUICK and (nets.NETS[name].num_params or 0) < 30_000_000]


@pytest.fixture(autouse=True)
def forget_models():
    """Frees the memory of a test's models, which Keras would keep."""
    yield
    keras.utils.clear_session()
    gc.collect()


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in BUILDABLE)])
def test_the_files_are_those_that_keras_asks_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    signature = inspect.signature(keras.utils.get_file)

    def get_file(*args: Any, **kwargs: Any) -> str:
        asked.update(signature.bind(*args, **kwargs).arguments)
        raise AskedForError

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", get_file)
    with pytest.raises(AskedForError):
        getattr(keras.applications, name)(weights="imagenet")
    assert asked.pop("cache_subdir") == "models"
    assert FILES[name] == PublishedFile(asked["fname"], asked["origin"], asked.get("file_hash", ""))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in the layout of the published weights of NAME."""
    source = published.application(NAME, weights=None, input_shape=(32, 32, 3))
    return Path(published.save(published.randomize(source), tmp_path_factory.mktemp("published") / "weights.h5"))


class Server:
    """Serves one file over HTTP, and counts how often."""

    def __init__(self, content: bytes) -> None:
        self.downloads, self.content = 0, content
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.downloads += 1
                self.send_response(200)
                self.send_header("Content-Length", str(len(server.content)))
                self.end_headers()
                self.wfile.write(server.content)

            def log_message(self, *arguments: object) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/weights.h5"


@pytest.fixture
def server(weights: Path) -> Iterator[Server]:
    server = Server(weights.read_bytes())
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def file(server: Server, weights: Path, monkeypatch: pytest.MonkeyPatch) -> PublishedFile:
    """The published file of NAME, as if the server here were Keras's."""
    content_hash = hashlib.sha256(weights.read_bytes()).hexdigest()
    file = PublishedFile("weights.h5", server.url, content_hash)
    monkeypatch.setitem(imagenet_weights.FILES, NAME, file)
    return file


def open_and_read(file: PublishedFile, folder: str | None) -> bytes:
    with open_file(file, folder) as path:
        return Path(path).read_bytes()


def test_the_weights_are_downloaded_once_and_kept_in_the_folder(
    file: PublishedFile, server: Server, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert open_and_read(file, str(tmp_path / "new" / "folder")) == weights.read_bytes()
    assert server.downloads == 1
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["weights.h5"]
    assert capsys.readouterr().out == ""  # standard output is for the result of a command


def test_without_a_folder_they_are_kept_where_keras_keeps_them(
    file: PublishedFile, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for _ in range(2):
        open_and_read(file, None)
    assert (server.downloads, (tmp_path / ".keras" / "models" / "weights.h5").exists()) == (1, True)


def test_a_file_that_is_there_is_used_without_internet_and_from_a_read_only_folder(
    file: PublishedFile, server: Server, weights: Path, tmp_path: Path
) -> None:
    shutil.copy(weights, tmp_path / "weights.h5")
    tmp_path.chmod(0o500)
    try:
        assert open_and_read(file, str(tmp_path)) == weights.read_bytes()
    finally:
        tmp_path.chmod(0o700)
    assert server.downloads == 0


def test_the_folder_may_be_on_gs(file: PublishedFile, server: Server, weights: Path, monkeypatch) -> None:
    with standin.Buckets("bucket") as service:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", service.url)
        for _ in range(2):
            assert open_and_read(file, "gs://bucket/kept") == weights.read_bytes()
        assert server.downloads == 1
        other = file._replace(file_hash="0" * 64)
        with pytest.raises(CheckpointError, match=r"gs://bucket/kept/weights\.h5 is not the published file"):
            open_and_read(other, "gs://bucket/kept")


def test_a_file_of_other_content_is_refused_and_stays(file: PublishedFile, server: Server, tmp_path: Path) -> None:
    (tmp_path / "weights.h5").write_bytes(b"my own")
    with pytest.raises(
        CheckpointError,
        match=r"/weights\.h5 is not the published file\. Received: sha256 \w{64}\. "
        rf"Expected: sha256 {file.file_hash}\. Remove it",
    ):
        open_and_read(file, str(tmp_path))
    assert ((tmp_path / "weights.h5").read_bytes(), server.downloads) == (b"my own", 0)


def test_a_download_of_other_content_is_refused_and_not_kept(
    file: PublishedFile, server: Server, tmp_path: Path
) -> None:
    server.content = b"<html>Please log in to the network</html>"
    with pytest.raises(CheckpointError, match=r"The download of http://\S+ has other content than Keras states"):
        open_and_read(file, str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_without_internet_the_error_names_the_address_and_the_way_by_hand(file: PublishedFile, tmp_path: Path) -> None:
    unreachable = file._replace(url="http://127.0.0.1:9/weights.h5")
    with pytest.raises(
        CheckpointError,
        match=r"cannot be downloaded from http://127\.0\.0\.1:9/weights\.h5\..*put the file as weights\.h5 into a "
        r"folder by hand.*--weights_dir",
    ):
        open_and_read(unreachable, str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_paragraph_and_leaves_nothing(
    file: PublishedFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(url: str, path: str, report: object) -> None:
        Path(path).write_bytes(b"part")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", full)
    with pytest.raises(
        CheckpointError, match=r"weights\.h5 cannot be written to .*Received: No space left on device\. Free some space"
    ):
        open_and_read(file, str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_cannot_be_written_to_is_one_paragraph(
    file: PublishedFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").write_text("a file: no folder can be made in it, not even by root")
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(
        CheckpointError, match=r"/home/\.keras/models for published weights cannot be written to.*as --weights_dir"
    ):
        open_and_read(file, None)


@pytest.mark.slow
def test_a_training_starts_from_them(file: PublishedFile, built_data, training_flags, tmp_path: Path) -> None:
    flags = training_flags(
        model_name=NAME, image_size=32, batch_size=2, train_steps=1, eval_freq=1,
        checkpoint_path="imagenet", weights_dir=str(tmp_path / "weights"),
    )  # fmt: skip
    result = train_estimator.train_and_evaluate(built_in_estimator.BuiltInEstimator(), built_data, flags)
    warm_start = json.loads(Path(result.export_dir, "model.json").read_text())["warm_start"]
    assert (warm_start["checkpoint"], warm_start["version"]) == ("imagenet", file.version)


@pytest.mark.parametrize(("classes", "left_out"), [(3, ["logits/bias", "logits/kernel"]), (1000, [])])
def test_all_of_them_are_loaded_but_a_head_of_another_shape(
    classes: int, left_out: list[str], file: PublishedFile, weights: Path, training_flags, tmp_path: Path
) -> None:
    model = nets.build(NAME, image_size=32, outputs={"label": classes})
    flags = training_flags(checkpoint_path="imagenet", weights_dir=str(tmp_path))
    warm_start = checkpoints.load_pretrained(model, flags, model_name=NAME)
    assert (warm_start["version"], warm_start["not_loaded"]) == (file.version, left_out)
    with checkpoints.read(str(weights)) as started:
        np.testing.assert_array_equal(model.get_layer("conv").kernel, started["conv/0/kernel"])


@pytest.mark.parametrize(
    ("model_name", "received"), [("inception_v3", "--model_name inception_v3"), (None, "an --estimator")]
)
def test_networks_without_published_weights_are_refused(model_name: str | None, received: str, training_flags) -> None:
    model = nets.build("small", image_size=16, outputs={"label": 2})
    with pytest.raises(FlagError, match=rf"Received: {received}\..*docs/checkpoints\.md"):
        checkpoints.load_pretrained(model, training_flags(checkpoint_path="imagenet"), model_name=model_name)


def test_the_command_refuses_them_before_any_image_is_read(image_folder: Path, tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit) as exit:
        train_estimator.main(
            ["--train_metadata", str(image_folder), "--model_dir", str(tmp_path), "--checkpoint_path", "imagenet"]
        )
    assert exit.value.code == 2
    assert "Received: --model_name small." in re.sub(r"\s+", " ", capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []
