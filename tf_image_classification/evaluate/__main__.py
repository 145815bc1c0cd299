"""`python -m tf_image_classification.evaluate`: a model folder and labelled images in, metrics and a report out."""

from __future__ import annotations

from collections.abc import Sequence

from tf_image_classification import command_line, estimator_code, flags, storage
from tf_image_classification.data import sources
from tf_image_classification.data.manifest import Manifest, Task
from tf_image_classification.data.sources import BuiltDataSet, ReadOptions
from tf_image_classification.evaluation_folder import METRICS, REPORT
from tf_image_classification.flags import Flags

_DESCRIPTION = "Scores labelled images with a trained model and writes metrics.json, report.html and predictions.csv."
_EPILOG = (
    "example: python -m tf_image_classification.evaluate --model models/export --eval_metadata photos/ "
    "--output_dir evaluation/"
)
_REQUIRED = ("model", "eval_metadata", "output_dir")


def _command(argv: Sequence[str] | None) -> None:
    parser = command_line.Parser("python -m tf_image_classification.evaluate", _DESCRIPTION, _EPILOG)
    table = flags.of_command(flags.EVALUATE)
    parser.add_flags(table, _REQUIRED)
    given = parser.parse_flags(table, argv, _REQUIRED)
    estimator_code.check_flags(given.estimator, given.packages)
    storage.bill_to(given.billing_project)

    from tf_image_classification.build_tfrecords import existing_tfrecords
    from tf_image_classification.evaluate import evaluate, served_model

    # Wrong paths are errors before TensorFlow takes its seconds to import.
    tasks = served_model.read_tasks(given.model)
    found = sources.expand(given.eval_metadata)
    existing_tfrecords.check_features(ReadOptions.of(given), found)
    existing_tfrecords.check_max_side(ReadOptions.of(given), found)
    sources.check_split_column(found, ReadOptions.of(given))
    storage.check_replaceable(given.output_dir, METRICS, [given.model, *(source.path for source in found)])

    from tf_image_classification import estimator_loading

    spec = estimator_loading.load(given.estimator, given.packages) if given.estimator else None
    with storage.temporary_dir() as cache_dir:
        # A built data set has class names of its own, which need not be in the model's order.
        only = found[0] if len(found) == 1 else None
        data = only.read() if isinstance(only, BuiltDataSet) else _build(given, tasks, cache_dir)
        evaluate(given.model, data, given.output_dir, batch_size=given.eval_batch_size, spec=spec)
    print(storage.join(given.output_dir, REPORT))


def _build(given: Flags, tasks: Sequence[Task], cache_dir: str) -> Manifest:
    """Builds a data set from images, or lists TFRecords, with the model's class names."""
    from tf_image_classification.build_tfrecords import prepare

    return prepare.prepare_evaluation(
        given.eval_metadata,
        tasks,
        cache_dir=cache_dir,
        options=ReadOptions.of(given),
        allow_missing_classes=given.allow_missing_classes,
        workers=given.workers,
    )


if __name__ == "__main__":
    command_line.main(_command)
