"""python -m pipelines submit: starts a run, once, with values that are checked before anything is sent."""

from __future__ import annotations

import argparse

from pipelines.backends import options
from pipelines.backends.base import Backend, Submission
from pipelines.commands import compile_options, parameters, run_options, watch
from pipelines.commands.subparsers import SubParsers, add_command


def add_parser(commands: SubParsers) -> None:
    parser = add_command(
        commands,
        "submit",
        _submit,
        "Submits the pipeline to Vertex AI or Kubeflow.",
        "Flags and options are checked before anything is sent. A second submit with the same --run_id starts no "
        "second run.",
    )
    options.add_options(parser)
    compile_options.add_template_options(parser)
    run_options.add_options(parser)
    run_options.add_wait_option(parser)
    parameters.add_options(parser)


def _submit(arguments: argparse.Namespace) -> int:
    given = compile_options.load_template(arguments)
    values = run_options.read_parameters(arguments, given.spec if given else None)
    pipeline = given or compile_options.compile_checkout(arguments)
    submission = run_options.new_submission(arguments, pipeline, values)
    return send(options.connect(arguments), submission, arguments.wait)


def send(service: Backend, submission: Submission, wait: bool) -> int:
    """Checks the bucket, submits the run and prints its link; with `wait`, follows the run to its end.

    Returns:
        The exit code.
    """
    service.check_pipeline_root(submission.pipeline_root)
    run, new = service.submit(submission)
    print(f"Run {run.id} submitted" if new else f"Run {run.id} was submitted before; it is {run.state}")
    print(run.link, flush=True)
    if wait:
        watch.follow(service, run.id)
    return 0
