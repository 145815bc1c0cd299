"""python -m pipelines: compile the pipeline, run it here, submit it to Vertex AI or Kubeflow, look after its runs,
schedule them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from pipelines import template
from pipelines.backends import base as backend
from tf_image_classification import command_line
from tf_image_classification import flags as flag_table
from tf_image_classification.errors import FlagError
from tf_image_classification.promotion import champion

_HELP = """usage: python -m pipelines COMMAND [options]

Commands:
  compile   write the pipeline as one YAML document for Kubeflow and Vertex
  run       run the pipeline on this machine; without --train_metadata, on the sample data set
  submit    start a run on Vertex AI or Kubeflow
  runs      list, show, cancel or rerun what was submitted
  schedule  start runs again and again

`python -m pipelines COMMAND --help` lists a command's options.
"""


def _compile(argv: Sequence[str]) -> int:
    parser = command_line.Parser(
        "python -m pipelines compile", "Writes the pipeline as one YAML document for Kubeflow and Vertex."
    )
    parser.add_argument("--output", required=True, metavar="FILE.yaml", help="where to write it")
    template.add_compile_options(parser)
    given = parser.parse_args(argv)
    template.compile_to(given.output, given)
    print(given.output)
    return 0


def _run(argv: Sequence[str]) -> int:
    table = flag_table.of_pipeline()
    parser = command_line.Parser(
        "python -m pipelines run",
        "Runs the pipeline on this machine. Without --train_metadata it runs on the sample data set, "
        "with flags that train well on it.",
        "Run the same command again after an interruption: finished steps are not done again, training goes on.",
    )
    parser.add_argument(
        "--runs_dir",
        default="runs",
        metavar="DIR",
        help="where runs, checkpoints and the cache live (default: %(default)s)",
    )
    parser.add_argument(
        "--runner",
        choices=("subprocess", "docker"),
        default="subprocess",
        help="run each step as a process, or in its image, which `make images` builds (default: %(default)s)",
    )
    parser.add_argument(
        "--verbose", action="store_true", help="show all that the steps, KFP and TensorFlow print, not the log alone"
    )
    parser.add_flags(table)
    options = parser.parse_args(argv)
    names = [flag.name for flag in table]
    given = command_line.given_flags(options, names)
    checked = flag_table.validate(given, names)
    parameters = {name: getattr(checked, name) for name in given if getattr(checked, name) is not None}

    from pipelines.local import run as local_run
    from pipelines.local import sample, summary

    champion.check(checked.checkpoint_path, checked.champion, checked.endpoint)
    if checked.champion and champion.is_registry(checked.champion):
        raise FlagError(
            "A run on this machine keeps the model in service in a folder",
            received=f"--champion {checked.champion}",
            expected="a folder",
        )
    if not frozenset("*?[").isdisjoint(options.runs_dir):
        raise FlagError(
            "--runs_dir names one place", received=options.runs_dir, expected="a path without the characters * ? ["
        )
    if checked.train_metadata is None:
        parameters = sample.FLAGS | {"train_metadata": sample.write(f"{options.runs_dir}/sample/digits")} | parameters
    finished = local_run.run(parameters, options.runs_dir, options.runner, options.verbose)
    print(summary.table(finished))
    return 0


def _submit(argv: Sequence[str]) -> int:
    from pipelines.commands import submit

    return submit.main(argv)


def _runs(argv: Sequence[str]) -> int:
    from pipelines.commands import runs

    return runs.main(argv)


def _schedule(argv: Sequence[str]) -> int:
    from pipelines.commands import schedule

    return schedule.main(argv)


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "compile": _compile,
    "run": _run,
    "submit": _submit,
    "runs": _runs,
    "schedule": _schedule,
}


def run_command(argv: Sequence[str] | None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    return backend.dispatch(_HELP, COMMANDS, {}, words)


if __name__ == "__main__":
    command_line.main(run_command)
