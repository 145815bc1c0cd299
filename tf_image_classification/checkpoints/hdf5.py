"""HDF5 files, read by a process of its own (`hdf5_worker`): a damaged one may crash the HDF5 library, or never end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import IO, Any, NamedTuple

import numpy as np

from tf_image_classification.checkpoints import hdf5_worker, refusal
from tf_image_classification.errors import CheckpointError

_SECONDS_TO_START = 120  # Python and h5py, from a cold or remote disk
_SECONDS, _BYTES_PER_SECOND = 8, 1_000_000  # for an answer: for any file, and for each so many bytes, of a slow mount


class Dataset(NamedTuple):
    """An array of numbers in the file: its HDF5 path, the name of its variable, and its shape."""

    key: str
    name: str
    shape: tuple[int, ...]


class Hdf5File:
    """An open HDF5 file.

    Attributes:
        datasets: of a file in Keras 2's layout those that its layers list, else all, in the file's order.
        layers: of a file in Keras 2's layout: (name, keys of its datasets); None for another layout.
    """

    def __init__(self, process: subprocess.Popen[bytes], path: str, shown_path: str) -> None:
        self._process, self._path = process, shown_path
        self._seconds = _SECONDS + os.path.getsize(path) / _BYTES_PER_SECOND
        with self._time_limit(_SECONDS_TO_START):
            self._answer()
        with self._time_limit(self._seconds):
            contents = self._answer()
        self.datasets = [Dataset(key, name, tuple(shape)) for key, name, shape in contents["datasets"]]
        self.layers: Sequence[tuple[str, Sequence[str]]] | None = contents["layers"] and [
            (layer, [key for _, key in weights]) for layer, weights in contents["layers"]
        ]

    def read(self, key: str) -> np.ndarray:
        """The array of a dataset of `datasets`.

        Raises:
            CheckpointError: the file is damaged.
        """
        with self._time_limit(self._seconds):
            with contextlib.suppress(BrokenPipeError):  # the process has died: no answer comes
                self._pipe(self._process.stdin).write(json.dumps(key).encode() + b"\n")
                self._pipe(self._process.stdin).flush()
            answer = self._answer()
            array = np.empty(answer["shape"], answer["dtype"])
            wanted = array.reshape(-1).view(np.uint8).data
            if self._pipe(self._process.stdout).readinto(wanted) != len(wanted):  # type: ignore[attr-defined]
                raise self._died()
        return array

    def _answer(self) -> dict[str, Any]:
        line = self._pipe(self._process.stdout).readline()
        if not line.endswith(b"\n"):
            raise self._died()
        answer: dict[str, Any] = json.loads(line)
        if "unsafe" in answer:
            raise refusal.unsafe(self._path, *answer["unsafe"])
        if "damaged" in answer:
            raise refusal.damaged(self._path, answer["damaged"])
        return answer

    @contextlib.contextmanager
    def _time_limit(self, seconds: float) -> Iterator[None]:
        """Kills the process if the block takes longer."""
        timer = threading.Timer(seconds, self._process.send_signal, [signal.SIGALRM])
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _died(self) -> CheckpointError:
        code = self._process.wait()
        if code in (-signal.SIGALRM, -signal.SIGXCPU):
            return refusal.damaged(self._path, "HDF5 did not finish reading it in the time for a file of its size")
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return refusal.damaged(self._path, f"HDF5 crashed while reading it ({how})")

    @staticmethod
    def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
        assert pipe is not None
        return pipe


@contextlib.contextmanager
def open_hdf5(path: str, shown_path: str) -> Iterator[Hdf5File]:
    """Opens an HDF5 file of arrays of numbers, and checks it before anything but metadata is read.

    Args:
        path: of a local file.
        shown_path: what errors call it.

    Raises:
        CheckpointError: it is damaged; or an array is in another file (external storage, a virtual dataset, a link), of
            another dtype than numbers, behind a filter that is a plugin, or larger than `refusal.max_unpacked`.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(os.path.abspath(folder) for folder in sys.path),  # the same packages as here
        "HDF5_PLUGIN_PRELOAD": "::",  # load none
        "OPENBLAS_NUM_THREADS": "1",  # each thread would take address space
    }
    limit = refusal.max_unpacked(os.path.getsize(path))
    process = subprocess.Popen(
        [sys.executable, "-P", hdf5_worker.__file__, path, str(limit)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # a crash prints there; it is reported as an error
        env=environment,
    )
    try:
        yield Hdf5File(process, path, shown_path)
    finally:
        process.kill()
        with contextlib.suppress(BrokenPipeError):
            process.communicate()
