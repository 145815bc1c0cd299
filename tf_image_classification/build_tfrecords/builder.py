"""Builds data sets: of training and evaluation data, of evaluation data alone, or only the checks of one."""

from __future__ import annotations

from collections.abc import Sequence

from tf_image_classification.build_tfrecords import local
from tf_image_classification.build_tfrecords.beam_runner import BeamRunner
from tf_image_classification.build_tfrecords.data_set_build import CHECK_FILE, DataSetBuild
from tf_image_classification.build_tfrecords.shards import SHARD_BYTES
from tf_image_classification.data import manifest
from tf_image_classification.data.fingerprint import listed
from tf_image_classification.data.manifest import EVAL, TRAIN, Manifest, Task
from tf_image_classification.data.sources import AS_GIVEN, ReadOptions


def build(
    train_metadata: str,
    output_dir: str,
    *,
    eval_metadata: str | None = None,
    labels_file: str | None = None,
    eval_fraction: float = 0.2,
    options: ReadOptions = AS_GIVEN,
    allow_missing_classes: bool = False,
    max_duplicates_across_splits: int | None = None,
    workers: int | None = None,
    runner: BeamRunner | None = None,
    fingerprint: str = "",
    shard_bytes: int = SHARD_BYTES,
) -> Manifest:
    """Builds a data set of a training and an evaluation split. Equal inputs give equal shards, whatever the number of
    workers, here or on a runner of Apache Beam.

    TFRecords given as metadata are checked and listed, not copied.

    Args:
        train_metadata: see sources.expand.
        output_dir: folder or gs:// folder; appears, or replaces an older data set, when everything is written.
        eval_metadata: None holds out `eval_fraction` of the training images, or takes the evaluation split of a built
            data set.
        labels_file: class names by id; None takes the sorted names of the training images.
        options: how the metadata is read.
        allow_missing_classes: accept classes without a training example.
        max_duplicates_across_splits: most evaluation images that may be near duplicates of training images; None for
            any number.
        workers: processes; None takes one per core.
        runner: checks the images and writes the shards; None: this machine.
        fingerprint: of the sources; '' computes it.
        shard_bytes: a shard holds this much to twice that.

    Raises:
        FlagError: the metadata names nothing, or the output cannot be written there.
        DataError: the images, labels or TFRecords cannot be used.
        UserError: the disk is full, a worker process died, and the like.
    """
    given = {TRAIN: train_metadata} | ({EVAL: eval_metadata} if eval_metadata else {})
    labels = manifest.read_labels(labels_file, numbered=True) if labels_file else None
    work = DataSetBuild(
        given,
        options,
        eval_fraction,
        allow_missing_classes,
        workers or local.cores(),
        shard_bytes,
        max_duplicates_across_splits,
        runner,
    )
    work.check_output(output_dir, manifest.FILE_NAME)
    known = fingerprint or listed(
        train_metadata, eval_metadata, labels_file=labels_file, eval_fraction=eval_fraction, options=options
    )
    return work.write(output_dir, labels, None, known)


def check(
    train_metadata: str,
    output_dir: str | None = None,
    *,
    eval_metadata: str | None = None,
    labels_file: str | None = None,
    eval_fraction: float = 0.2,
    options: ReadOptions = AS_GIVEN,
    allow_missing_classes: bool = False,
    max_duplicates_across_splits: int | None = None,
    workers: int | None = None,
) -> Manifest:
    """Does all that `build` does, except for writing shards and a manifest.

    Args:
        output_dir: folder or gs:// folder for statistics.html, rejected.csv and check.json; it may replace that of an
            earlier check, never a data set. None writes nothing.
        train_metadata, eval_metadata, labels_file, eval_fraction, options, allow_missing_classes,
            max_duplicates_across_splits, workers: as for `build`.

    Returns:
        What the manifest would be, with one nameless shard of each split that is built from images.

    Raises:
        FlagError, DataError, UserError: as for `build`.
    """
    given = {TRAIN: train_metadata} | ({EVAL: eval_metadata} if eval_metadata else {})
    labels = manifest.read_labels(labels_file, numbered=True) if labels_file else None
    work = DataSetBuild(
        given,
        options,
        eval_fraction,
        allow_missing_classes,
        workers or local.cores(),
        SHARD_BYTES,
        max_duplicates_across_splits,
    )
    if output_dir is not None:
        work.check_output(output_dir, CHECK_FILE)
    of_data = listed(
        train_metadata, eval_metadata, labels_file=labels_file, eval_fraction=eval_fraction, options=options
    )
    return work.check(output_dir, labels, of_data)


def build_eval(
    eval_metadata: str,
    output_dir: str,
    tasks: Sequence[Task],
    *,
    options: ReadOptions = AS_GIVEN,
    allow_missing_classes: bool = False,
    workers: int | None = None,
    fingerprint: str = "",
) -> Manifest:
    """Builds an evaluation split alone, for a model that exists.

    Args:
        tasks: the model's. Classes of the data that they do not have get further ids: their images are evaluated too.
        allow_missing_classes: accept TFRecords that do not name their classes and have fewer than the model.
        eval_metadata, output_dir, options, workers, fingerprint: as for `build`.

    Raises:
        FlagError, DataError, UserError: as for `build`.
    """
    given = {EVAL: eval_metadata}
    work = DataSetBuild(given, options, 1.0, allow_missing_classes, workers or local.cores(), SHARD_BYTES)
    work.check_output(output_dir, manifest.FILE_NAME)
    return work.write(output_dir, None, tuple(tasks), fingerprint or listed(eval_metadata, options=options))
