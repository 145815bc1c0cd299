"""A checkpoint is data: nothing outside its files is read, and a small file never takes much memory or time."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from tf_image_classification import checkpoints
from tf_image_classification.errors import CheckpointError

VALUES = np.arange(6, dtype=np.float32)
KEY = "layers/dense/vars/0"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file outside the checkpoint."""
    path = tmp_path / "outside" / "secret.bin"
    path.parent.mkdir()
    return write_secret(path)


def write_secret(path: Path) -> Path:
    """Writes the same values as raw numbers and, beside them, as HDF5."""
    VALUES.tofile(path)
    with h5py.File(path.with_suffix(".h5"), "w") as file:
        file["values"] = VALUES
    return path


def external_storage(file: h5py.File, secret: Path) -> None:
    file.create_dataset(KEY, (6,), np.float32, external=[(str(secret), 0, h5py.h5f.UNLIMITED)])


def virtual_dataset(file: h5py.File, secret: Path) -> None:
    layout = h5py.VirtualLayout((6,), np.float32)
    layout[:] = h5py.VirtualSource(secret.with_suffix(".h5"), "values", (6,))
    file.create_virtual_dataset(KEY, layout)


def external_link(file: h5py.File, secret: Path) -> None:
    file[KEY] = h5py.ExternalLink(str(secret.with_suffix(".h5")), "/values")


def soft_link(file: h5py.File, secret: Path) -> None:
    file["values"] = VALUES
    file[KEY] = h5py.SoftLink("/values")


def keras_2_layer_behind_a_link(file: h5py.File, secret: Path) -> None:
    with h5py.File(secret.with_suffix(".h5"), "a") as other:
        other["kernel:0"] = VALUES
        other.attrs["weight_names"] = [b"kernel:0"]
    file.attrs["layer_names"] = [b"dense"]
    file["dense"] = h5py.ExternalLink(str(secret.with_suffix(".h5")), "/")


def text(file: h5py.File, secret: Path) -> None:
    file[KEY] = ["one", "two"]


def compound(file: h5py.File, secret: Path) -> None:
    file[KEY] = np.zeros(3, [("a", np.float32), ("b", np.int32)])


def opaque(file: h5py.File, secret: Path) -> None:
    file[KEY] = np.zeros(3, "V7")


def reference(file: h5py.File, secret: Path) -> None:
    file["values"] = VALUES
    file.create_dataset(KEY, data=file["values"].ref, dtype=h5py.ref_dtype)


def variable_length(file: h5py.File, secret: Path) -> None:
    file.create_dataset(KEY, (3,), h5py.vlen_dtype(np.float32))


def array_type(file: h5py.File, secret: Path) -> None:
    file.create_dataset(KEY, (3,), np.dtype((np.float32, (1 << 20,))))


def never_written(file: h5py.File, secret: Path) -> None:
    file.create_dataset(KEY, (1 << 40,), np.float32)


def chunks_never_written(file: h5py.File, secret: Path) -> None:
    file.create_dataset(KEY, (1 << 40,), np.float32, chunks=(1 << 20,))


def zeros(file: h5py.File, secret: Path) -> None:
    file.create_dataset(KEY, data=np.zeros(10_000_000, np.float32), compression="gzip")


def other_filter(file: h5py.File, secret: Path) -> None:
    file.create_dataset(KEY, data=np.arange(6), chunks=(6,), scaleoffset=0)


HOLES = {
    external_storage: r"external storage, layers/dense/vars/0, whose values are in .*secret\.bin",
    virtual_dataset: "a virtual dataset, layers/dense/vars/0",
    external_link: r"an external link, layers/dense/vars/0, to .*secret\.h5",
    soft_link: "a soft link, layers/dense/vars/0",
    keras_2_layer_behind_a_link: "an external link, dense",
    text: "a dataset of dtype object",
    compound: r"a dataset of dtype \[",
    opaque: r"a dataset of dtype \|V7",
    reference: "a dataset of dtype object",
    variable_length: "a dataset of dtype object",
    array_type: r"a dataset of dtype \('<f4', \(1048576,\)\)",
    never_written: r"datasets of 4398046511104 bytes or more, among them layers/dense/vars/0\. Expected: at most",
    chunks_never_written: "datasets of 4398046511104 bytes",
    zeros: "datasets of 40000000 bytes",
    other_filter: "a dataset with the filter 6",
}


def refused(path: Path, match: str) -> None:
    with (
        pytest.raises(CheckpointError, match=rf"{path.name} is refused: it is more than the values.*{match}") as error,
        checkpoints.read(str(path)) as weights,
    ):
        list(weights.values())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("hole", "match"), HOLES.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_an_hdf5_file_of_anything_but_its_own_arrays_of_numbers_is_refused(
    hole: Callable[[h5py.File, Path], None], match: str, tmp_path: Path, secret: Path
) -> None:
    path = tmp_path / "evil.weights.h5"
    with h5py.File(path, "w") as file:
        hole(file, secret)
    refused(path, match)


def test_the_weights_in_a_keras_file_are_checked_too(tmp_path: Path, secret: Path) -> None:
    with h5py.File(tmp_path / "model.weights.h5", "w") as file:
        virtual_dataset(file, secret)
    with zipfile.ZipFile(tmp_path / "evil.keras", "w") as archive:
        archive.write(tmp_path / "model.weights.h5", "model.weights.h5")
    refused(tmp_path / "evil.keras", HOLES[virtual_dataset])


def test_compressed_weights_are_read(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(100, 30)).astype(np.float32)
    with h5py.File(tmp_path / "packed.weights.h5", "w") as file:
        for name in ("gzip", "lzf"):
            file.create_dataset(f"{name}/vars/0", data=values, compression=name, shuffle=True, fletcher32=True)
        file["empty/vars/0"], file["scalar/vars/0"] = np.zeros((0, 3), np.int64), np.float64(2)
        file["other order/vars/0"] = values.astype(">f4")
    with checkpoints.read(str(tmp_path / "packed.weights.h5")) as weights:
        for name in ("gzip", "lzf", "other order"):
            np.testing.assert_array_equal(weights[f"{name}/vars/0"], values)
        assert weights["empty/vars/0"].shape == (0, 3)
        assert weights["scalar/vars/0"] == 2 and weights["scalar/vars/0"].shape == ()
