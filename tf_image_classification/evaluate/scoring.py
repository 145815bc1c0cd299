"""One pass over the evaluation examples through the serving signature of a SavedModel."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from tf_image_classification import progress
from tf_image_classification.data import manifest
from tf_image_classification.errors import DataError, UserError
from tf_image_classification.evaluate import tasks
from tf_image_classification.evaluate.mistakes import Mistake
from tf_image_classification.evaluate.model import INPUT, ServedModel
from tf_image_classification.evaluate.tasks import Batch
from tf_image_classification.evaluate.user_metrics import UserMetrics

if TYPE_CHECKING:
    import tensorflow as tf

    from tf_image_classification.estimator_specs import EstimatorSpec

_NAMED = 5  # file names in a message


@dataclass(frozen=True, slots=True)
class Scored:
    """What one pass gave.

    Attributes:
        tasks: task name -> its metrics.
        user_metrics: metric name -> value; empty without a spec.
        mistakes: task name -> the mistakes that the model was surest of.
    """

    tasks: dict[str, dict[str, Any]]
    user_metrics: dict[str, Any]
    mistakes: dict[str, list[Mistake]]


def score(
    served: ServedModel, data: manifest.Manifest, predictions_path: str, *, batch_size: int, spec: EstimatorSpec | None
) -> Scored:
    """Scores every example of the evaluation side once, and writes a line for each to a CSV file.

    Raises:
        DataError: there is no evaluation example, the labels are not the model's, or an example cannot be read or
            classified.
        UserError: a batch does not fit into memory, or a metric of the spec cannot be used.
    """
    side = data.splits.get(manifest.EVAL)
    if side is None or not side.examples:
        raise DataError(
            "The data set has no evaluation examples", received=data.folder or None, expected="at least one"
        )
    scorers = tasks.pair(served.tasks, data.tasks)
    user = UserMetrics(spec) if spec else None
    done = 0
    with (
        open(predictions_path, "w", newline="", encoding="utf-8") as file,
        progress.track("Evaluating", side.examples, "images") as advance,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["filename", *chain.from_iterable(scorer.columns for scorer in scorers)])
        for batch, outputs in _run_ahead(served, _batches(data, batch_size)):
            columns = chain.from_iterable(scorer.update(batch, outputs) for scorer in scorers)
            writer.writerows(zip(batch.filenames, *columns, strict=True))
            if user and spec:
                labels, logits = zip(*(scorer.for_spec(batch, outputs) for scorer in scorers), strict=True)
                names = [scorer.name for scorer in scorers]
                user.update(
                    dict(zip(names, labels, strict=True)),
                    spec.predictions(dict(zip(names, logits, strict=True))),
                    len(batch.filenames),
                )
            done += len(batch.filenames)
            advance(len(batch.filenames))
    if done != side.examples:
        raise DataError(
            "The shards hold another number of evaluation examples than their manifest says",
            received=done,
            expected=side.examples,
            hint="Build the data set again.",
        )
    return Scored(
        tasks={scorer.name: scorer.result() for scorer in scorers},
        user_metrics=user.result() if user else {},
        mistakes={scorer.name: scorer.mistakes() for scorer in scorers},
    )


def _batches(data: manifest.Manifest, batch_size: int) -> Iterator[Batch]:
    import tensorflow as tf

    from tf_image_classification import dataset
    from tf_image_classification.data import bucket_shards

    examples = iter(dataset.evaluation_examples(data, manifest.EVAL, batch_size))
    while True:
        try:
            with bucket_shards.failures_named():
                example = next(examples)
        except StopIteration:
            return
        except tf.errors.OpError as error:
            raise DataError(
                "The evaluation shards cannot be read", received=_first_line(error), hint="Build the data set again."
            ) from error
        yield Batch(
            images=example["image_bytes"],
            filenames=[name.decode(errors="replace") for name in example["filename"].numpy().tolist()],
            labels={task: ids.numpy() for task, ids in example["labels"].items()},
        )


def _run_ahead(served: ServedModel, batches: Iterable[Batch]) -> Iterator[tuple[Batch, dict[str, tf.Tensor]]]:
    """Batches with their outputs; while one is being counted the model already works on the next."""
    with ThreadPoolExecutor(1) as pool:
        ahead = None
        for batch in batches:
            following = batch, pool.submit(_run, served, batch)
            if ahead:
                yield ahead[0], ahead[1].result()
            ahead = following
        if ahead:
            yield ahead[0], ahead[1].result()


def _run(served: ServedModel, batch: Batch) -> dict[str, tf.Tensor]:
    import tensorflow as tf

    try:
        return served.signature(**{INPUT: batch.images})
    except tf.errors.ResourceExhaustedError as error:
        raise UserError(
            "A batch does not fit into memory",
            received=f"{len(batch.filenames)} images",
            hint="Lower --eval_batch_size.",
        ) from error
    except tf.errors.OpError as error:
        culprits = [name for row, name in enumerate(batch.filenames) if _fails(served, batch.images[row : row + 1])]
        named = ", ".join(culprits[:_NAMED]) + (f" and {len(culprits) - _NAMED} more" if len(culprits) > _NAMED else "")
        raise DataError(
            f"The model cannot classify {named or f'a batch that begins with {batch.filenames[0]}'}",
            received=_first_line(error),
            expected="whole JPEG or PNG images",
            hint="build_tfrecords checks every image: build the data set from its images again.",
        ) from error


def _fails(served: ServedModel, image: tf.Tensor) -> bool:
    import tensorflow as tf

    try:
        served.signature(**{INPUT: image})
    except tf.errors.OpError:
        return True
    return False


def _first_line(error: tf.errors.OpError) -> str:
    return str(error.message).strip().splitlines()[0]
