"""python -m pipelines: compiles the pipeline, runs it on this machine or on Vertex AI or Kubeflow, and schedules it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pipelines.commands import check, compile, run, runs, schedule, submit
from tf_image_classification import command_line
from tf_image_classification.errors import FlagError


def run_command(argv: Sequence[str] | None) -> int:
    """Runs the command that `argv` names, by default the process's own; returns its exit code.

    Raises:
        UserError: the call is wrong, or the command failed.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    parser = _make_parser()
    if not words:
        parser.print_help()
        return 2
    arguments, left_over = parser.parse_known_args(words)
    arguments.words = left_over
    if arguments.takes_parameters:
        _check_name(arguments, words)
    else:
        arguments.parser.reject(left_over)
    return arguments.handler(arguments)


def _make_parser() -> command_line.Parser:
    parser = command_line.Parser(
        "python -m pipelines",
        "Retrains image classifiers as a Kubeflow / Vertex AI pipeline.",
        "`python -m pipelines COMMAND --help` lists a command's options.",
    )
    commands = parser.add_subparsers(title="Commands", metavar="COMMAND", required=True)
    for command in (compile, run, check, submit, runs, schedule):
        command.add_parser(commands)
    return parser


def _check_name(arguments: argparse.Namespace, words: Sequence[str]) -> None:
    """Checks that the name of a run or schedule follows its verb.

    The pipeline's parameters are not known yet: further back, the value of one could be mistaken for the name.
    """
    if hasattr(arguments, "name") and words[2] != arguments.name:
        raise FlagError("The name must follow the command", received=" ".join(words), expected=arguments.parser.usage)


if __name__ == "__main__":
    command_line.main(run_command)
