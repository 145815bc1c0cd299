"""`python -m tf_image_classification.evaluate`: a model folder and labelled images in, metrics and a report out."""

from __future__ import annotations

import os
from collections.abc import Sequence

from tf_image_classification import command_line, flags, storage

_DESCRIPTION = "Scores labelled images with a finished model and writes metrics.json, report.html and predictions.csv."
_EPILOG = "example: python -m tf_image_classification.evaluate --model models/export --eval_metadata photos/ --output_dir evaluation/"


def _command(argv: Sequence[str] | None) -> None:
    parser = command_line.Parser("python -m tf_image_classification.evaluate", _DESCRIPTION, _EPILOG)
    table = flags.of_command(flags.EVALUATE)
    required = ("model", "eval_metadata", "output_dir")
    parser.add_flags(table, required)
    given = parser.parse_flags(table, argv, required)

    from tf_image_classification import sources
    from tf_image_classification.evaluate import REPORT, evaluate, model

    _, tasks = model.read_tasks(given.model)
    sources.expand(given.eval_metadata)  # says what is missing before TensorFlow takes its seconds to load

    from tf_image_classification import dataset, estimator_specs

    spec = estimator_specs.load(given.estimator, given.packages) if given.estimator else None
    with storage.temporary_dir() as cache_dir:
        data = dataset.prepare_evaluation(
            given.eval_metadata,
            tasks,
            cache_dir=cache_dir,
            labels_file=given.labels_file,
            image_root=given.image_root,
            workers=given.workers,
        )
        evaluate(given.model, data, given.output_dir, batch_size=given.eval_batch_size, spec=spec)
    print(os.path.join(given.output_dir, REPORT))


if __name__ == "__main__":
    command_line.main(_command)
