"""A build on Apache Beam writes the same bytes as one on this machine, also if workers die: `make test-beam`."""

from __future__ import annotations

import io
import itertools
import json
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import google_crc32c
import pytest
from PIL import Image

from tests import documents
from tests.build_tfrecords.beam_inputs import (
    SHARD_BYTES,
    good_and_bad_images,
    list_of_two_label_columns,
    with_photographs,
)
from tests.build_tfrecords.support import command, digests, pictures
from tests.conftest import SHARED_CASES, SHARED_DATA
from tf_image_classification import build_tfrecords, storage
from tf_image_classification.build_tfrecords import part_file
from tf_image_classification.build_tfrecords.beam_runner import BeamRunner
from tf_image_classification.data import manifest
from tf_image_classification.data.sources import ReadOptions
from tf_image_classification.errors import FlagError, UserError

pytest.importorskip("apache_beam", reason="Apache Beam is not installed: make test-beam installs it")

from apache_beam.options import pipeline_options_validator
from apache_beam.runners.portability import portable_runner, prism_runner

DIRECT = BeamRunner("DirectRunner")
# The runner that does a bundle again when it fails, as those of clusters do.
RETRYING = BeamRunner("apache_beam.runners.direct.direct_runner.BundleBasedDirectRunner")


def both(metadata: str, folder: Path, runner: BeamRunner = DIRECT, **options) -> manifest.Manifest:
    """Builds with both engines, and compares every byte that they write."""
    expected = build_tfrecords.build(metadata, str(folder / "local"), **options)
    data = build_tfrecords.build(metadata, str(folder / "beam"), runner=runner, **options)
    assert digests(folder / "beam") == digests(folder / "local")
    assert data.to_json() == expected.to_json()
    assert sorted(os.listdir(folder)) == ["beam", "local"]  # no files of workers
    return data


@pytest.mark.parametrize("max_side", [0, 16])
def test_a_folder_of_every_kind_of_image_and_of_bad_ones(max_side, tmp_path):
    root = good_and_bad_images(tmp_path / "photos")
    (tmp_path / "out").mkdir()
    data = both(str(root), tmp_path / "out", shard_bytes=SHARD_BYTES, options=ReadOptions(max_side=max_side))
    assert len(data.splits["train"].shards) > 3
    assert data.reencoded > 5 and len(data.rejected_reasons) > 5
    assert data.quality.near_duplicates.train > 0


def test_a_list_of_several_label_columns_with_lines_that_are_rejected(photos, tmp_path):
    metadata = list_of_two_label_columns(tmp_path / "list.csv")
    (tmp_path / "out").mkdir()
    data = both(metadata, tmp_path / "out", shard_bytes=SHARD_BYTES, options=ReadOptions(image_root=photos))
    assert [task.name for task in data.tasks] == ["animal", "size"]
    assert sum(data.rejected_reasons.values()) >= 4


def test_an_import_file_that_names_its_splits(photos, tmp_path):
    uses = ("training", "validation", "test", "unassigned")
    names = [f"{label}/{number:04}.png" for label in ("cat", "dog") for number in range(60)]
    lines = [f"{uses[number % 4]},{photos}/{name},{name[:3]}" for number, name in enumerate(names)]
    (tmp_path / "import.csv").write_text("\n".join(lines))
    (tmp_path / "out").mkdir()
    options = ReadOptions(image_root=photos)
    data = both(str(tmp_path / "import.csv"), tmp_path / "out", shard_bytes=SHARD_BYTES, options=options)
    assert data.rejected_reasons == {"in the test split": 30}


def test_images_to_train_on_beside_tfrecords_to_evaluate(photos, tmp_path):
    build_tfrecords.build(photos, str(tmp_path / "data"))
    (tmp_path / "out").mkdir()
    data = both(photos, tmp_path / "out", eval_metadata=str(tmp_path / "data" / "eval-*"))
    assert data.splits["train"].examples == 120


@pytest.mark.slow
@with_photographs
def test_photographs(tmp_path):
    data = both(str(SHARED_DATA / "pets"), tmp_path, shard_bytes=2**20)
    assert len(data.splits["train"].shards) > 20


def outcome(metadata: str, target: Path, runner: BeamRunner | None, **options) -> str | dict[str, str]:
    """The digests of a data set, or why there is none."""
    try:
        build_tfrecords.build(metadata, str(target), shard_bytes=SHARD_BYTES, runner=runner, **options)
    except UserError as error:
        return str(error)
    return digests(target)


@pytest.mark.skipif(not SHARED_CASES.is_dir(), reason="the shared cases are not here")
def test_the_shared_lists_are_built_or_refused_alike(tmp_path):
    (tmp_path / "img").mkdir()
    for number, name in itertools.product(range(20), ("red", "green")):
        Image.new("RGB", (16, 16), name).point(lambda level, n=number: max(level, n)).save(
            tmp_path / "img" / f"{name}{number}.jpg"
        )
    built, refused = [], []
    for path in sorted((SHARED_CASES / "csv").iterdir()):
        (tmp_path / path.name).write_bytes(path.read_bytes())
        metadata = str(tmp_path / path.name)
        expected = outcome(metadata, tmp_path / "local" / path.name, None)
        assert outcome(metadata, tmp_path / "beam" / path.name, DIRECT) == expected, path.name
        (refused if isinstance(expected, str) else built).append(path.name)
    assert len(built) >= 5 and len(refused) >= 5


@pytest.mark.skipif(not SHARED_CASES.is_dir(), reason="the shared cases are not here")
def test_images_beside_the_shared_tfrecords_are_built_or_refused_alike(tmp_path):
    pictures(tmp_path / "photos", {"blue": 10, "green": 10, "red": 10})
    refused = 0
    for path in sorted((SHARED_CASES / "tfrecord").glob("*/eval.tfrecord")):
        options = {"eval_metadata": str(path), "allow_missing_classes": True}
        expected = outcome(str(tmp_path / "photos"), tmp_path / "local" / path.parent.name, None, **options)
        found = outcome(str(tmp_path / "photos"), tmp_path / "beam" / path.parent.name, DIRECT, **options)
        assert found == expected, path.parent.name
        refused += isinstance(expected, str)
    assert 0 < refused < 5


class Faults:
    """Has a function raise an error at some of its calls, once its work is done, outside the main thread."""

    def __init__(self, patch: pytest.MonkeyPatch, owner: object, name: str, *calls: int) -> None:
        self._work, self._calls = getattr(owner, name), set(calls)
        self._count = itertools.count()
        self.raised = 0
        patch.setattr(owner, name, self)

    def __call__(self, *arguments):
        result = self._work(*arguments)
        if threading.current_thread() is not threading.main_thread() and next(self._count) in self._calls:
            self.raised += 1
            raise RuntimeError("the worker dies")
        return result


def test_workers_that_die_in_the_middle_of_bundles_change_nothing(photos, expected, tmp_path, monkeypatch):
    faults = [
        Faults(monkeypatch, part_file, "check", 0, 2),
        Faults(monkeypatch, storage, "write_bytes", 0, 2, 4),  # of results, and of the lists of what was written
        Faults(monkeypatch, google_crc32c, "extend", 10, 50),  # half of a shard is written
    ]
    build_tfrecords.build(photos, str(tmp_path / "data"), shard_bytes=SHARD_BYTES, runner=RETRYING)
    assert [of_function.raised for of_function in faults] == [2, 3, 2]
    assert digests(tmp_path / "data") == expected
    assert os.listdir(tmp_path) == ["data"]


def test_a_pipeline_that_fails_leaves_the_older_data_set(photos, expected, tmp_path, monkeypatch):
    target = str(tmp_path / "data")
    build_tfrecords.build(photos, target, shard_bytes=SHARD_BYTES)
    Faults(monkeypatch, part_file, "check", *range(1000))
    with pytest.raises(UserError, match=r"The Apache Beam pipeline failed. Received: .*Runner: .*the worker dies"):
        build_tfrecords.build(photos, target, runner=RETRYING)
    assert digests(tmp_path / "data") == expected
    assert os.listdir(tmp_path) == ["data"]


def test_a_build_that_is_killed_can_be_run_again(photos, tmp_path):
    expected = command("--train_metadata", photos, "--output_dir", tmp_path / "local")
    words = ["--train_metadata", photos, "--output_dir", str(tmp_path / "data"), "--runner", "DirectRunner"]
    process = subprocess.Popen([sys.executable, "-m", "tf_image_classification.build_tfrecords", *words])
    while not list(tmp_path.glob(".data.partial-*/.beam/results-*")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (tmp_path / "data").exists()
    again = command(*words, "--direct_num_workers", 1)
    assert (expected.returncode, again.returncode) == (0, 0), again.stderr
    assert digests(tmp_path / "data") == digests(tmp_path / "local")
    assert sorted(os.listdir(tmp_path)) == ["data", "local"]


@pytest.fixture(params=["gs", "s3"])
def bucket(request, monkeypatch) -> Iterator[str]:
    if request.param == "gs":
        standin = pytest.importorskip("tests.standin.bucket", reason="gcp-storage-emulator is not installed")
        with standin.serving("photos") as url:
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
            yield "gs://photos"
        return
    standin = pytest.importorskip("tests.standin.s3", reason="moto is not installed")
    with standin.S3("photos") as service:
        for name, value in standin.environment(service.url).items():
            monkeypatch.setenv(name, value)
        yield "s3://photos"


def test_from_a_bucket_into_a_bucket(photos, bucket, tmp_path):
    for path in Path(photos).rglob("*7.png"):
        storage.write_bytes(f"{bucket}/photos/{path.relative_to(photos)}", path.read_bytes())
    for name, runner in (("local", None), ("beam", DIRECT), ("beam", DIRECT)):  # the last one replaces a data set
        build_tfrecords.build(f"{bucket}/photos", f"{bucket}/{name}", shard_bytes=1000, runner=runner)
        storage.fetch_dir(f"{bucket}/{name}", str(tmp_path / f"{name}-{len(os.listdir(tmp_path))}"))
    first, *others = (digests(tmp_path / name) for name in ("local-0", "beam-1", "beam-2"))
    assert others == [first, first]
    assert storage.names_in(bucket) == ["beam", "local", "photos"]


class Dataflow(BaseHTTPRequestHandler):
    """The service: a job is created, and has failed."""

    jobs: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        self.jobs.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.do_GET()

    def do_GET(self) -> None:
        job = {"id": "job-1", "projectId": "my-project", "location": "europe-west4", "currentState": "JOB_STATE_FAILED"}
        content = json.dumps({} if "/messages" in self.path else job).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.mark.parametrize("bucket", ["gs"], indirect=True)
def test_a_job_of_dataflow_names_the_image_and_its_folders_and_a_failed_one_leaves_nothing(bucket, monkeypatch):
    for number in range(20):
        file = io.BytesIO()
        Image.new("RGB", (8, 8), (number, 0, 0)).save(file, "PNG")
        storage.write_bytes(f"{bucket}/photos/{'cat' if number % 2 else 'dog'}/{number}.png", file.getvalue())
    validator = pipeline_options_validator.PipelineOptionsValidator
    monkeypatch.setattr(validator, "validate_endpoint_url", lambda *_: True)  # it takes no address with a port
    with ThreadingHTTPServer(("127.0.0.1", 0), Dataflow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        words = "--project my-project --region europe-west4 --no_auth --sdk_container_image registry/beam:1 "
        words += f"--temp_location {bucket}/temp --dataflow_endpoint http://localhost:{server.server_port}"
        runner = BeamRunner("DataflowRunner", tuple(words.split()))
        with pytest.raises(UserError, match="The Apache Beam pipeline failed"):
            build_tfrecords.build(f"{bucket}/photos", f"{bucket}/data", runner=runner)
        server.shutdown()
    environment = Dataflow.jobs[0]["environment"]
    assert environment["workerPools"][0]["workerHarnessContainerImage"] == "registry/beam:1"
    assert "/photos/temp/" in environment["tempStoragePrefix"]
    assert storage.names_in(bucket) == ["photos", "temp"]


def test_the_command_of_the_page_is_one_that_beam_takes():
    block = documents.blocks(documents.read("docs/beam.md"), "bash")[0]
    words = shlex.split(block.replace("\\\n", " "))
    begin = words.index("--runner")
    BeamRunner(words[begin + 1], tuple(words[begin + 2 :])).check_options()


def test_the_command_to_try_it_builds_on_this_machine(photos, tmp_path):
    (block,) = (one for one in documents.blocks(documents.read("docs/beam.md"), "bash") if "DirectRunner" in one)
    places = {".venv-beam/bin/python": sys.executable, "photos/": photos, "data/": str(tmp_path / "data")}
    words = [places.get(word, word) for word in shlex.split(block.replace("\\\n", " "))]
    subprocess.run(words, check=True, capture_output=True)
    build_tfrecords.build(photos, str(tmp_path / "local"))
    assert digests(tmp_path / "data") == digests(tmp_path / "local")


def test_dataflow_needs_an_image_that_has_the_packages_of_a_build():
    words = ("--project", "p", "--region", "europe-west4", "--temp_location", "gs://bucket/temp")
    with pytest.raises(FlagError, match=r"would not have the packages of a build\. Expected: --sdk_container_image"):
        BeamRunner("DataflowRunner", words).check_options()
    BeamRunner("DataflowRunner", (*words, "--setup_file", "./setup.py")).check_options()
    BeamRunner("FlinkRunner").check_options()


def test_the_image_of_flinks_workers_is_that_of_environment_config():
    words = ("--flink_master", "flink:8081", "--environment_type", "DOCKER")
    with pytest.raises(FlagError, match=r"--sdk_container_image has no effect on FlinkRunner.*--environment_config"):
        BeamRunner("FlinkRunner", (*words, "--sdk_container_image", "registry/beam:1")).check_options()
    runner = BeamRunner("FlinkRunner", (*words, "--environment_config", "registry/beam:1"))
    runner.check_options()
    environment = portable_runner.PortableRunner._create_environment(runner.pipeline().options)
    assert environment.container_image == "registry/beam:1"


def test_direct_runner_downloads_nothing(photos, tmp_path, monkeypatch):
    downloads = []
    monkeypatch.setattr(prism_runner.PrismJobServer, "start", lambda *_: downloads.append("Prism"))
    build_tfrecords.build(photos, str(tmp_path / "data"), runner=DIRECT)
    assert not downloads


def test_options_of_beam_are_passed_on_and_others_are_refused(photos, tmp_path):
    words = ["--train_metadata", photos, "--output_dir", tmp_path / "data", "--runner"]
    wrong = command(*words, "DirectRunner", "--direct_num_worker", 2)
    assert (wrong.returncode, os.listdir(tmp_path)) == (2, [])
    assert "Unknown flag --direct_num_worker. Did you mean --direct_num_workers?" in wrong.stderr
    with pytest.raises(FlagError, match=r"Apache Beam refuses its options\. .*environment_config is incompatible"):
        options = ("--environment_config", "a", "--environment_options", "process_command=b")
        BeamRunner("PrismRunner", ("--environment_type", "PROCESS", *options)).pipeline()
