"""The folder that a training writes to: its --model_dir, or a local one that is uploaded to a --model_dir in a bucket.

TensorFlow never sees gs:// or s3://. What it writes is uploaded while training continues, TensorFlow's `checkpoint`
file last: a reader of the bucket, and a training that resumes from it, find complete checkpoints only.
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
from tf_image_classification.checkpoints import checkpoint_file
from tf_image_classification.errors import ConflictError, TrainingError
from tf_image_classification.training import best_models
from tf_image_classification.training.background import BackgroundWorker
from tf_image_classification.training.history import HISTORY_FILE

_log = logging.getLogger(__name__)

CHECKPOINT_NAME = "model.ckpt"  # as tf.estimator's: model.ckpt-<global step>
CHECKPOINTS_KEPT = 5  # tf.estimator's keep_checkpoint_max
WARM_START_FILE, ESTIMATOR_FILE = "warm_start.json", "estimator.json"  # of hooks.load_checkpoint, estimator_record
AUGMENTATION_FILE = "augmentation.html"  # written by augmentation_page.write
_SMALL_FILES = (HISTORY_FILE, WARM_START_FILE, ESTIMATOR_FILE)
_CHECKPOINT_FILE = re.compile(re.escape(CHECKPOINT_NAME) + r"-\d+(?=\.(index|data-\d{5}-of-\d{5})$)")


class TrainingFolder:
    """The folder of a training, open: only this training writes to `local`.

    This class is a local --model_dir, where what is written is published already; a folder in a bucket overrides every
    method. The training's thread calls them, in this order: `fetch` and `claim` if it resumes from a checkpoint, then
    `publish_checkpoint`, `publish_logs` and `check` any number of times, then `finish`.

    Attributes:
        path: --model_dir, as messages and other processes name it.
        local: where TensorFlow reads and writes. The same as `path` if that is local.
    """

    def __init__(self, path: str, local: str) -> None:
        self.path, self.local = path, local

    def fetch(self, checkpoint: str) -> None:
        """Makes the files of a checkpoint in the folder available in `local`.

        In a bucket: downloads them; opening the folder has downloaded only the list of checkpoints and the history.

        Args:
            checkpoint: its prefix in the local folder.

        Raises:
            FileNotFoundError: the folder has no such checkpoint.
        """

    def claim(self) -> None:
        """Declares, before anything is written, that this training continues from the folder's newest checkpoint.

        In a bucket: rewrites the `checkpoint` object, by which another training in the same folder notices.

        Raises:
            TrainingError: another training has claimed it since it was opened.
        """

    def publish_checkpoint(self, checkpoint: str) -> None:
        """Publishes a complete checkpoint, and the summaries and history as they are now.

        In a bucket: returns at once; of checkpoints that wait for their upload, the newest alone is uploaded.

        Args:
            checkpoint: its prefix in the local folder. Its files may be removed after the call.

        Raises:
            TrainingError: as `check`.
        """

    def publish_logs(self) -> None:
        """Publishes summaries and history as they are now.

        In a bucket: returns at once.
        """

    def write_best_model(self, step: int, content: bytes) -> None:
        """Keeps the model of an evaluation, and that of the last one before it; removes older ones and later ones.

        Args:
            step: the evaluation's global step.
        """
        storage.write_bytes(os.path.join(self.local, best_models.file_name(step)), content)
        for name in best_models.outdated(os.listdir(self.local), step):
            os.remove(os.path.join(self.local, name))

    def read_best_model(self, step: int) -> bytes:
        """The content that `write_best_model` has kept, in this training or the one that it continues.

        Raises:
            FileNotFoundError: there is none.
        """
        return Path(self.local, best_models.file_name(step)).read_bytes()

    def check(self) -> None:
        """Raises the failure of an upload, once there is one. Cheap enough to be called after each step.

        Raises:
            TrainingError: the folder cannot be written any more, or another training has taken over.
        """

    def finish(self) -> None:
        """Publishes what is left, and waits until everything is.

        Raises:
            TrainingError: as `check`.
        """


@contextlib.contextmanager
def open_folder(path: str) -> Iterator[TrainingFolder]:
    """The folder of a training for the block; what was written is published whichever way the block ends.

    Only a second Ctrl-C ends it without waiting for uploads. A local copy of which a part was not uploaded is kept.

    Raises:
        FlagError: the folder cannot be written to, or another process of this machine has it open.
        TrainingError: as `TrainingFolder.check`.
    """
    if not storage.is_remote(path):
        with storage.exclusive(path):
            checkpoint_file.remove_unfinished(path, CHECKPOINT_NAME)
            yield TrainingFolder(path, path)
        return
    local = tempfile.mkdtemp(prefix="tfic-training-")
    keep = False
    try:
        folder = _BucketFolder(path.rstrip("/"), local)
        try:
            yield folder
            folder.finish()
        except KeyboardInterrupt:  # the second Ctrl-C
            raise
        except BaseException:
            folder.finish_after_error()
            raise
        finally:
            keep = folder.has_unpublished
    finally:
        if not keep:
            shutil.rmtree(local, ignore_errors=True)


def is_summary(name: str) -> bool:
    """Whether a file of this name holds summaries for TensorBoard, or a profile."""
    return "tfevents" in name or name.endswith(".xplane.pb")


class _BucketFolder(TrainingFolder):
    """A folder in a bucket, and the local one that is uploaded to it.

    Two trainings may have it open at once, for example a lost one and its retry. The `checkpoint` object's version
    (Cloud Storage's generation, S3's ETag) tells them apart: a training overwrites only the version that it has read or
    written itself, and stops when it finds another.

    Two threads: the training's calls the methods, the worker's runs `_upload`. `_staged` is both's, under `_lock`.
    `_listed`, `_content` and `_version` are the training's until its first request to the worker, then the worker's;
    `_uploaded` is the worker's, `_names` the training's.
    """

    def __init__(self, path: str, local: str) -> None:
        super().__init__(path, local)
        self._checkpoint_object = storage.join(path, checkpoint_file.FILE)
        self._listed: dict[str, float] = {}  # checkpoints in the `checkpoint` object -> time, oldest first
        self._content: bytes | None = None  # of the `checkpoint` object, as this training knows it
        self._version: storage.Version = 0  # of that object; 0 if there is none
        self._names = self._download_small_files()  # of all files in the bucket's folder, when it was opened
        self._staged: str | None = None  # folder of the checkpoint that waits for its upload
        self._lock = threading.Lock()
        self._uploaded: dict[str, storage.Stat] = {}  # path of summaries and history -> their state when last uploaded
        self._worker = BackgroundWorker(self._upload)

    @property
    def has_unpublished(self) -> bool:
        """Whether an upload has failed, so that `local` has the only copy of something. Not after a conflict: the other
        training's files count."""
        return self._worker.error is not None and not isinstance(self._worker.error, ConflictError)

    def fetch(self, checkpoint: str) -> None:
        name = os.path.basename(checkpoint)
        files = sorted(file for file in self._names if file.startswith((f"{name}.index", f"{name}.data-")))
        if f"{name}.index" not in files:
            raise FileNotFoundError(f"{storage.join(self.path, name)}.index is missing")
        with tempfile.TemporaryDirectory(dir=self.local, prefix=".fetched-") as staging:
            for file in files:
                fetched = storage.fetch(storage.join(self.path, file), staging)
                # Copied, not moved: where the bucket is mounted, this is the object itself.
                shutil.copyfile(fetched, os.path.join(self.local, file))

    def claim(self) -> None:
        # Of two trainings that continue from one checkpoint, the older one learns by this that it is no longer alone.
        try:
            self._write_checkpoint_object(self._listed)
        except ConflictError as error:
            raise self._taken_over() from error

    def publish_checkpoint(self, checkpoint: str) -> None:
        self.check()
        # Linked, because the manager removes old checkpoints whether they are uploaded or not.
        staged = tempfile.mkdtemp(dir=self.local, prefix=".staged-")
        for file in Path(self.local).glob(f"{os.path.basename(checkpoint)}.*"):
            os.link(file, os.path.join(staged, file.name))
        with self._lock:
            waiting, self._staged = self._staged, staged
        if waiting is not None:  # saving is faster than uploading: only the newest counts
            shutil.rmtree(waiting)
        self._worker.request()

    def publish_logs(self) -> None:
        self._worker.request()

    def read_best_model(self, step: int) -> bytes:
        if os.path.exists(os.path.join(self.local, best_models.file_name(step))):
            return super().read_best_model(step)
        content, _ = storage.read_version(storage.join(self.path, best_models.file_name(step)))
        if content is None:
            raise FileNotFoundError(f"{storage.join(self.path, best_models.file_name(step))} is missing")
        return content

    def check(self) -> None:
        error = self._worker.error
        if isinstance(error, ConflictError):
            raise self._taken_over() from error
        if error is not None:
            newest = checkpoint_file.latest(self.local)
            raise TrainingError(
                f"The training's files cannot be uploaded to {self.path}",
                received=str(error) or type(error).__name__,
                hint=f"They are kept in {self.local}, with {newest} as the newest checkpoint. Run again with "
                f"--model_dir {self.local} to continue from there, or as before to continue from the last checkpoint "
                "that was uploaded.",
            ) from error

    def finish(self) -> None:
        self.publish_logs()
        self._worker.wait()
        self.check()

    def finish_after_error(self) -> None:
        """As `finish`, but only logs a failure: the error that ended the training is the one to raise."""
        if self._worker.error is None:
            self.publish_logs()
            self._worker.wait()
            if self.has_unpublished:
                _log.warning(
                    "Upload to %s failed (%s): files are kept in %s", self.path, self._worker.error, self.local
                )

    def _download_small_files(self) -> list[str]:
        """Downloads the `checkpoint` object, history and warm start; returns the names of the folder's files.

        Raises:
            FlagError: the bucket does not exist, or does not let objects be replaced.
        """
        storage.check_overwritable(self.path, "A training replaces its checkpoints and history in --model_dir")
        names = storage.names_in(self.path)
        self._content, self._version = storage.read_version(self._checkpoint_object)
        if self._content is not None:
            self._listed = checkpoint_file.parse(self._content, self.path)
            storage.write_text(os.path.join(self.local, checkpoint_file.FILE), checkpoint_file.render(self._listed))
        for name in _SMALL_FILES:
            if name in names:
                content, _ = storage.read_version(storage.join(self.path, name))
                storage.write_bytes(os.path.join(self.local, name), content or b"")
        return names

    def _upload(self) -> None:
        """Uploads the staged checkpoint, if there is one, and the logs; removes checkpoints that are not kept.

        Runs in the worker's thread.

        Raises:
            ConflictError: another training has written the `checkpoint` object.
        """
        with self._lock:
            staged, self._staged = self._staged, None
        self._check_own()
        if staged is None:
            self._upload_logs()
            return
        files = sorted(os.listdir(staged))  # .data-* before .index
        for file in files:
            storage.upload(os.path.join(staged, file), storage.join(self.path, file))
        self._upload_logs()
        name = files[-1].removesuffix(".index")
        listed = {other: saved for other, saved in self._listed.items() if other != name} | {name: time.time()}
        self._write_checkpoint_object(dict(list(listed.items())[-CHECKPOINTS_KEPT:]))
        shutil.rmtree(staged)
        _log.info("Uploaded %s", storage.join(self.path, name))
        for file in storage.names_in(self.path):
            # Also the files of a training that was killed before it could list them.
            if (match := _CHECKPOINT_FILE.match(file)) and match[0] not in self._listed:
                with storage.tidying(storage.join(self.path, file)):
                    storage.delete(storage.join(self.path, file))

    def _upload_logs(self) -> None:
        """Uploads summaries, history, warm start, samples and best model, as far as they have changed."""
        for file in storage.walk(self.local):
            name = os.path.basename(file.path)
            is_log = name in (*_SMALL_FILES, AUGMENTATION_FILE) or is_summary(name) or best_models.is_model(name)
            if is_log and self._uploaded.get(file.path) != file:
                target = storage.join(self.path, *os.path.relpath(file.path, self.local).split(os.sep))
                storage.write_bytes(target, Path(file.path).read_bytes())
                self._uploaded[file.path] = file
        local = os.listdir(self.local)
        for name in storage.names_in(self.path) if best_models.is_complete(local) else ():
            if best_models.is_model(name) and name not in local:
                with storage.tidying(storage.join(self.path, name)):
                    storage.delete(storage.join(self.path, name))

    def _write_checkpoint_object(self, listed: dict[str, float]) -> None:
        # A unique comment: without it, two trainings could write equal content.
        content = f"# {uuid.uuid4().hex}\n{checkpoint_file.render(listed)}".encode()
        storage.write_bytes(self._checkpoint_object, content, if_version=self._version)
        self._content, self._listed = content, listed
        self._check_own()

    def _check_own(self) -> None:
        """Raises ConflictError if the `checkpoint` object is not the one that this training has read or written."""
        content, version = storage.read_version(self._checkpoint_object)
        if content != self._content:
            raise ConflictError("Another training has written this", received=self._checkpoint_object)
        self._version = version

    def _taken_over(self) -> TrainingError:
        return TrainingError(
            f"Another training has taken over {self.path}",
            received="a checkpoint file that this process has not written",
            expected="one training at a time in a --model_dir",
            hint="This one stops; the other one's checkpoints are complete.",
        )
