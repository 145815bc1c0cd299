"""Which split each image of the metadata is in: the one that its list names, or by the hash of its path."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from tf_image_classification.build_tfrecords.image_index import BY_HASH, ImageIndex
from tf_image_classification.data import sources
from tf_image_classification.data.manifest import EVAL, TRAIN
from tf_image_classification.data.sources import ImageSource, ReadOptions
from tf_image_classification.data.sources.named_splits import TEST, TRAINING, UNASSIGNED, VALIDATION
from tf_image_classification.errors import MAX_NAMES, abridged

_log = logging.getLogger(__name__)


def fill(
    index: ImageIndex,
    image_sources: Mapping[str, Sequence[ImageSource]],
    given: Sequence[str],
    options: ReadOptions,
    eval_fraction: float,
) -> None:
    """Adds what the sources name to an index, and warns of what a user may not expect.

    Args:
        image_sources: `train` or `eval` -> the sources of that metadata which are images.
        given: the metadata that there is.
        eval_fraction: share of the training metadata's images that is evaluated, where there is no other metadata.
    """
    for metadata, of_images in image_sources.items():
        fraction = 1.0 if metadata == EVAL else 0.0 if EVAL in given else eval_fraction
        index.add(metadata, sources.read_entries(of_images, options), fraction)
        count, conflicts = index.reject_conflicts(metadata, MAX_NAMES + 1)
        if count:
            _log.warning(
                "%s images are listed under two labels, and left out: %s",
                f"{count:,}",
                abridged([f"{path} ({' and '.join(labels)})" for path, *labels in conflicts]),
            )
        _settle(index, metadata, given)
    if both := index.count_in_both():
        _log.warning(
            "%s images are in the training and in the evaluation metadata: the evaluation will be too good", f"{both:,}"
        )


def _settle(index: ImageIndex, metadata: str, given: Sequence[str]) -> None:
    """Decides which of the splits that lists name are trained on and evaluated."""
    named = index.named_splits(metadata)
    if not named:
        return
    if metadata == TRAIN:
        assigned = {TRAINING: TRAIN, UNASSIGNED: BY_HASH}
        preferred = () if EVAL in given else (VALIDATION, TEST)
    else:  # a training chooses its model by what it evaluates, so the test split is for the finished model
        assigned = {}
        preferred = (VALIDATION, TEST) if TRAIN in given else (TEST, VALIDATION)
    if evaluated := next((split for split in preferred if split in named), None):
        assigned[evaluated] = EVAL
    elif metadata == EVAL:
        assigned = dict.fromkeys(named, EVAL)
        _log.warning("No line of the evaluation metadata is for validation or test: all lines are evaluated")
    elif EVAL not in given and set(named) == {TRAINING} and not index.count(TRAIN) + index.count(EVAL):
        assigned = {TRAINING: BY_HASH}
        _log.warning("All lines of the training metadata are for training: --eval_fraction of them are held out")
    for split, count in index.settle(metadata, assigned).items():
        _log.warning("%s images of the %s metadata are in the %s split and left out", f"{count:,}", metadata, split)
