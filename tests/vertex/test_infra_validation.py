"""Before a model is put in service, its serving container loads it and is asked once, or the reason why not is said."""

from __future__ import annotations

import json
import logging
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import model_folders
from tests.vertex.conftest import IMAGE
from tf_image_classification import model_folder
from tf_image_classification.errors import UserError
from tf_image_classification.model_folder import ModelFolder
from tf_image_classification.vertex import infra_validation
from tf_image_classification.vertex.infra_validation import NOT_ASKED, PASSED, check

GOOD = {"predictions": [{"scores": [0.25, 0.75], "classes": ["cat", "dog"]}]}


@pytest.fixture
def model(tmp_path) -> ModelFolder:
    """A verified model of the classes cat and dog, exported by TensorFlow 2.21."""
    folder = model_folders.write(tmp_path / "model", versions={"tensorflow-cpu": "2.21.0"})
    return model_folder.verify(str(folder), str(tmp_path / "copy"))


@pytest.fixture
def docker(tmp_path, monkeypatch) -> Callable[..., Path]:
    """Replaces `docker` by a program that has the image; returns the file with the words that it was called with."""

    def install(
        out: str = "", err: str = "", code: int = 0, before_run: str = "", inspect: str = "echo sha256:1"
    ) -> Path:
        (tmp_path / "out").write_text(out, newline="")
        (tmp_path / "err").write_text(err)
        program = tmp_path / "bin" / "docker"
        program.parent.mkdir()
        program.write_text(
            f'#!/bin/sh\nprintf "%s\\n" "$@" >> {tmp_path}/words\n'
            f'case "$1" in image) {inspect}; exit $?;; kill) exit 0;; esac\n'
            f"{before_run}\ncat > {tmp_path}/request; cat {tmp_path}/out; cat {tmp_path}/err >&2; exit {code}\n"
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        return tmp_path / "words"

    return install


def test_a_model_that_answers_passes(model, docker, tmp_path):
    words = docker(out=f"a log line\n{json.dumps(GOOD)}\n")
    assert check(model, IMAGE) == PASSED
    (instance,) = json.loads((tmp_path / "request").read_text())["instances"]
    assert instance["image_bytes"]["b64"].startswith("/9j/")
    assert "sha256:1" in words.read_text().splitlines()  # the image that was found, whatever its tag means by now


def test_the_answer_of_tensorflow_serving_is_read(model, docker):
    answer = json.dumps(GOOD, indent=4)
    docker(out=f"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{answer}\n")
    assert check(model, IMAGE) == PASSED


def test_the_container_gets_no_network_no_rights_and_only_the_saved_model(model, docker):
    words = docker(out=json.dumps(GOOD)).parent / "words"
    check(model, IMAGE)
    given = words.read_text().splitlines()
    for option, value in {
        "--network": "none",
        "--user": "65534:65534",
        "--cap-drop": "ALL",
        "--security-opt": "no-new-privileges",
        "--memory": "4g",
        "--mount": f"type=bind,source={model.local}/saved_model,target=/models/model/1,readonly",
    }.items():
        assert given[given.index(option) + 1] == value
    assert "--read-only" in given and given.count("--mount") == 1 and "--volume" not in given
    assert stat.S_IMODE(Path(model.local, "saved_model", "saved_model.pb").stat().st_mode) == 0o644


@pytest.mark.parametrize(
    ("prediction", "what"),
    [
        ({"scores": [0.5, float("nan")], "classes": ["cat", "dog"]}, "NaN"),
        ({"scores": [1.0], "classes": ["cat", "dog"]}, "1.0"),
        ({"scores": [0.5, 10**400], "classes": ["cat", "dog"]}, "1000"),
        ({"scores": [0.5, 0.5], "classes": ["dog", "cat"]}, '"dog", "cat"'),
        ({"logits": [0.5, 0.5]}, "logits"),
        (None, "null"),
    ],
)
def test_a_wrong_answer_is_refused_with_what_was_answered(model, docker, prediction, what):
    docker(out=json.dumps({"predictions": [prediction]}))
    with pytest.raises(UserError, match=rf"cannot be served by {IMAGE}.*{what}.*Expected: finite scores"):
        check(model, IMAGE)


@pytest.mark.parametrize(
    ("out", "err", "code", "what"),
    [
        (
            "",
            "loading\nOp type not registered 'New' in binary",
            1,
            "exit code 1, after: loading | Op type not registered",
        ),
        ("", "", 137, "killed; it may have needed more than 4g of memory"),
        ('HTTP/1.0 400 Bad Request\n\n{"error": "no \x1b[31m image"}', "", 0, r"no \x1b[31m image"),
    ],
)
def test_a_model_that_fails_in_the_container_is_refused_with_its_last_lines(model, docker, out, err, code, what):
    docker(out=out, err=err, code=code)
    with pytest.raises(UserError) as raised:
        check(model, IMAGE)
    assert what in str(raised.value) and "\n" not in str(raised.value)


def test_a_model_that_never_answers_is_refused_and_its_container_killed(model, docker, monkeypatch):
    monkeypatch.setattr(infra_validation, "_SECONDS", 0.3)
    words = docker(before_run="sleep 20")  # a child that keeps the outputs open, also when docker is killed
    with pytest.raises(UserError, match=r"no answer within 0\.3 s"):
        check(model, IMAGE)
    given = words.read_text().splitlines()
    assert given[given.index("kill") + 1] == given[given.index("--name") + 1]


@pytest.mark.parametrize("output", ["1", "2"])
def test_a_container_that_writes_without_end_is_refused_and_killed(model, docker, output):
    """What it writes is kept in memory, so that its last lines can be shown."""
    words = docker(before_run=f"exec yes >&{output}")
    with pytest.raises(UserError, match="more than 67,108,864 bytes of output"):
        check(model, IMAGE)
    assert "kill" in words.read_text().splitlines()


NEWER = (
    "TensorFlow 2.21.0, and the image serves with 2.15: TensorFlow promises that a newer version loads the models of"
)


@pytest.mark.parametrize(
    ("reason", "fake"),
    [
        (f"`docker pull {IMAGE}` was not run", {"inspect": "echo 'Error: No such image: x' >&2; false"}),
        ("Cannot connect to the Docker daemon", {"inspect": "echo Cannot connect to the Docker daemon >&2; false"}),
        ("bind source path does not exist", {"err": "docker: bind source path does not exist", "code": 125}),
        ("neither tensorflow_model_server nor Python with TensorFlow", {"code": 97}),
    ],
)
def test_where_it_cannot_be_asked_the_reason_and_the_versions_are_said(model, docker, caplog, reason, fake):
    docker(**fake)
    assert check(model, IMAGE) == NOT_ASKED
    assert reason in caplog.text and NEWER in caplog.text


def test_without_docker_the_versions_are_compared(model, caplog, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert check(model, IMAGE) == NOT_ASKED
    assert "no docker command" in caplog.text and NEWER in caplog.text


@pytest.mark.parametrize(
    ("image", "version"),
    [
        (IMAGE, (2, 15)),
        ("asia-docker.pkg.dev/vertex-ai/prediction/tf2-gpu.2-9:latest", (2, 9)),
        ("tensorflow/serving:2.19.1-gpu", (2, 19)),
        ("tensorflow/serving:latest", None),
        ("europe-docker.pkg.dev/project/own/server@sha256:0123", None),
    ],
)
def test_the_servers_version_is_read_from_the_images_name(image, version):
    assert infra_validation.serving_version(image) == version


def test_versions_that_are_not_newer_or_not_known_are_said_to_be(model):
    assert "loads the models of this version and of older ones" in infra_validation.compare_versions("2.15.1", IMAGE)
    assert "is not known" in infra_validation.compare_versions("2.21.0", "own/server:1")
    assert "(not recorded)" in infra_validation.compare_versions("", IMAGE)


def test_the_command_passes_or_says_why_not(tmp_path, docker):
    folder = model_folders.write(tmp_path / "model")
    docker(out=json.dumps(GOOD))
    command = [sys.executable, "-m", "tf_image_classification.vertex.infra_validation", "--model", str(folder)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stdout) == (0, "passed\n"), answer.stderr
    shutil.rmtree(tmp_path / "bin")
    docker(inspect="false")
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 1 and "The model was not asked" in answer.stderr


def _image(repository: str) -> str:
    """An image of this machine; skips the test without one."""
    if shutil.which("docker") is None:
        pytest.skip("no docker")
    listed = ["docker", "images", "--format", "{{.Repository}}:{{.Tag}}", repository]
    found = subprocess.run(listed, capture_output=True, text=True, check=False).stdout.split()
    if not found:
        pytest.skip(f"Docker has no image {repository} on this machine")
    return found[0]


@pytest.mark.slow
def test_a_real_model_is_asked_in_a_real_container(tmp_path, caplog):
    """`python -m images build` makes the image, which holds Python with TensorFlow."""
    image = _image("tf-image-classification/evaluate")
    source = Path(__file__).parents[1] / "compatibility" / "v2.0.0" / "model"
    model = model_folder.verify(str(source), str(tmp_path / "copy"), accept_unlisted=True)
    caplog.set_level(logging.INFO)
    assert check(model, image) == PASSED
    assert f"answers in {image} (sha256:" in caplog.text
    Path(model.local, "saved_model", "saved_model.pb").write_bytes(b"no graph")
    with pytest.raises(UserError, match="cannot be served by"):
        check(model, image)


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/models/model/1/owned", "/etc/owned"])
def test_a_model_that_writes_files_cannot_in_its_container(model, path):
    """A SavedModel is code: this one would write into its own folder, or into the system, wherever it is asked."""
    image = _image("tf-image-classification/evaluate")
    import tensorflow as tf

    class Writing(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
        def serve(self, image_bytes):
            with tf.control_dependencies([tf.io.write_file(path, "owned")]):
                return {"scores": tf.constant([[0.5, 0.5]]), "classes": tf.constant([["cat", "dog"]])}

    module = Writing()
    shutil.rmtree(Path(model.local, "saved_model"))
    tf.saved_model.save(module, f"{model.local}/saved_model", signatures={"serving_default": module.serve})
    with pytest.raises(UserError, match=rf"cannot be served by .*{path}"):
        check(model, image)
    assert not list(Path(model.local).rglob("owned"))


# It waits as TensorFlow Serving does until the model is loaded, and answers in its form.
_SERVER = """#!/usr/local/bin/python3
import http.server, json, pathlib, sys, time
(base,) = [word.partition("=")[2] for word in sys.argv if word.startswith("--model_base_path=")]
assert (pathlib.Path(base) / "1" / "saved_model.pb").read_bytes() == b"graph"
time.sleep(1)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        assert self.path == "/v1/models/model:predict"
        (instance,) = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["instances"]
        assert instance["image_bytes"]["b64"]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(ANSWER, indent=4).encode())
http.server.HTTPServer(("", 8501), Handler).serve_forever()
"""


@pytest.mark.slow
def test_a_server_in_a_container_is_asked_over_http_without_a_network(tmp_path, model):
    base = _image("python:3.11-slim")
    server = tmp_path / "tensorflow_model_server"
    server.write_text(_SERVER.replace("ANSWER", repr(GOOD)))
    server.chmod(0o755)
    name = image = f"tfic-test-server-{os.getpid()}"
    subprocess.run(["docker", "create", "--name", name, base], capture_output=True, check=True)
    subprocess.run(["docker", "cp", str(server), f"{name}:/usr/local/bin/"], capture_output=True, check=True)
    subprocess.run(["docker", "commit", name, image], capture_output=True, check=True)
    subprocess.run(["docker", "rm", name], capture_output=True, check=True)
    try:
        assert check(model, image) == PASSED
        Path(model.local, "saved_model", "saved_model.pb").write_bytes(b"no graph")
        with pytest.raises(UserError, match="AssertionError"):
            check(model, image)
    finally:
        subprocess.run(["docker", "image", "rm", image], capture_output=True, check=False)
