"""python -m pipelines: compile the pipeline, or run it on this machine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from tf_image_classification import command_line
from tf_image_classification import flags as flag_table
from tf_image_classification.errors import FlagError

_HELP = """usage: python -m pipelines COMMAND [options]

Commands:
  compile   write the pipeline as one YAML document for Kubeflow and Vertex
  run       run the pipeline on this machine; without --train_metadata, on the sample data set

`python -m pipelines COMMAND --help` lists a command's options.
"""


def _compile(argv: Sequence[str] | None) -> int:
    parser = command_line.Parser("python -m pipelines compile", "Writes the pipeline as one YAML document for Kubeflow and Vertex.")
    parser.add_argument("--output", required=True, metavar="FILE.yaml", help="where to write it")
    parser.add_argument("--image_registry", default="tf-image-classification", help="images are REGISTRY/IMAGE:TAG (default: %(default)s)")
    parser.add_argument(
        "--image_tag", default="", help="never one that moves, such as latest (default: for each image a hash of what it is made from)"
    )
    for name, value, what in (
        ("cpu", "N", "cores"),
        ("memory", "NG", "memory"),
        ("accelerator", "TYPE:N", "accelerators, as NVIDIA_TESLA_T4:1: the step runs in the GPU variant of its image;"),
    ):
        text = f"{what} of the training step, or of STEP; may be given several times"
        parser.add_argument(f"--{name}", action="append", default=[], metavar=f"[STEP=]{value}", help=text)
    parser.add_argument("--retries", type=int, default=0, metavar="N", help="how often a failed step is tried again (default: %(default)s)")
    given = parser.parse_args(argv)
    if given.retries < 0:
        raise FlagError("--retries has a value that it does not take", received=given.retries, expected="a whole number >= 0")

    from pipelines.compile import by_step, compile_pipeline, image_references
    from pipelines.definition import Options

    cpu, memory, accelerator = by_step("cpu", given.cpu), by_step("memory", given.memory), by_step("accelerator", given.accelerator)
    chosen = image_references(given.image_registry, given.image_tag, accelerator)
    compile_pipeline(given.output, Options(chosen, cpu, memory, accelerator, given.retries))
    print(given.output)
    return 0


def _run(argv: Sequence[str] | None) -> int:
    table = flag_table.of_pipeline()
    parser = command_line.Parser(
        "python -m pipelines run",
        "Runs the pipeline on this machine. Without --train_metadata it runs on the sample data set, with flags that train well on it.",
        "Run the same command again after an interruption: finished steps are not done again, training goes on.",
    )
    parser.add_argument(
        "--runs_dir", default="runs", metavar="DIR", help="where runs, checkpoints and the cache live (default: %(default)s)"
    )
    parser.add_argument(
        "--runner",
        choices=("subprocess", "docker"),
        default="subprocess",
        help="run each step as a process, or in its image, which `make images` builds (default: %(default)s)",
    )
    parser.add_flags(table)
    options = parser.parse_args(argv)
    names = [flag.name for flag in table]
    given = command_line.given_flags(options, names)
    checked = flag_table.validate(given, names)
    parameters = {name: getattr(checked, name) for name in given if getattr(checked, name) is not None}

    from pipelines import local_run, sample, summary

    if not frozenset("*?[").isdisjoint(options.runs_dir):
        raise FlagError("--runs_dir names one place", received=options.runs_dir, expected="a path without the characters * ? [")
    if checked.train_metadata is None:
        parameters = sample.FLAGS | {"train_metadata": sample.write(f"{options.runs_dir}/sample/digits")} | parameters
    finished = local_run.run(parameters, options.runs_dir, options.runner)
    print(summary.table(finished))
    return 0


COMMANDS: dict[str, Callable[[Sequence[str] | None], int]] = {"compile": _compile, "run": _run}


def _dispatch(argv: Sequence[str] | None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(_HELP, end="")
        return 0 if words else 2
    if words[0] not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(words[0], COMMANDS, n=1)
        raise FlagError(
            "There is no such command", received=words[0], expected=" or ".join(COMMANDS), hint=f"Did you mean {near[0]}?" if near else ""
        )
    return COMMANDS[words[0]](words[1:])


if __name__ == "__main__":
    command_line.main(_dispatch)
