"""`python -m tf_image_classification.build_tfrecords`: images or TFRecords in, shards with a manifest out."""

from __future__ import annotations

from collections.abc import Sequence

from tf_image_classification import build_tfrecords, command_line, flags, storage
from tf_image_classification.data.sources import ReadOptions
from tf_image_classification.errors import FlagError

_DESCRIPTION = (
    "Turns labelled images into TFRecord shards of a training and an evaluation split, "
    "with labels, manifest and statistics."
)
_EPILOG = """examples:
  python -m tf_image_classification.build_tfrecords --train_metadata photos/ --output_dir data/
  python -m tf_image_classification.build_tfrecords --train_metadata photos/ --check"""


def _command(argv: Sequence[str] | None) -> None:
    parser = command_line.Parser("python -m tf_image_classification.build_tfrecords", _DESCRIPTION, _EPILOG)
    table = flags.of_command(flags.BUILD)
    parser.add_flags(table, ("train_metadata", "output_dir"))
    given = parser.parse_flags(table, argv, ("train_metadata",))
    storage.bill_to(given.billing_project)
    settings = {
        "eval_metadata": given.eval_metadata,
        "labels_file": given.labels_file,
        "eval_fraction": given.eval_fraction,
        "options": ReadOptions.of(given),
        "allow_missing_classes": given.allow_missing_classes,
        "max_duplicates_across_splits": given.max_duplicates_across_splits,
        "workers": given.workers,
    }
    if given.check:
        build_tfrecords.check(given.train_metadata, given.output_dir, **settings)
    elif given.output_dir is None:
        raise FlagError("--output_dir is required", hint="Or give --check, which writes no data set.")
    else:
        build_tfrecords.build(given.train_metadata, given.output_dir, **settings)
    if given.output_dir is not None:
        print(given.output_dir)


if __name__ == "__main__":
    command_line.main(_command)
