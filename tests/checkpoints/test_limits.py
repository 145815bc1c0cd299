"""What a checkpoint may take: archives, indexes and processes with limits, and files of wrong types."""

from __future__ import annotations

import io
import json
import os
import signal
import warnings
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import tensorflow as tf

from tests.checkpoints import index_files
from tf_image_classification import checkpoints, model_folder
from tf_image_classification.checkpoints import archives, checkpoint_file, hdf5, hdf5_worker
from tf_image_classification.errors import CheckpointError, DataError


def fails(path: Path, match: str) -> None:
    with pytest.raises(CheckpointError, match=match) as error, checkpoints.read(str(path)) as weights:
        list(weights.values())
    assert "\n" not in str(error.value)


@pytest.fixture
def weights_file(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "good.weights.h5", "w") as file:
        file["layers/dense/vars/0"] = np.arange(6, dtype=np.float32)
    return tmp_path / "good.weights.h5"


def test_a_zip_file_of_names_outside_it_or_twice_is_refused(weights_file: Path, tmp_path: Path) -> None:
    for name, match in (
        ("/etc/passwd", "a zip member named /etc/passwd"),
        ("a/../../b", r"a zip member named a/\.\./\.\./b"),
        ("model.weights.h5", "two zip members of one name"),
    ):
        path = tmp_path / "evil.keras"
        with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings(action="ignore"):  # of the second name
            archive.write(weights_file, "model.weights.h5")
            archive.writestr(name, b"x")
        fails(path, match)


@pytest.mark.parametrize("member", ["model.weights.h5", "config.json"])
def test_a_zip_file_that_unpacks_to_many_times_its_size_is_refused(member: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, bytes(100_000_000))
    fails(
        tmp_path / "bomb.keras", r"a zip file of \d+ bytes that unpacks to 100000000 bytes\. Expected: at most 20971520"
    )


def test_a_zip_file_of_another_compression_is_refused(weights_file: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.keras", "w", zipfile.ZIP_LZMA) as archive:
        archive.write(weights_file, "model.weights.h5")
    fails(tmp_path / "other.keras", "a zip member compressed by method 14")


def test_an_npz_file_of_objects_or_of_a_shape_without_values_is_refused() -> None:
    objects, lying, good = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.savez(objects, a=np.array([{}], dtype=object))
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)})
    with zipfile.ZipFile(lying, "w") as archive:
        archive.writestr("a.npy", header.getvalue() + bytes(12))
    np.savez(good, a=np.arange(3))
    for content, match in ((objects, r"an array of object \(1,\), a\.npy"), (lying, r"float32 \(1099511627776,\)")):
        with pytest.raises(CheckpointError, match=match):
            archives.open_npz(content.getvalue(), "best.npz")
    np.testing.assert_array_equal(archives.open_npz(good.getvalue(), "best.npz")["a"], [0, 1, 2])


ENTRIES = {
    "negative": (index_files.entry([-5], 12), r"damaged.*an entry of shape \[-5\]"),
    "overflowing": (index_files.entry([1 << 62, 1 << 62, 0], 0), "damaged.*an entry of shape"),
    "of too many dimensions": (index_files.entry([1] * 300, 4), "damaged.*an entry of shape"),
    "of no protocol buffer": (b"\xff" * 8, "damaged.*BundleEntryProto"),
    "of an unknown type": (index_files.entry([3], 12, 9999), "damaged.*9999"),
    "of no type": (index_files.entry([3], 12, 0), "damaged.* 0 to"),
    "of a reference": (index_files.entry([3], 12, 101), "damaged.*an entry of type 101"),
    "in another data file": (index_files.entry([3], 12, shard_id=7), "damaged"),
    "larger than the data file": (
        index_files.entry([1 << 38], 1 << 40),
        r"a tensor a of float32 \[274877906944\], 1099511627776 bytes\. Expected: at most the 12 bytes of the file",
    ),
}


@pytest.mark.parametrize(("entry", "match"), ENTRIES.values(), ids=ENTRIES)
def test_an_entry_at_which_tensorflow_would_end_is_refused(entry: bytes, match: str, tmp_path: Path) -> None:
    (tmp_path / "x.index").write_bytes(index_files.of_entries({"a": entry}))
    np.arange(3, dtype=np.float32).tofile(tmp_path / "x.data-00000-of-00001")
    fails(tmp_path / "x", match)


def test_partitioned_variables_and_strings_in_an_index_are_read(tmp_path: Path) -> None:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        partitioner = tf.compat.v1.fixed_size_partitioner(3)
        tf.compat.v1.get_variable("parts", [5, 2], partitioner=partitioner, initializer=tf.ones_initializer())
        tf.compat.v1.get_variable("text", initializer=tf.constant(["a" * 50, ""]))
        session.run(tf.compat.v1.global_variables_initializer())
        prefix = tf.compat.v1.train.Saver().save(session, str(tmp_path / "model.ckpt"))
    with checkpoints.read(prefix) as weights:
        np.testing.assert_array_equal(weights["parts"], np.ones((5, 2)))
        assert weights.shapes["text"] == (2,)
        with pytest.raises(CheckpointError, match="values of dtype object of text"):
            weights["text"]


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe",
        b'model_checkpoint_path: ".."',
        b'model_checkpoint_path: "a\\000b"',
        b'model_checkpoint_path: "a" all_model_checkpoint_paths: "a" all_model_checkpoint_timestamps: [1, 2]',
        b"model_checkpoint_path: 7",
        b"model_checkpoint_path {" * 100_000,
    ],
)
def test_a_checkpoint_file_of_wrong_content_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / checkpoint_file.FILE).write_bytes(content)
    fails(tmp_path, r"/checkpoint names no checkpoint: it is damaged\. Received: .* Copy or download")


@pytest.mark.parametrize(
    "content",
    ["[" * 100_000, "[]", json.dumps({"digest": 7}), json.dumps({"flags": []}), json.dumps({"warm_start": "x"}), "\0"],
)
def test_a_model_json_of_wrong_types_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / model_folder.FACTS).write_text(content)
    with pytest.raises(DataError, match=r"model\.json cannot be read\. Received: "):
        model_folder.read_facts(str(tmp_path))


@pytest.mark.parametrize("names", [7, np.float32([1, 2]), [3.5], "text", ["missing"]])
def test_lists_of_layers_of_wrong_types_are_refused(names: object, weights_file: Path) -> None:
    with h5py.File(weights_file, "a") as file:
        file.attrs["layer_names"] = names
    fails(weights_file, "good.weights.h5 cannot be read: it is damaged")


def test_lists_of_many_layers_that_are_one_are_refused(weights_file: Path) -> None:
    with h5py.File(weights_file, "a") as file:
        file.create_group("dense").attrs["weight_names"] = [b"kernel:0"] * 1000
        file.attrs["layer_names"] = [b"dense"] * 1000
    fails(weights_file, "a list of more than 100000 layers and variables")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    for name in ("a.weights.h5", "a.keras", "a.ckpt"):
        os.mkfifo(tmp_path / name)
        fails(tmp_path / name, "no regular file")


@pytest.mark.parametrize(
    ("ending", "match"),
    [
        (f"os.kill(os.getpid(), {int(signal.SIGSEGV)})", r"HDF5 crashed while reading it \(signal SIGSEGV\)"),
        ("time.sleep(600)", "HDF5 did not finish reading it in the time"),
        (f"os.kill(os.getpid(), {int(signal.SIGXCPU)})", "HDF5 did not finish reading it"),
        ("os._exit(3)", r"HDF5 crashed while reading it \(exit code 3\)"),
    ],
)
@pytest.mark.parametrize("when", ["opening", "reading"])
def test_a_crash_or_hang_of_the_process_that_reads_hdf5_is_an_error(
    ending: str, match: str, when: str, weights_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = json.dumps({"datasets": [["a", "a", [3]]], "layers": None})
    lines = ["import os, sys, time", "print('{}', flush=True)"]
    lines += [f"print('{contents}', flush=True)", "sys.stdin.readline()"] if when == "reading" else []
    (tmp_path / "worker.py").write_text("\n".join([*lines, ending]))
    monkeypatch.setattr(hdf5_worker, "__file__", str(tmp_path / "worker.py"))
    monkeypatch.setattr(hdf5, "_SECONDS", 1)
    fails(weights_file, f"good.weights.h5 cannot be read: it is damaged or not a checkpoint. Received: {match}")
