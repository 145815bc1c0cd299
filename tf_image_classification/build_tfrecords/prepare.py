"""The data set behind the metadata of a training or an evaluation: built, or taken from where it was built before."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tf_image_classification import storage
from tf_image_classification.build_tfrecords.builder import build, build_eval
from tf_image_classification.build_tfrecords.quality import check_across_splits
from tf_image_classification.data import manifest
from tf_image_classification.data.fingerprint import fingerprint
from tf_image_classification.data.manifest import Manifest, Task
from tf_image_classification.data.sources import AS_GIVEN, ReadOptions
from tf_image_classification.data.tasks import named_as_in_data


def prepare_training(
    train_metadata: str,
    cache_dir: str,
    *,
    eval_metadata: str | None = None,
    labels_file: str | None = None,
    eval_fraction: float = 0.2,
    options: ReadOptions = AS_GIVEN,
    allow_missing_classes: bool = False,
    max_duplicates_across_splits: int | None = None,
    workers: int | None = None,
) -> Manifest:
    """The data set of a training: built into `cache_dir`, or taken from there if the sources have not changed since.

    TFRecords are checked and listed, not copied.

    Args:
        train_metadata, eval_metadata, labels_file, eval_fraction, options, allow_missing_classes,
            max_duplicates_across_splits, workers: see `build`.

    Raises:
        FlagError, DataError, UserError: see `build`.
    """
    data = _cached(
        cache_dir,
        fingerprint(
            train_metadata, eval_metadata, labels_file=labels_file, eval_fraction=eval_fraction, options=options
        ),
        lambda current: build(
            train_metadata,
            cache_dir,
            eval_metadata=eval_metadata,
            labels_file=labels_file,
            eval_fraction=eval_fraction,
            options=options,
            allow_missing_classes=allow_missing_classes,
            max_duplicates_across_splits=max_duplicates_across_splits,
            workers=workers,
            fingerprint=current,
        ),
        needs_quality=max_duplicates_across_splits is not None,
    )
    if data.quality is not None:
        check_across_splits(data.quality, max_duplicates_across_splits)
    return data


def prepare_evaluation(
    eval_metadata: str,
    tasks: Sequence[Task],
    *,
    cache_dir: str,
    options: ReadOptions = AS_GIVEN,
    allow_missing_classes: bool = False,
    workers: int | None = None,
) -> Manifest:
    """An evaluation split for a model that exists: its own classes decide the ids.

    Args:
        tasks: the model's.
        cache_dir: images that are not given as TFRecords are built into shards here.
        eval_metadata, options, allow_missing_classes, workers: see `build_eval`.

    Raises:
        FlagError, DataError, UserError: see `build`.
    """
    return _cached(
        cache_dir,
        fingerprint(eval_metadata, options=options),
        lambda current: build_eval(
            eval_metadata,
            cache_dir,
            named_as_in_data(tasks),
            options=options,
            allow_missing_classes=allow_missing_classes,
            workers=workers,
            fingerprint=current,
        ),
    )


def default_cache_dir(model_dir: str) -> str:
    """Where a training keeps the shards that it built from a CSV or a folder."""
    return storage.join(model_dir, "data")


def _cached(
    cache_dir: str, current: str, build_data: Callable[[str], Manifest], *, needs_quality: bool = False
) -> Manifest:
    """The data set in `cache_dir` if it is of the `current` fingerprint and whole, else the one that is built."""
    if storage.exists(storage.join(cache_dir, manifest.FILE_NAME)):
        found = manifest.read(cache_dir)
        is_enough = found.quality is not None or not needs_quality  # an earlier version did not look
        if is_enough and found.fingerprint == current and _has_all_shards(found):
            return found
    return build_data(current)


def _has_all_shards(data: Manifest) -> bool:
    """Whether the shards of a data set are there. Of a hundred thousand in a bucket, one listing tells."""
    names = set(storage.names_in(data.folder)) if storage.is_remote(data.folder) else ()
    for split, of_split in data.splits.items():
        for shard, path in zip(of_split.shards, data.shard_paths(split), strict=True):
            if shard.path not in names and not storage.exists(path):
                return False
    return True
