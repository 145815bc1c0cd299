"""Builds on Apache Beam whose runner and workers are other processes: `make test-beam`.

FlinkRunner speaks to Beam's own job service, which has the interface of Flink's, Spark's and Prism's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.build_tfrecords.beam_inputs import (
    SHARD_BYTES,
    good_and_bad_images,
    list_of_two_label_columns,
    with_photographs,
)
from tests.build_tfrecords.support import command, digests
from tests.conftest import REPOSITORY, SHARED_DATA
from tests.standin.bucket_rules import Rules
from tf_image_classification import build_tfrecords, storage
from tf_image_classification.build_tfrecords.beam_runner import BeamRunner
from tf_image_classification.data.sources import ReadOptions
from tf_image_classification.errors import UserError
from tf_image_classification.launch.processes import free_ports

pytest.importorskip("apache_beam", reason="Apache Beam is not installed: make test-beam installs it")

# Threads of Beam end with an error where a process is killed.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")

SECONDS = 180  # of a test
# Runs at the start of each Python process that has it in its path. In a worker, the first reading of some images has
# something happen, told to the test by a file: dog/0007.png kills the process, dog/0008.png takes some seconds.
IN_WORKERS = """
import os, signal, sys, time

def on_event(event, arguments):
    if event != "open" or not isinstance(arguments[0], str):
        return
    name = os.path.basename(arguments[0])
    if name not in {names} or os.path.basename(os.path.dirname(arguments[0])) != "dog":
        return
    try:
        os.close(os.open(os.path.join(os.path.dirname(__file__), name), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    if name == "0007.png":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(5)

if any(word in " ".join(sys.orig_argv) for word in ("SdkHarness", "sdk_worker_main")):
    sys.addaudithook(on_event)
"""


@pytest.fixture(autouse=True)
def time_limit() -> Iterator[None]:
    """A pipeline that hangs is a failed test."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def serving(module: str, log: Path, is_up: Callable[[], bool], *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A service of Beam in a process of its own, with those that it starts; what it prints is in `log`."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", f"apache_beam.runners.{module}", *words],
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
        )
    try:
        while not is_up():
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def job_service(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The process of a job service, and its address."""
    port = folder / "port"
    words = ("--port_file", str(port), "--staging_dir", str(folder / "staged"))
    with serving("portability.local_job_service_main", folder / "job_service.log", port.exists, *words) as process:
        yield process, f"localhost:{port.read_text()}"


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("localhost", port)) == 0


@contextlib.contextmanager
def worker_pool(folder: Path) -> Iterator[tuple[str, ...]]:
    """Options for a pool that starts a process for each worker, as beside Flink's task managers."""
    [port] = free_ports(1)
    log = folder / "worker_pool.log"
    with serving("worker.worker_pool_main", log, lambda: listens(port), "--service_port", str(port)):
        yield "--environment_type", "EXTERNAL", "--environment_config", f"localhost:{port}"


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory) -> Iterator[tuple[str, str]]:
    with job_service(tmp_path_factory.mktemp("service")) as (_, address):
        yield "--job_endpoint", address


@pytest.fixture
def in_workers(tmp_path_factory, monkeypatch) -> Callable[..., Path]:
    """Has something happen in the processes of workers; returns the folder of the files that tell of it."""

    def make(*names: str) -> Path:
        site = tmp_path_factory.mktemp("site")
        (site / "sitecustomize.py").write_text(IN_WORKERS.replace("{names}", repr(names)))
        monkeypatch.setenv("PYTHONPATH", f"{site}{os.pathsep}{REPOSITORY}")
        return site

    return make


def check_same(metadata: str, folder: Path, endpoint: tuple[str, str], **options: object) -> None:
    runner = BeamRunner("FlinkRunner", (*endpoint, "--environment_type", "LOOPBACK"))
    build_tfrecords.build(metadata, str(folder / "local"), **options)
    build_tfrecords.build(metadata, str(folder / "beam"), runner=runner, **options)
    assert digests(folder / "beam") == digests(folder / "local")
    assert sorted(os.listdir(folder)) == ["beam", "local"]


@with_photographs
def test_a_job_of_photographs(endpoint, tmp_path):
    check_same(str(SHARED_DATA / "pets"), tmp_path, endpoint, shard_bytes=2**20)


def test_a_job_of_good_and_bad_images(endpoint, tmp_path):
    root = good_and_bad_images(tmp_path / "photos")
    (tmp_path / "out").mkdir()
    check_same(str(root), tmp_path / "out", endpoint, shard_bytes=SHARD_BYTES)


def test_a_job_of_a_list_with_several_label_columns(endpoint, photos, tmp_path):
    metadata = list_of_two_label_columns(tmp_path / "list.csv")
    (tmp_path / "out").mkdir()
    options = ReadOptions(image_root=photos)
    check_same(metadata, tmp_path / "out", endpoint, shard_bytes=SHARD_BYTES, options=options)


def test_the_command_builds_on_a_job_service(endpoint, photos, tmp_path):
    words = ("--train_metadata", photos, "--output_dir")
    command(*words, tmp_path / "local")
    job = ("--runner", "FlinkRunner", *endpoint, "--environment_type", "LOOPBACK")
    built = command(*words, tmp_path / "beam", *job, timeout=SECONDS)
    assert built.returncode == 0, built.stderr
    assert digests(tmp_path / "beam") == digests(tmp_path / "local")


def test_a_job_may_take_longer_than_its_service_may_take_to_answer(endpoint, photos, expected, in_workers, tmp_path):
    site = in_workers("0008.png")
    with worker_pool(site) as pool:
        runner = BeamRunner("FlinkRunner", (*endpoint, *pool, "--job_server_timeout", "4"))
        build_tfrecords.build(photos, str(tmp_path / "data"), runner=runner, shard_bytes=SHARD_BYTES)
    assert (site / "0008.png").exists()
    assert digests(tmp_path / "data") == expected


def test_a_bucket_whose_requests_somebody_else_pays_for(endpoint, photos, expected, tmp_path, monkeypatch):
    standin = pytest.importorskip("tests.standin.bucket", reason="gcp-storage-emulator is not installed")
    with standin.Buckets("photos") as service:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", service.url)
        for path in Path(photos).rglob("*.png"):
            storage.write_bytes(f"gs://photos/photos/{path.relative_to(photos)}", path.read_bytes())
        service.rules = Rules(payers=("payer",))
        with worker_pool(tmp_path) as pool:  # before the payer is known
            monkeypatch.setenv(storage.BILLING_VARIABLE, "payer")
            runner = BeamRunner("FlinkRunner", (*endpoint, *pool))
            build_tfrecords.build("gs://photos/photos", "gs://photos/data", runner=runner, shard_bytes=SHARD_BYTES)
        storage.fetch_dir("gs://photos/data", str(tmp_path / "data"))
        assert storage.names_in("gs://photos") == ["data", "photos"]
    found = digests(tmp_path / "data")
    same = [name for name in expected if name not in ("manifest.json", "statistics.html")]  # which name the source
    assert len(same) > 4 and [found[name] for name in same] == [expected[name] for name in same]


def check_a_worker_that_dies(runner: BeamRunner, photos: str, expected: dict[str, str], site: Path, out: Path) -> None:
    """A data set stays as it is, and the error says what happened; the next build is as one without the death."""
    target = str(out / "data")
    build_tfrecords.build(photos, target)
    older = digests(out / "data")
    with pytest.raises(UserError, match=r"pipeline failed\. Received: .*Runner: the process of a worker ended"):
        build_tfrecords.build(photos, target, runner=runner, shard_bytes=SHARD_BYTES)
    assert (site / "0007.png").exists()
    assert (digests(out / "data"), os.listdir(out)) == (older, ["data"])
    build_tfrecords.build(photos, target, runner=runner, shard_bytes=SHARD_BYTES)
    assert (digests(out / "data"), os.listdir(out)) == (expected, ["data"])


def test_a_worker_of_a_pool_that_dies(endpoint, photos, expected, in_workers, tmp_path):
    site = in_workers("0007.png")
    with worker_pool(site) as pool:
        runner = BeamRunner("FlinkRunner", (*endpoint, *pool))
        check_a_worker_that_dies(runner, photos, expected, site, tmp_path)


def test_one_of_several_processes_that_dies(photos, expected, in_workers, tmp_path):
    site = in_workers("0007.png")
    options = ("--direct_num_workers", "2", "--direct_running_mode", "multi_processing")
    check_a_worker_that_dies(BeamRunner("DirectRunner", options), photos, expected, site, tmp_path)


def test_a_job_service_that_dies(photos, in_workers, tmp_path):
    site = in_workers("0008.png")
    out = tmp_path / "out"
    out.mkdir()

    def kill(process: subprocess.Popen[bytes]) -> None:
        while not (site / "0008.png").exists():  # the job runs
            time.sleep(0.05)
        process.kill()

    with job_service(tmp_path) as (process, address), worker_pool(site) as pool:
        runner = BeamRunner("FlinkRunner", ("--job_endpoint", address, *pool))
        threading.Thread(target=kill, args=(process,), daemon=True).start()
        with pytest.raises(UserError, match=r"pipeline failed\. Received: FlinkRunner: UNAVAILABLE: "):
            build_tfrecords.build(photos, str(out / "data"), runner=runner)
    assert os.listdir(out) == []


def test_an_address_where_no_job_service_answers_is_named_before_images_are_listed(photos, tmp_path):
    [port] = free_ports(1)
    job = ("--runner", "FlinkRunner", "--job_endpoint", f"localhost:{port}", "--job_server_timeout", 1)
    refused = command("--train_metadata", photos, "--output_dir", tmp_path / "data", *job, timeout=SECONDS)
    assert (refused.returncode, os.listdir(tmp_path)) == (1, [])
    assert " ".join(refused.stderr.split()).startswith("error: No job service of Apache Beam answers. Received: ")
