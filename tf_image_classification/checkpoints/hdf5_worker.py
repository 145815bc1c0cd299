"""Reads one HDF5 file, as a process of its own with limits: on a damaged one, the HDF5 library may crash or never end.

`hdf5` runs this file as a script, with a file's path and the most bytes it may unpack to. Every answer is a line of
JSON; after that of an array, its bytes. The first answer says that the process has started, the second what is in the
file, and each further one answers a line of input, a dataset's path in JSON.

This file imports nothing of the project: it starts in a fraction of the time.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from typing import IO, Any

_MEMORY = 1 << 30  # bytes of address space, beyond two copies of the largest dataset
_SECONDS, _BYTES_PER_SECOND = 3, 10_000_000  # of processor time, for any file and for each so many bytes of it
_MAX_VARIABLES = 100_000
_DTYPE_KINDS, _MAX_ITEM_SIZE = "fiub", 8  # float, int, unsigned, bool; in bytes
_FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}  # built into HDF5 or h5py: others are plugins


class Unsafe(Exception):
    """The file asks for more than its own numbers: (received, expected)."""


def main(path: str, max_unpacked: int) -> None:
    """Serves the file until the input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing that a library prints gets between the answers
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_AS, _MEMORY)
    try:
        import h5py

        _answer(answers, {})
        seconds = _SECONDS + os.path.getsize(path) // _BYTES_PER_SECOND
        _limit(resource.RLIMIT_CPU, int(time.process_time()) + 1 + seconds)
        with h5py.File(path, "r") as file:
            _open_no_more_files()
            contents, largest = _contents(file, max_unpacked)
            _limit(resource.RLIMIT_AS, _MEMORY + 2 * largest)
            _answer(answers, contents)
            for line in sys.stdin.buffer:
                array = file[json.loads(line)][()]
                _answer(answers, {"dtype": array.dtype.str, "shape": array.shape})
                answers.write(array.tobytes() if array.ndim == 0 else array.reshape(-1).view("u1").data)
                answers.flush()
    except Unsafe as error:
        _answer(answers, {"unsafe": error.args})
    except Exception as error:  # h5py raises nearly any kind for a damaged file
        _answer(answers, {"damaged": f"{type(error).__name__}: {error}"})


def _answer(answers: IO[bytes], content: dict[str, Any]) -> None:
    answers.write(json.dumps(content).encode() + b"\n")
    answers.flush()


def _limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    with contextlib.suppress(ValueError, OSError):  # macOS refuses to limit the address space
        resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _open_no_more_files() -> None:
    """Even a reference to another file that `_contents` overlooks cannot be followed."""
    for encoding in ("ascii", "utf-8"):  # of names in the file: Python imports them on first use
        codecs.lookup(encoding)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    _limit(resource.RLIMIT_NOFILE, lowest_free)


def _contents(file: Any, max_unpacked: int) -> tuple[dict[str, Any], int]:
    """What is in the file: its datasets as [path, name, shape], its layers; and the largest dataset's bytes.

    Nothing but metadata is read. `layers` are those of `_keras_2_layers`.

    Raises:
        Unsafe: something in it is not a plain array of numbers in the file itself.
    """
    import h5py

    other_link = file.visititems_links(_other_link)
    if other_link:
        raise Unsafe(other_link, "datasets in the file itself")
    datasets: dict[str, Any] = {}
    unpacked = largest = 0

    def visit(path: str, item: Any) -> None:
        nonlocal unpacked, largest
        if not isinstance(item, h5py.Dataset):
            return
        size = _check_dataset(path, item)
        unpacked, largest = unpacked + size, max(largest, size)
        if unpacked > max_unpacked:
            raise Unsafe(f"datasets of {unpacked} bytes or more, among them {path}", f"at most {max_unpacked} bytes")
        if item.shape is not None:
            datasets[path] = item

    file.visititems(visit)
    layers = _keras_2_layers(file)
    if layers is None:
        listed = [(path, _name(path, dataset)) for path, dataset in datasets.items()]
    else:
        listed = [(path, name) for _, weights in layers for name, path in weights]
    shapes = [(path, name, file[path].shape) for path, name in listed]
    return {"datasets": shapes, "layers": layers}, largest


def _other_link(path: str, link: Any) -> str | None:
    """What a link is, unless it is to an object of the file; h5py loses an exception of this function."""
    import h5py

    if isinstance(link, h5py.HardLink):
        return None
    return (
        f"an external link, {path}, to {link.filename}"
        if isinstance(link, h5py.ExternalLink)
        else f"a soft link, {path}"
    )


def _check_dataset(path: str, dataset: Any) -> int:
    """Checks how a dataset is stored; returns the bytes that it takes in memory."""
    expected = "arrays of numbers in the file itself"
    properties = dataset.id.get_create_plist()
    if dataset.is_virtual:
        raise Unsafe(f"a virtual dataset, {path}, whose values are in other files", expected)
    if properties.get_external_count():
        other = properties.get_external(0)[0].decode(errors="replace")
        raise Unsafe(f"a dataset with external storage, {path}, whose values are in {other}", expected)
    dtype = dataset.dtype
    if dtype.kind not in _DTYPE_KINDS or dtype.shape or dtype.itemsize > _MAX_ITEM_SIZE:
        raise Unsafe(f"a dataset of dtype {dtype}, {path}", expected)
    for index in range(properties.get_nfilters()):
        code, _, _, name = properties.get_filter(index)
        if code not in _FILTERS:
            raise Unsafe(
                f"a dataset with the filter {code} {name.decode(errors='replace')}, {path}",
                f"no filter but {', '.join(_FILTERS.values())}",
            )
    chunk = 1
    for length in dataset.chunks or ():
        chunk *= length
    return max(dataset.size or 0, chunk) * int(dtype.itemsize)


def _keras_2_layers(file: Any) -> list[tuple[str, list[tuple[str, str]]]] | None:
    """The layers of a file in Keras 2's layout, which the published weights of keras.applications have.

    A group (of a whole-model file: `model_weights`) lists its layers in the attribute `layer_names`, and each layer's
    group its variables in `weight_names`: trainable ones first (keras/src/legacy/saving/legacy_h5_format.py).

    Returns:
        (name of the layer, [(name of a variable without ":0", its HDF5 path), ...]) in the file's order; None for
        another layout.
    """
    root = file.get("model_weights", file)
    layer_names = _names_in_attributes(root, "layer_names")
    if layer_names is None:
        return None
    layers, count = [], 0
    for layer in layer_names:
        weight_names = _names_in_attributes(root[layer], "weight_names") or []
        count += 1 + len(weight_names)
        if count > _MAX_VARIABLES:
            raise Unsafe(f"a list of more than {_MAX_VARIABLES} layers and variables", "a network's")
        group = f"{root.name}/{layer}".lstrip("/")
        layers.append((layer, [(weight.removesuffix(":0"), f"{group}/{weight}") for weight in weight_names]))
    return layers


def _names_in_attributes(group: Any, attribute: str) -> list[str] | None:
    """A list of names in an attribute, or, of a long one, in several that are numbered from 0; None without any."""
    parts = [group.attrs[attribute]] if attribute in group.attrs else []
    while f"{attribute}{len(parts)}" in group.attrs:
        parts.append(group.attrs[f"{attribute}{len(parts)}"])
    return list(_texts(parts)) if parts else None


def _texts(parts: list[Any]) -> Iterator[str]:
    for part in parts:
        for name in part:
            if not isinstance(name, bytes | str):
                raise TypeError(f"a name of type {type(name).__name__} in the list of layers or variables")
            yield name.decode() if isinstance(name, bytes) else str(name)


def _name(path: str, dataset: Any) -> str:
    """Name of a variable in a Keras file: its path in Keras 2's files, `<layer name>/vars/<index>` in Keras 3's."""
    if path.endswith(":0"):  # Keras 2: [model_weights/]<layer>/<variable path>:0
        return path.removeprefix("model_weights/").partition("/")[2].removesuffix(":0")
    layer = dataset.parent.attrs.get("name")  # Keras 3: .../vars/<index>, with the layer's name on `vars`
    return f"{layer}/vars/{path.rpartition('/')[2]}" if layer else path


if __name__ == "__main__":
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the training, which decides when to end
    main(sys.argv[1], int(sys.argv[2]))
