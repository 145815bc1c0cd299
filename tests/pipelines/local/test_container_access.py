"""What the containers of `--runner docker` may reach, without starting one: their mounts, and the network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pipelines.local.docker_runner import absolute, access_of_steps
from tf_image_classification.errors import FlagError
from tf_image_classification.flag_types import STEPS


@pytest.fixture
def root(tmp_path) -> Path:
    """The folder of runs."""
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


@pytest.fixture
def data(tmp_path) -> Path:
    """A folder with sub-folders and files that flags may name."""
    folder = tmp_path / "data"
    for name in ("photos/cat/1.png", "photos/dog/2.png", "shards/train-0.tfrecord", "labels.txt", "mine.whl"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes(16))
    return folder


def mounted(step: str, root: Path, **parameters: Any) -> dict[str, str]:
    """What a step's container sees besides the folder of runs: path -> `read` or `write`."""
    parameters = {name: str(value) for name, value in parameters.items()}
    with access_of_steps(parameters, root)[step].arguments(print) as arguments:
        assert all(mount["Source"] == os.path.realpath(mount["Target"]) for mount in arguments["mounts"])
        return {mount["Target"]: "read" if mount["ReadOnly"] else "write" for mount in arguments["mounts"]}


def test_each_step_sees_the_paths_of_its_own_flags_only(root, data, tmp_path):
    for name in ("checkpoints", "service"):
        (tmp_path / name).mkdir()
    parameters = {
        "train_metadata": data / "photos",
        "labels_file": data / "labels.txt",
        "packages": data / "mine.whl",
        "model_dir": tmp_path / "checkpoints",
        "champion": tmp_path / "service",
    }
    seen = {step: mounted(step, root, **parameters) for step in STEPS}
    images = {str(data / "photos"): "read", str(data / "labels.txt"): "read"}
    package, service = {str(data / "mine.whl"): "read"}, str(tmp_path / "service")
    assert seen == {
        "resolve": {**images, **package, service: "read"},
        "build_tfrecords": images,
        "train": {**package, str(tmp_path / "checkpoints"): "write"},
        "evaluate": {**package, service: "read"},
        "gate": {},
        "register": {service: "write"},
    }


def test_what_the_lines_of_a_list_name_is_not_mounted_and_a_list_is_not_even_read(root, data):
    for name in ("list.csv", "list.jsonl"):
        (data / name).write_bytes(b"\xff\0 /root/x.png is not even text")
        assert mounted("build_tfrecords", root, train_metadata=data / name) == {str(data): "read"}


def test_with_image_root_a_list_is_mounted_as_a_single_file(root, data):
    (data / "list.csv").write_text("/root/x.png,cat\n")
    seen = mounted("build_tfrecords", root, train_metadata=data / "list.csv", image_root=data / "photos")
    assert seen == {str(data / "list.csv"): "read", str(data / "photos"): "read"}


def test_what_a_manifest_names_is_not_mounted(root, data):
    (data / "shards" / "manifest.json").write_text('{"splits": {"train": {"shards": [{"path": "/etc/passwd"}]}}}')
    for step in ("resolve", "build_tfrecords", "train"):
        assert mounted(step, root, train_metadata=data / "shards") == {str(data / "shards"): "read"}


@pytest.mark.parametrize("named", ["", ".index", ".data-00000-of-00001"])
def test_of_a_checkpoints_prefix_or_file_its_files_are_mounted_and_not_the_folder(root, data, named):
    for name in ("model.ckpt-7.index", "model.ckpt-7.data-00000-of-00001", "model.ckpt-71.index", "secret.txt"):
        (data / name).touch()
    files = {str(data / f"model.ckpt-7{suffix}"): "read" for suffix in (".index", ".data-00000-of-00001")}
    for step in ("resolve", "train"):
        assert mounted(step, root, checkpoint_path=data / f"model.ckpt-7{named}") == files


def test_the_model_in_service_is_read_by_a_training_that_starts_from_it(root, tmp_path):
    (tmp_path / "service").mkdir()
    parameters = {"champion": tmp_path / "service", "checkpoint_path": "champion"}
    assert mounted("train", root, **parameters) == {str(tmp_path / "service"): "read"}


@pytest.mark.parametrize("pattern", ["train-*", "train-[0-9].tfrecord", "*"])
def test_of_a_glob_the_deepest_literal_folder_is_mounted(root, data, pattern):
    for step in ("resolve", "build_tfrecords", "train", "evaluate"):
        assert mounted(step, root, train_metadata=data / "shards" / pattern) == {str(data / "shards"): "read"}


def test_of_a_path_with_a_date_the_folder_of_the_dates_is_mounted(root, data):
    (data / "photos").rename(data / "dt=2026-01-31")
    assert mounted("resolve", root, train_metadata=data / "dt={date}") == {str(data): "read"}


def test_spaces_commas_and_colons_are_parts_of_names(root, data):
    strange = data / "a b, c:d"
    (data / "photos").rename(strange)
    both = f"{strange},{data / 'shards'}"
    assert mounted("resolve", root, train_metadata=both) == {str(strange): "read", str(data / "shards"): "read"}


def test_a_comma_separates_the_paths_of_a_list_and_no_others(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {"champion": "new, better", "checkpoint_path": "a,b/model.ckpt-7", "train_metadata": "x, gs://b/y"}
    here = {"champion": f"{tmp_path}/new, better", "checkpoint_path": f"{tmp_path}/a,b/model.ckpt-7"}
    assert absolute(given) == here | {"train_metadata": f"{tmp_path}/x,gs://b/y"}


def test_a_link_is_mounted_where_it_is_and_where_it_leads(root, data):
    (data / "link").symlink_to("photos")
    assert set(mounted("resolve", root, train_metadata=data / "link")) == {str(data / "link"), str(data / "photos")}


def test_what_the_folder_of_runs_holds_is_not_mounted_again(root):
    (root / "latest" / "model").mkdir(parents=True)
    assert mounted("train", root, checkpoint_path=root / "latest" / "model") == {}


def test_a_link_that_a_container_made_in_the_folder_of_runs_adds_no_mount(root, data):
    (root / "model").symlink_to(data)
    assert mounted("train", root, checkpoint_path=root / "model") == {}


def test_a_link_that_a_container_makes_during_the_run_changes_no_mount(root, data, tmp_path):
    (tmp_path / "service" / "model").mkdir(parents=True)
    parameters = {"champion": str(tmp_path / "service"), "packages": str(tmp_path / "service" / "model")}
    access = access_of_steps(parameters, root)["evaluate"]
    (tmp_path / "service" / "model").rmdir()
    (tmp_path / "service" / "model").symlink_to(data)
    with access.arguments(print) as arguments:
        assert [mount["Source"] for mount in arguments["mounts"]] == [str(tmp_path / "service")]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/", "it holds /"),
        ("/etc", "it is /etc"),
        ("/proc/self", "it is in /proc"),
        ("/home", "it is /home"),
        ("/usr", "a folder of the system or of a user"),
        ("~", "it holds ~/.config/gcloud"),
        ("~/.config", "it holds ~/.config/gcloud"),
        ("~/.ssh/keys", "it is in ~/.ssh"),
        ("~/link", "it is /etc"),
        ("~/with_key", "it holds ~/with_key/key.json"),
        ("~/../other", "it holds ~/../other/.ssh"),
        ("~/../other/.ssh/keys", "it is in ~/../other/.ssh"),
    ],
)
def test_a_folder_with_credentials_or_of_the_system_is_refused(root, tmp_path, monkeypatch, path, reason):
    home = tmp_path / "home"
    for folder in (".config/gcloud", ".ssh/keys", "with_key", "../other/.ssh/keys"):
        (home / folder).mkdir(parents=True)
    (home / "with_key" / "key.json").touch()
    (home / "link").symlink_to("/etc")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(home / "with_key" / "key.json"))
    for flag in ("image_root", "model_dir", "runs_dir"):
        given = {} if flag == "runs_dir" else {flag: os.path.expanduser(path)}
        runs = Path(os.path.expanduser(path)) if flag == "runs_dir" else root
        with pytest.raises(FlagError) as refused:
            access_of_steps(given, runs)
        message = str(refused.value)
        expected = reason.replace("~/..", str(tmp_path)).replace("~", str(home))
        assert f"--{flag} would mount" in message and expected in message


def test_a_list_in_the_home_folder_needs_an_image_root(root, tmp_path, monkeypatch):
    home = tmp_path / "home"
    (home / "photos").mkdir(parents=True)
    (home / "list.csv").write_text("photos/1.png,cat\n")
    monkeypatch.setenv("HOME", str(home))
    with pytest.raises(FlagError, match=r"a folder of the system or of a user.*--image_root"):
        access_of_steps({"train_metadata": str(home / "list.csv")}, root)
    seen = mounted("resolve", root, train_metadata=home / "list.csv", image_root=home / "photos")
    assert set(seen) == {str(home / "list.csv"), str(home / "photos")}


def test_a_container_has_no_network_unless_its_step_downloads_published_weights(root, data):
    parameters = {"train_metadata": str(data / "photos"), "checkpoint_path": "imagenet"}
    access = access_of_steps(parameters, root)
    assert {step for step, given in access.items() if given.needs_network} == {"train"}
    with access["train"].arguments(print) as arguments:
        assert arguments["network_mode"] == "bridge"
    with access["build_tfrecords"].arguments(print) as arguments:
        assert arguments["network_mode"] == "none"
    assert set(arguments["environment"]) == set()
