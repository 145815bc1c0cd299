"""The folder that a training keeps: its --model_dir, or a local one that a --model_dir in a bucket follows.

TensorFlow never sees gs://. What it wrote is uploaded while training goes on, TensorFlow's `checkpoint` file last:
whoever reads the bucket, and a training that is resumed from there, meets whole checkpoints only.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from tf_image_classification import storage
from tf_image_classification.checkpoints import state
from tf_image_classification.errors import ConflictError, FlagError, TrainingError
from tf_image_classification.storage.local_files import Stat
from tf_image_classification.training.background import Background
from tf_image_classification.training.history import HISTORY_FILE

_log = logging.getLogger(__name__)

CHECKPOINT_NAME = "model.ckpt"
CHECKPOINTS_KEPT = 5
WARM_START_FILE = "warm_start.json"
_OF_CHECKPOINT = re.compile(re.escape(CHECKPOINT_NAME) + r"-\d+(?=\.(index|data-\d{5}-of-\d{5})$)")


class TrainingFolder:
    """A local folder that only this training writes to.

    Attributes:
        path: as messages and other processes name it.
        local: where TensorFlow reads and writes it.
    """

    def __init__(self, path: str, local: str) -> None:
        self.path, self.local = path, local

    def fetch(self, checkpoint: str) -> None:
        """Makes the files of a checkpoint local that the folder lists.

        Args:
            checkpoint: its prefix in the local folder.

        Raises:
            FileNotFoundError: they are not there.
        """

    def take_over(self) -> None:
        """Says that this training goes on from here, before it writes anything."""

    def publish(self, checkpoint: str) -> None:
        """Hands on a checkpoint that is whole, and all that belongs to it, without waiting."""

    def follow(self) -> None:
        """Hands on summaries and history as they are now, without waiting."""

    def check(self) -> None:
        """Raises what has kept the folder from being handed on.

        Raises:
            TrainingError: it cannot be written any more, or another training has taken over.
        """

    def finish(self) -> None:
        """Waits until all is handed on.

        Raises:
            TrainingError: as `check`.
        """


@contextlib.contextmanager
def opened(path: str) -> Iterator[TrainingFolder]:
    """The folder of a training for as long as the block runs; what was written is handed on whichever way the block
    ends.

    Raises:
        FlagError: it cannot be written to, or another process of this machine is at work in it.
        TrainingError: as `TrainingFolder.check`.
    """
    if not storage.is_gcs(path):
        with storage.exclusive(path):
            yield TrainingFolder(path, path)
        return
    local = tempfile.mkdtemp(prefix="tfic-training-")
    keep = False
    try:
        folder = _BucketFolder(path.rstrip("/"), local)
        try:
            yield folder
            folder.finish()
        except KeyboardInterrupt:  # asked twice: at once
            raise
        except BaseException:
            folder.settle()
            raise
        finally:
            keep = folder.has_more
    finally:
        if not keep:
            shutil.rmtree(local, ignore_errors=True)


def is_summary(name: str) -> bool:
    """Whether a file of this name holds summaries for TensorBoard."""
    return "tfevents" in name


class _BucketFolder(TrainingFolder):
    """A folder in a bucket, and the local one that it follows.

    Two trainings may have it at once, for example a lost one and its retry. The version of the `checkpoint` object
    tells: a training writes only over the version that it has read or written itself, and stops when it finds another.
    """

    def __init__(self, path: str, local: str) -> None:
        super().__init__(path, local)
        self._state = storage.join(path, state.FILE)
        self._listed: dict[str, float] = {}
        self._content: bytes | None = None
        self._version = 0
        self._names = self._look()
        self._staged: str | None = None
        self._lock = threading.Lock()
        self._uploaded: dict[str, Stat] = {}
        self._background = Background(self._upload)

    @property
    def has_more(self) -> bool:
        """Whether something has not been uploaded that should have been."""
        return self._background.error is not None and not isinstance(self._background.error, ConflictError)

    def fetch(self, checkpoint: str) -> None:
        name = os.path.basename(checkpoint)
        files = sorted(file for file in self._names if file.startswith((f"{name}.index", f"{name}.data-")))
        if f"{name}.index" not in files:
            raise FileNotFoundError(f"{storage.join(self.path, name)}.index is missing")
        with tempfile.TemporaryDirectory(dir=self.local, prefix=".fetched-") as aside:
            for file in files:
                # Copied, not moved: where the bucket is mounted, what is fetched is the object itself.
                shutil.copyfile(storage.fetch(storage.join(self.path, file), aside), os.path.join(self.local, file))

    def take_over(self) -> None:
        # Of two trainings that go on from one checkpoint, the older one learns by this that it is no longer alone.
        try:
            self._write_state(self._listed)
        except ConflictError as error:
            raise self._lost() from error

    def publish(self, checkpoint: str) -> None:
        self.check()
        # Linked, because the manager removes old checkpoints whether they are uploaded or not.
        staged = tempfile.mkdtemp(dir=self.local, prefix=".staged-")
        for file in Path(self.local).glob(f"{os.path.basename(checkpoint)}.*"):
            os.link(file, os.path.join(staged, file.name))
        with self._lock:
            waiting, self._staged = self._staged, staged
        if waiting is not None:  # saving is faster than uploading: the newest is what counts
            shutil.rmtree(waiting)
        self._background.ask()

    def follow(self) -> None:
        self._background.ask()

    def check(self) -> None:
        error = self._background.error
        if isinstance(error, ConflictError):
            raise self._lost() from error
        if error is not None:
            raise TrainingError(
                f"What training has made cannot be uploaded to {self.path}",
                received=str(error) or type(error).__name__,
                hint=f"It is kept in {self.local}, with {state.latest(self.local)} as its newest checkpoint. Run again "
                f"with --model_dir {self.local} to go on from there, or as before to go on from the last checkpoint "
                "that was uploaded.",
            ) from error

    def finish(self) -> None:
        self.follow()
        self._background.wait()
        self.check()

    def settle(self) -> None:
        """Hands on what there is after an error, which is to be told rather than that this fails too."""
        if self._background.error is None:
            self.follow()
            self._background.wait()
            if self.has_more:
                _log.warning("Not everything is in %s (%s): %s holds it", self.path, self._background.error, self.local)

    def _look(self) -> list[str]:
        """Takes over what the bucket has, except the checkpoints themselves; returns the names of its files."""
        names = storage.names_in(self.path)
        if not names:
            try:
                storage.check_bucket(self.path)
            except FileNotFoundError:
                raise FlagError(
                    "The bucket of --model_dir does not exist", received=self.path, expected="one that does"
                ) from None
        self._content, self._version = storage.read_version(self._state)
        if self._content is not None:
            self._listed = state.parse(self._content.decode(), self.path)
            storage.write_text(os.path.join(self.local, state.FILE), state.render(self._listed))
        for name in (HISTORY_FILE, WARM_START_FILE):
            if name in names:
                content, _ = storage.read_version(storage.join(self.path, name))
                storage.write_bytes(os.path.join(self.local, name), content or b"")
        return names

    def _upload(self) -> None:
        """Uploads the checkpoint that waits, if there is one, and what goes with it."""
        with self._lock:
            staged, self._staged = self._staged, None
        self._check_own()
        if staged is None:
            self._upload_logs()
            return
        files = sorted(os.listdir(staged))  # the data before the .index
        for file in files:
            storage.upload(os.path.join(staged, file), storage.join(self.path, file))
        self._upload_logs()
        name = files[-1].removesuffix(".index")
        listed = {other: saved for other, saved in self._listed.items() if other != name} | {name: time.time()}
        self._write_state(dict(list(listed.items())[-CHECKPOINTS_KEPT:]))
        shutil.rmtree(staged)
        _log.info("Uploaded %s", storage.join(self.path, name))
        for file in storage.names_in(self.path):
            # Also what a training left that was killed before it could list it.
            if (match := _OF_CHECKPOINT.match(file)) and match[0] not in self._listed:
                storage.delete(storage.join(self.path, file))

    def _upload_logs(self) -> None:
        """Uploads summaries, history, and what the training was started from, as far as they have changed."""
        for file in storage.walk(self.local):
            name = os.path.basename(file.path)
            if (name in (HISTORY_FILE, WARM_START_FILE) or is_summary(name)) and self._uploaded.get(file.path) != file:
                target = storage.join(self.path, *os.path.relpath(file.path, self.local).split(os.sep))
                storage.write_bytes(target, Path(file.path).read_bytes())
                self._uploaded[file.path] = file

    def _write_state(self, listed: dict[str, float]) -> None:
        # The first line is no other writer's: it tells whose content is there.
        content = f"# {uuid.uuid4().hex}\n{state.render(listed)}".encode()
        storage.write_bytes(self._state, content, if_version=self._version)
        self._content, self._listed = content, listed
        self._check_own()

    def _check_own(self) -> None:
        content, version = storage.read_version(self._state)
        if content != self._content:
            raise ConflictError("Another training has written this", received=self._state)
        self._version = version

    def _lost(self) -> TrainingError:
        return TrainingError(
            f"Another training has taken over {self.path}",
            received="a checkpoint file that this process has not written",
            expected="one training at a time in a --model_dir",
            hint="This one stops; what the other one writes is whole.",
        )
