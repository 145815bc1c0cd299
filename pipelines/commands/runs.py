"""python -m pipelines runs: what was submitted and how it stands; cancel it, or run it again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipelines import template
from pipelines.backends import base as backend
from pipelines.backends import options
from pipelines.commands import following, submit
from tf_image_classification import command_line
from tf_image_classification.errors import FlagError

_PROG = "python -m pipelines runs"


def _list(argv: Sequence[str]) -> int:
    parser = command_line.Parser(f"{_PROG} list", "Lists runs, the newest first.")
    options.add_options(parser)
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="how many (default: %(default)s)")
    parser.add_argument("--schedule", default="", metavar="NAME", help="only those that this schedule started")
    given = parser.parse_args(argv)
    if given.limit < 1:
        raise FlagError("Invalid value for --limit", received=given.limit, expected="a whole number >= 1")
    service = options.connect(given)
    print(following.in_list(service.runs(given.limit, service.schedule(given.schedule).id if given.schedule else "")))
    return 0


def _show(run_id: str, argv: Sequence[str]) -> int:
    parser = command_line.Parser(
        f"{_PROG} show RUN", "Shows a run: its parameters, its tasks with states and times, what they made, errors."
    )
    options.add_options(parser)
    parser.add_argument("--wait", action="store_true", help="follow the run, task by task, and exit with its result")
    given = parser.parse_args(argv)
    service = options.connect(given)
    if given.wait:
        following.until_ended(service, run_id)
    else:
        print(following.in_full(service.run(run_id)))
    return 0


def _cancel(run_id: str, argv: Sequence[str]) -> int:
    parser = command_line.Parser(f"{_PROG} cancel RUN", "Cancels a run. What its finished tasks have made stays.")
    options.add_options(parser)
    service = options.connect(parser.parse_args(argv))
    run = service.run(run_id)
    if run.state in backend.ENDED:
        print(f"Run {run.id} had ended: {run.state}")
        return 0
    service.cancel(run_id)
    print(f"Run {run.id} is being cancelled")
    return 0


def _rerun(run_id: str, argv: Sequence[str]) -> int:
    parser = command_line.Parser(
        f"{_PROG} rerun RUN",
        "Runs the same pipeline again, with the same parameters or with some changed.",
        "Tasks that had finished, and whose inputs are the same, come from the cache; a training "
        "that was interrupted goes on.",
    )
    options.add_options(parser)
    template.add_params_option(parser)
    submit.add_options(parser)
    parser.add_argument("--wait", action="store_true", help="follow the run, task by task, and exit with its result")
    given, words = template.parse_options(parser, argv)
    service = options.connect(given)
    earlier = service.run(run_id)
    if earlier.state not in backend.ENDED:
        raise FlagError(
            "This run has not ended",
            received=f"{run_id} is {earlier.state}",
            hint=f"Cancel it first: {_PROG} cancel {run_id}",
        )
    spec = dict(earlier.submission.spec)
    parameters = submit.read_parameters(parser, given, words, spec, earlier.submission)
    return submit.send(service, submit.changed(earlier.submission, given, parameters), given.wait)


_VERBS: dict[str, Callable[[str, Sequence[str]], int]] = {"show": _show, "cancel": _cancel, "rerun": _rerun}
_HELP = """usage: python -m pipelines runs COMMAND [options]

Commands:
  list        runs, the newest first
  show RUN    tasks, states, times, artifacts and errors of a run
  cancel RUN  end a run
  rerun RUN   run it again, with the same parameters or some changed; finished tasks come from the cache

`python -m pipelines runs COMMAND --help` lists a command's options.
"""


def main(argv: Sequence[str]) -> int:
    return backend.dispatch(_HELP, {"list": _list}, _VERBS, argv)
