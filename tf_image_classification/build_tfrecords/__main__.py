"""`python -m tf_image_classification.build_tfrecords`: images or TFRecords in, shards with a manifest out."""

from __future__ import annotations

from collections.abc import Sequence

from tf_image_classification import build_tfrecords, command_line, flags, storage
from tf_image_classification.build_tfrecords.beam_runner import BeamRunner
from tf_image_classification.data.sources import ReadOptions
from tf_image_classification.errors import FlagError
from tf_image_classification.flags import Flags

_DESCRIPTION = (
    "Turns labelled images into TFRecord shards of a training and an evaluation split, "
    "with labels, manifest and statistics."
)
_EPILOG = """examples:
  python -m tf_image_classification.build_tfrecords --train_metadata photos/ --output_dir data/
  python -m tf_image_classification.build_tfrecords --train_metadata photos/ --check
  python -m tf_image_classification.build_tfrecords --train_metadata gs://bucket/photos --output_dir gs://bucket/data \\
      --runner DataflowRunner --project P --region R --temp_location gs://bucket/temp --sdk_container_image IMAGE"""


def _command(argv: Sequence[str] | None) -> None:
    parser = command_line.Parser("python -m tf_image_classification.build_tfrecords", _DESCRIPTION, _EPILOG)
    table = flags.of_command(flags.BUILD)
    parser.add_flags(table, ("train_metadata", "output_dir"))
    given, others = parser.parse_known_flags(table, argv, ("train_metadata",), beside="runner")
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
    runner = _runner(given, others)
    if given.check:
        build_tfrecords.check(given.train_metadata, given.output_dir, **settings)
    elif given.output_dir is None:
        raise FlagError("--output_dir is required", hint="Or give --check, which writes no data set.")
    else:
        build_tfrecords.build(given.train_metadata, given.output_dir, **settings, runner=runner)
    if given.output_dir is not None:
        print(given.output_dir)


def _runner(given: Flags, options: Sequence[str]) -> BeamRunner | None:
    """The runner of --runner with Beam's options.

    Raises:
        FlagError: it cannot be used, or other flags have no effect beside it.
    """
    if given.runner is None:
        return None
    for name in ("workers", "check"):
        if getattr(given, name):
            raise FlagError(
                f"--{name} has no effect beside --runner",
                received=f"--{name} and --runner {given.runner}",
                expected="one of them",
                hint="A check runs on this machine."
                if name == "check"
                else "Beam's own options say how many there are.",
            )
    runner = BeamRunner(given.runner, tuple(options))
    runner.check_options()
    runner.pipeline()  # before images are listed
    return runner


if __name__ == "__main__":
    command_line.main(_command)
