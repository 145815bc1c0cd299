"""The data of a training command: built by the chief, read by the other workers."""

from __future__ import annotations

import contextlib
import logging
import time
import zlib
from typing import TYPE_CHECKING

from tf_image_classification import storage
from tf_image_classification.build_tfrecords import prepare
from tf_image_classification.cluster import Role
from tf_image_classification.data import manifest as manifests
from tf_image_classification.data.manifest import Manifest
from tf_image_classification.data.sources import ReadOptions
from tf_image_classification.errors import MissingDataError
from tf_image_classification.flags import Flags
from tf_image_classification.training import checkpoint_evaluation, presence

if TYPE_CHECKING:
    from tf_image_classification.training.workers import Workers

_log = logging.getLogger(__name__)

_VISIBLE_SECONDS = 60.0  # until all machines see a new file: network file systems cache listings


def prepare_data(flags: Flags, workers: Workers) -> Manifest:
    """The data set of --train_metadata, built in --model_dir unless it is there already.

    The chief builds it, however long that takes; the other workers wait for it, then read what it wrote.

    Raises:
        FlagError, DataError, UserError: as `prepare.prepare_training`.
        MissingDataError: a worker does not see what the chief wrote.
    """
    cache_dir = prepare.default_cache_dir(flags.model_dir)
    if workers.task.role == Role.EVALUATOR:
        checkpoint_evaluation.wait_for_checkpoint(flags.model_dir, workers.task)
        return manifests.read(cache_dir)
    if not workers.is_chief:
        _log.info("Waiting for the chief to check the data, or to build it")
        return _read(cache_dir, digest=workers.of_chief(0))
    # For those that wait for the chief, where TensorFlow does not listen at its address yet.
    with contextlib.nullcontext() if workers.task.is_synchronous else presence.announced(workers.task):
        data = prepare.prepare_training(
            flags.train_metadata,
            cache_dir,
            eval_metadata=flags.eval_metadata,
            labels_file=flags.labels_file,
            eval_fraction=flags.eval_fraction,
            options=ReadOptions.of(flags),
            allow_missing_classes=flags.allow_missing_classes,
            max_duplicates_across_splits=flags.max_duplicates_across_splits,
            workers=flags.workers,
        )
    workers.of_chief(_digest(data))
    return data


def _read(folder: str, digest: int) -> Manifest:
    """The data set in a folder, once it is the one that the chief has."""
    end = time.monotonic() + _VISIBLE_SECONDS
    while time.monotonic() < end:
        if storage.exists(storage.join(folder, manifests.FILE_NAME)):
            data = manifests.read(folder)
            if _digest(data) == digest:
                return data
        time.sleep(1.0)
    raise MissingDataError(
        "This worker does not see the data set that the chief built",
        received=f"no such manifest in {folder} within {_VISIBLE_SECONDS:g} s",
        expected="--model_dir on a file system or in a bucket that all machines of the cluster share",
    )


def _digest(data: Manifest) -> int:
    return zlib.crc32(data.fingerprint.encode())
