"""Images of classes that the labels do not have: what becomes of them.

A training has no output for such a class, so its images are left out; the labels file says which ones are wanted. A
model that is evaluated gets them wrong, as it would in service, so they are evaluated and count as mistakes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from tf_image_classification.build_tfrecords.image_index import ImageIndex
from tf_image_classification.data import sources
from tf_image_classification.data.manifest import EVAL, TRAIN, Task
from tf_image_classification.data.tasks import check_some_known
from tf_image_classification.errors import abridged

_log = logging.getLogger(__name__)


def appended(index: ImageIndex, tasks: Sequence[Task]) -> tuple[Task, ...]:
    """A model's tasks with the classes of the images that it does not know, after its own: it gets them wrong.

    Raises:
        DataError: it knows none of the images' classes.
    """
    found = []
    for column, task in enumerate(tasks):
        occurring = index.class_counts(EVAL, column).keys()
        if not task.labels or not occurring:
            found.append(task)
            continue
        check_some_known(task.labels, sorted(occurring))
        unknown = sources.order_labels(occurring - set(task.labels))
        found.append(replace(task, labels=(*task.labels, *unknown)))
    return tuple(found)


def reject(index: ImageIndex, tasks: Sequence[Task]) -> None:
    """Leaves images out whose class is not among the labels, and warns of them."""
    for column, task in enumerate(tasks):
        for split in (TRAIN, EVAL):
            counts = index.class_counts(split, column)
            if unknown := sorted(counts.keys() - set(task.labels)):
                _log.warning(
                    "%s %s images are rejected: their classes are not in the labels (%s)",
                    f"{sum(counts[name] for name in unknown):,}",
                    "training" if split == TRAIN else "evaluation",
                    abridged(unknown),
                )
    index.reject_unknown(tasks)
