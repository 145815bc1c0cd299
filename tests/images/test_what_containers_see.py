"""What a step can reach in its container, in Docker."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal

import docker
import pytest

from pipelines.local import docker_runner
from pipelines.local.screen import Screen
from pipelines.local.steps import Steps
from tests.images.test_containers import TINY, containers_of, pipeline, start_until_training
from tests.images.test_containers import docker as docker_command

pytestmark = pytest.mark.slow

_LOOK = """
import json, os, socket, sys
seen = {path: sorted(os.listdir(path)) if os.path.isdir(path) else os.path.exists(path) for path in sys.argv[1:]}
for path in sys.argv[1:]:
    try:
        open(f"{path}/new", "w").close()
    except OSError:
        pass
interfaces = [name for _, name in socket.if_nameindex()]
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines())
print(json.dumps([seen, interfaces, status["CapEff"], status["NoNewPrivs"]]))
"""


def test_a_step_sees_the_paths_of_its_flags_and_nothing_beside_them(built, tmp_path):
    for name in ("photos/cat/1.png", "photos, b: c/dog/2.png", "labels.txt", "secret.txt", "runs/.cache"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    photos, others, labels = tmp_path / "photos", tmp_path / "photos, b: c", tmp_path / "labels.txt"
    root = tmp_path / "runs"
    parameters = {"train_metadata": str(photos), "eval_metadata": str(others), "labels_file": str(labels)}
    access = docker_runner.access_of_steps(parameters, root)
    paths = [*map(str, (tmp_path, photos, others, labels, tmp_path / "secret.txt", root)), os.path.expanduser("~/.ssh")]
    steps = Steps(root, Screen(io.StringIO()), verbose=False)
    with docker_runner.runner(access, root, steps) as config, access["build_tfrecords"].arguments(print) as given:
        client = docker.from_env()
        arguments = {**config.container_run_args, **given, "volumes": {str(root): {"bind": str(root), "mode": "rw"}}}
        words = ["python", "-c", _LOOK, *paths]
        output = client.containers.run(built["build_tfrecords"], words, remove=True, **arguments)
        client.close()
    seen, interfaces, capabilities, no_new_privileges = json.loads(output)
    assert seen[str(tmp_path)] == ["labels.txt", "photos", "photos, b: c", "runs"]
    assert (seen[str(photos)], seen[str(others)], seen[str(labels)]) == (["cat"], ["dog"], True)
    assert not seen[str(tmp_path / "secret.txt")] and not seen[os.path.expanduser("~/.ssh")]
    assert list(tmp_path.rglob("new")) == [root / "new"]  # in other folders of /tmp, it is written to the container's
    assert interfaces == ["lo"] and int(capabilities, 16) == 0 and no_new_privileges == "1"


def test_a_training_step_gets_no_mount_for_what_the_lines_of_a_csv_name(built, in_docker, image_folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    beside = tmp_path / "elsewhere" / "x.png"
    beside.write_bytes(next(image_folder.glob("*/*.png")).read_bytes())
    rows = [(str(path.relative_to(image_folder)), path.parent.name) for path in sorted(image_folder.glob("*/*"))]
    with (image_folder / "photos.csv").open("w", newline="") as file:
        csv.writer(file).writerows([*rows, (str(beside), "bright")])
    runs = tmp_path / "runs"
    words = [*in_docker, "--runs_dir", str(runs), "--train_metadata", str(image_folder / "photos.csv")]
    try:
        process, lines = start_until_training([*words, *TINY, "--train_steps", "100000"])
        (container,) = containers_of(runs)
        (facts,) = json.loads(docker_command("inspect", container))
        process.send_signal(signal.SIGINT)
        process.communicate()
    finally:
        (image_folder / "photos.csv").unlink()
    assert {mount["Source"] for mount in facts["Mounts"]} == {str(runs)}, "".join(lines)
    host = facts["HostConfig"]
    assert (host["NetworkMode"], host["ReadonlyRootfs"], host["CapDrop"]) == ("none", True, ["ALL"])
    assert facts["Config"]["User"] == f"{os.getuid()}:{os.getgid()}" and host["PidsLimit"] == 4096
    (rejected,) = runs.glob("image-classification-*/build-tfrecords/data/rejected.csv")
    assert str(beside) in rejected.read_text()
    (log,) = runs.glob("image-classification-*/logs/build-tfrecords.log")
    assert f"Mounted to read: {image_folder}\n" in log.read_text()


def test_a_step_that_fails_because_of_a_path_that_no_flag_names_says_so(built, in_docker, built_data, tmp_path):
    data_set, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    shutil.copytree(built_data.folder, data_set)
    elsewhere.mkdir()
    (shard,) = data_set.glob("train-*")
    shard.rename(elsewhere / shard.name)
    manifest = data_set / "manifest.json"
    manifest.write_text(manifest.read_text().replace(f'"{shard.name}"', f'"{elsewhere / shard.name}"'))
    words = [*in_docker, "--runs_dir", str(tmp_path / "runs"), "--train_metadata", str(data_set), *TINY]
    answer = pipeline(*words)
    assert answer.returncode == 1
    assert f"In the container there is no {elsewhere / shard.name}" in " ".join(answer.stdout.split())
