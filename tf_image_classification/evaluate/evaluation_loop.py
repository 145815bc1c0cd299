"""One pass over the evaluation split through the serving signature of a SavedModel."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from tf_image_classification import progress
from tf_image_classification.data import manifest
from tf_image_classification.data.csv_cells import cell
from tf_image_classification.errors import MAX_NAMES, DataError, UserError
from tf_image_classification.evaluate.mistakes import Mistake
from tf_image_classification.evaluate.scorers import Batch, Scorer, create_scorers
from tf_image_classification.evaluate.served_model import ServedModel
from tf_image_classification.evaluate.user_metrics import UserMetrics
from tf_image_classification.model_folder import INPUT

if TYPE_CHECKING:
    import tensorflow as tf

    from tf_image_classification.estimator_specs import EstimatorSpec

_CALLS = 2  # of the model at the same time
# Of a batch beside another one, encoded: 32 photographs of 512 KB. Those of a phone have ten times the pixels, and take
# gigabytes when they are decoded.
_MOST_BYTES_BESIDE = 16 * 2**20


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """What one pass returns.

    Attributes:
        tasks: task name -> its metrics.
        user_metrics: metric name -> value; empty without a spec.
        mistakes: task name -> its most confident mistakes, the most confident first.
    """

    tasks: dict[str, dict[str, Any]]
    user_metrics: dict[str, Any]
    mistakes: dict[str, list[Mistake]]


def run(
    served: ServedModel, data: manifest.Manifest, predictions_path: str, *, batch_size: int, spec: EstimatorSpec | None
) -> EvaluationResult:
    """Scores every example of the evaluation split once, and writes a row for each to a CSV file.

    Metrics are updated in this thread, while others run the model on the following batches.

    Raises:
        DataError: there is no evaluation example, the labels are not the model's, or an example cannot be read or
            classified.
        UserError: a batch does not fit into memory, or a metric of the spec cannot be used.
    """
    split = data.splits.get(manifest.EVAL)
    if split is None or not split.examples:
        raise DataError(
            "The data set has no evaluation examples", received=data.folder or None, expected="at least one"
        )
    scorers = create_scorers(served.tasks, data.tasks)
    user_metrics = UserMetrics(spec) if spec else None
    num_scored = 0
    with (
        open(predictions_path, "w", newline="", encoding="utf-8") as file,
        progress.track("Evaluating", split.examples, "images") as advance,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(map(cell, ["filename", *chain.from_iterable(scorer.columns for scorer in scorers)]))
        for batch, outputs in _predict(served, _batches(data, batch_size)):
            columns = chain.from_iterable(scorer.update(batch, outputs) for scorer in scorers)
            writer.writerows(map(cell, row) for row in zip(batch.filenames, *columns, strict=True))
            if user_metrics:
                _update(user_metrics, scorers, batch, outputs)
            num_scored += len(batch.filenames)
            advance(len(batch.filenames))
    if num_scored != split.examples:
        raise DataError(
            "The number of evaluation examples in the shards differs from the manifest's",
            received=num_scored,
            expected=split.examples,
            hint="Build the data set again.",
        )
    return EvaluationResult(
        tasks={scorer.name: scorer.result() for scorer in scorers},
        user_metrics=user_metrics.result() if user_metrics else {},
        mistakes={scorer.name: scorer.mistakes() for scorer in scorers},
    )


def _update(user_metrics: UserMetrics, scorers: Iterable[Scorer], batch: Batch, outputs: dict[str, tf.Tensor]) -> None:
    labels, logits = {}, {}
    for scorer in scorers:
        labels[scorer.name], logits[scorer.name] = scorer.labels_and_logits(batch, outputs)
    user_metrics.update(labels, logits, len(batch.filenames))


def _batches(data: manifest.Manifest, batch_size: int) -> Iterator[Batch]:
    """The evaluation split in reading order; the last batch may be smaller."""
    import tensorflow as tf

    from tf_image_classification import dataset
    from tf_image_classification.data import bucket_shards

    examples = iter(dataset.evaluation_examples(data, manifest.EVAL, batch_size))
    while True:
        try:
            with bucket_shards.translate_fetch_errors():
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


def _predict(served: ServedModel, batches: Iterable[Batch]) -> Iterator[tuple[Batch, dict[str, tf.Tensor]]]:
    """Batches with the model's outputs, in order.

    A call of the model, which decodes and then computes, keeps hardly more than one core busy: it runs on two batches
    at the same time, with another one waiting, unless that could take too much memory.
    """
    import tensorflow as tf

    calls = 1 if tf.config.list_physical_devices("GPU") else _CALLS  # a batch may just fit into the GPU's memory
    pending: deque[tuple[Batch, Future[dict[str, tf.Tensor]]]] = deque()
    with ThreadPoolExecutor(calls) as pool:
        was_large = False
        for batch in batches:
            is_large = int(tf.reduce_sum(tf.strings.length(batch.images))) > _MOST_BYTES_BESIDE
            if is_large or was_large:
                futures.wait([future for _, future in pending])
            was_large = is_large
            pending.append((batch, pool.submit(_call, served, batch)))
            if len(pending) > calls + 1:
                done, future = pending.popleft()
                yield done, future.result()
        for done, future in pending:
            yield done, future.result()


def _call(served: ServedModel, batch: Batch) -> dict[str, tf.Tensor]:
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
        # The error of a batch does not name the image that caused it: each is tried alone.
        failing = [name for row, name in enumerate(batch.filenames) if _fails(served, batch.images[row : row + 1])]
        named = ", ".join(failing[:MAX_NAMES])
        if len(failing) > MAX_NAMES:
            named += f" and {len(failing) - MAX_NAMES} more"
        raise DataError(
            f"The model cannot classify {named or f'a batch that begins with {batch.filenames[0]}'}",
            received=_first_line(error),
            expected="complete JPEG or PNG images",
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
