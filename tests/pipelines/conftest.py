"""A service on this machine for the commands to talk to, and pipelines small enough to be run often."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.standin.registry import Registry

_TINY = """
from kfp import compiler, dsl


IMAGE = __import__("sys").argv[2]


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def scan(folder: str) -> str:
    from tf_image_classification import storage

    return "".join(storage.read_text(file.path) for file in storage.walk(folder))


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def build(found: str, data: dsl.Output[dsl.Dataset]):
    import os

    os.makedirs(data.path)
    with open(os.path.join(data.path, "all.txt"), "w") as file:
        file.write(found)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train(data: dsl.Input[dsl.Dataset], steps: int, rate: float, verbose: bool) -> str:
    import os

    assert isinstance(steps, int)
    with open(os.path.join(data.path, "all.txt")) as file:
        return file.read() * steps


@dsl.pipeline(name="tiny")
def tiny(folder: str, steps: int = 2, rate: float = 0.5, verbose: bool = False) -> str:
    scanned = scan(folder=folder).set_caching_options(False)
    built = build(found=scanned.output)
    return train(data=built.outputs["data"], steps=steps, rate=rate, verbose=verbose).output


compiler.Compiler().compile(tiny, __import__("sys").argv[1])
"""


@pytest.fixture(scope="session")
def registry() -> Iterator[Registry]:
    """A registry on this machine that has every image."""
    with Registry(has_all=True) as service:
        yield service


@pytest.fixture(scope="session")
def tiny_template(tmp_path_factory, registry) -> Path:
    """A pipeline of three steps, scan -> build -> train, of which the first is never cached; each takes a moment."""
    folder = tmp_path_factory.mktemp("tiny")
    source, template = folder / "tiny.py", folder / "tiny.yaml"
    source.write_text(_TINY)
    subprocess.run(
        [sys.executable, str(source), str(template), f"{registry.host}/python:3.11"], check=True, capture_output=True
    )
    return template


@pytest.fixture(scope="module")
def storage_url() -> Iterator[str]:
    """A storage service with the bucket `bucket`, in which gs://bucket/words/one.txt holds "a"."""
    from tests.standin import bucket

    with bucket.serving("bucket") as url:
        client = bucket.client(url)
        client.bucket("bucket").blob("words/one.txt").upload_from_string("a")
        yield url


@pytest.fixture
def vertex(tmp_path, storage_url):
    """Vertex AI on this machine, without any run."""
    from tests.standin.vertex import Vertex

    service = Vertex(tmp_path / "vertex", storage_url)
    service.start()
    yield service
    service.stop()


Command = Callable[..., subprocess.CompletedProcess]


@pytest.fixture
def command(storage_url, monkeypatch) -> Iterator[Command]:
    """Calls `python -m pipelines WORDS` in this process."""
    from pipelines.__main__ import run_command
    from tf_image_classification import command_line

    monkeypatch.setenv("STORAGE_EMULATOR_HOST", storage_url)

    def call(*words: str) -> subprocess.CompletedProcess:
        stdout, stderr = io.StringIO(), io.StringIO()
        with (
            contextlib.redirect_stdout(stdout),
            contextlib.redirect_stderr(stderr),
            pytest.raises(SystemExit) as ended,
        ):
            command_line.main(run_command, words)
        return subprocess.CompletedProcess(words, ended.value.code, stdout.getvalue(), stderr.getvalue())

    yield call


@pytest.fixture
def pipelines(vertex, command, registry) -> Command:
    """Calls `python -m pipelines WORDS` with the options of Vertex AI on this machine; what compiles the pipeline names
    images of a registry on this machine."""
    project = ["--project", "my-project", "--location", "europe-west4", "--api_endpoint", vertex.url]

    def call(*words: str) -> subprocess.CompletedProcess:
        compiles = words[0] == "submit" or words[:2] == ("schedule", "create")
        named = {"--template", "--image_registry"}.intersection(words)
        images = ["--image_registry", f"{registry.host}/team"] if compiles and not named else []
        return command(*words, *project, *images)

    return call


@pytest.fixture
def submit_tiny(pipelines, tiny_template) -> Command:
    """Submits the tiny pipeline; further words are added."""

    def submit(*words: str) -> subprocess.CompletedProcess:
        root = [] if "--pipeline_root" in words else ["--pipeline_root", "gs://bucket/root"]
        return pipelines("submit", "--template", str(tiny_template), *root, "--folder", "gs://bucket/words", *words)

    return submit
