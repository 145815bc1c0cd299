"""The look at a data set before a training: what its images show, as numbers, as pairs of pictures, and as a limit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tf_image_classification.build_tfrecords import pair_thumbnails
from tf_image_classification.build_tfrecords.near_duplicates import (
    ACROSS_SPLITS,
    OTHER_LABELS,
    WITHIN_SPLIT,
    DuplicateIndex,
)
from tf_image_classification.build_tfrecords.statistics import Pixels, ShownPair
from tf_image_classification.data.manifest import TRAIN, Quality, Split, Task
from tf_image_classification.data.sources import ClassFolder, ImageRoots, ImageSource, Source, folder_layout
from tf_image_classification.data.tasks import MAX_NAMED_CLASSES
from tf_image_classification.errors import DataError, FlagError, abridged

SMALL_CLASS = 20  # training examples; TensorFlow's retrain.py warned below this number

_PAIRS_SHOWN = 12  # of each kind
_PAIRS_NAMED = 5


def measure(duplicates: DuplicateIndex, pixels: Pixels, splits: Mapping[str, Split], tasks: Sequence[Task]) -> Quality:
    """What the images of a build show.

    Args:
        duplicates: of all images that were written.
        pixels: their sizes.
        splits, tasks: of the data set.
    """
    near, identical = duplicates.find()
    small_classes = {}
    for task in tasks if TRAIN in splits else ():
        counts = splits[TRAIN].class_counts[task.name]
        small_classes[task.name] = {label: count for label, count in counts.items() if count < SMALL_CLASS}
    return Quality(
        near_duplicates=near,
        identical=identical,
        shorter_side_below=pixels.shorter_sides_below(),
        classes_below=SMALL_CLASS,
        small_classes=small_classes,
    )


def shown_pairs(duplicates: DuplicateIndex, roots: ImageRoots) -> dict[str, list[ShownPair]]:
    """The closest pairs of each kind that has some, for the statistics page. Reads their images again."""
    found = {kind: duplicates.pairs(kind, _PAIRS_SHOWN) for kind in (ACROSS_SPLITS, OTHER_LABELS, WITHIN_SPLIT)}
    pictures = [picture for pairs in found.values() for pair in pairs for picture in (pair.first, pair.second)]
    thumbnails = pair_thumbnails.of_all([picture.path for picture in pictures], roots)
    return {
        kind: [ShownPair(pair, (thumbnails[pair.first.path], thumbnails[pair.second.path])) for pair in pairs]
        for kind, pairs in found.items()
        if pairs
    }


def warnings(found: Quality) -> list[str]:
    """What makes an evaluation wrong or a training worse, a line each."""
    near = found.near_duplicates
    lines = []
    if near.across_splits:
        lines.append(
            f"{near.across_splits:,} evaluation images are near duplicates of training images: the evaluation will be "
            "too good"
        )
    if near.other_labels:
        lines.append(f"{near.other_labels:,} images have a near duplicate with another label")
    return lines


def remarks(found: Quality) -> list[str]:
    """What else there is to know of the images, a line each."""
    near = found.near_duplicates
    lines = [f"{near.train:,} training and {near.eval:,} evaluation images have a near duplicate in their own split"]
    for task, counts in found.small_classes.items():
        if counts:
            names = abridged(list(counts), MAX_NAMED_CLASSES)
            lines.append(f"{len(counts):,} classes of {task} have fewer than {SMALL_CLASS} training images: {names}")
    sizes = ", ".join(f"{count:,} below {side}" for side, count in found.shorter_side_below.items() if count)
    if sizes:
        lines.append(f"Images by their shorter side in pixels: {sizes}")
    return lines


def check_across_splits(found: Quality, limit: int | None, duplicates: DuplicateIndex | None = None) -> None:
    """Checks that not more evaluation images than allowed are near duplicates of training images.

    Args:
        found: of the data set.
        limit: of --max_duplicates_across_splits; None for any number.
        duplicates: to name the first pairs.

    Raises:
        DataError: there are more.
    """
    count = found.near_duplicates.across_splits
    if limit is None or count <= limit:
        return
    pairs = duplicates.pairs(ACROSS_SPLITS, _PAIRS_NAMED) if duplicates else []
    named = "; ".join(f"{pair.second.filename} of {pair.first.filename}" for pair in pairs)
    raise DataError(
        "Evaluation images are near duplicates of training images: the evaluation would be too good",
        received=f"{count:,} images" + (f", such as {named}" if named else ""),
        expected=f"at most {limit:,} (--max_duplicates_across_splits)",
        hint=(
            "Remove them from one of the splits, or give both splits as --train_metadata and --eval_metadata with all "
            "copies of a picture on one side. --check with --output_dir writes a page that shows the pairs."
        ),
    )


def check_images_only(sources: Iterable[Source]) -> None:
    """Checks that all images are compared, as --max_duplicates_across_splits needs it.

    Raises:
        FlagError: some are in TFRecords.
    """
    for source in sources:
        if not isinstance(source, ImageSource):
            raise FlagError(
                "--max_duplicates_across_splits does not compare images in TFRecords",
                received=source.path,
                expected="images in folders or CSVs, for both splits",
                hint="Give the flag where the TFRecords are built from images.",
            )


def check_several_classes(tasks: Sequence[Task], sources: Iterable[Source]) -> None:
    """Checks that every task has something to learn.

    Raises:
        DataError: one has a single class.
    """
    folders = [source.path for source in sources if isinstance(source, ClassFolder)]
    for task in tasks:
        if len(task.labels) == 1:
            inner = next(filter(None, map(folder_layout.inner_folder, folders)), None)
            raise DataError(
                "The data set has a single class: there is nothing to learn",
                received=task.labels[0] + (f" as {task.name}" if len(tasks) > 1 else ""),
                expected="two or more",
                hint=f"If the classes are the sub-folders of {inner}, give this folder." if inner else "",
            )
