"""python -m pipelines run: the pipeline on this machine."""

from __future__ import annotations

import argparse
import glob
import os

from pipelines.commands import build_options, compile_options, parameter_files, parameters
from pipelines.commands.subparsers import SubParsers, add_command
from tf_image_classification import command_line
from tf_image_classification import flags as flag_table
from tf_image_classification.data import dates
from tf_image_classification.errors import FlagError
from tf_image_classification.flag_types import GLOB_CHARACTERS, check_single_path
from tf_image_classification.flags import Flag, Flags
from tf_image_classification.promotion import champion


def add_parser(commands: SubParsers) -> None:
    parser = add_command(
        commands,
        "run",
        _run,
        "Runs the pipeline on this machine.",
        "Without --train_metadata it runs on the sample data set, with flags that train well on it. Run the same "
        "command again after an interruption: finished steps come from the cache, and training resumes.",
    )
    parser.add_argument(
        "--runs_dir",
        default="runs",
        metavar="DIR",
        help="folder for runs, checkpoints and the cache (default: %(default)s)",
    )
    parser.add_argument(
        "--runner",
        choices=("subprocess", "docker"),
        default="subprocess",
        help="run each step as a process, or in its image, which `make images` builds (default: %(default)s)",
    )
    build_options.add_runner(parser)
    compile_options.add_cluster_options(parser)
    compile_options.add_build_options(parser)
    parser.add_argument("--verbose", action="store_true", help="show everything that the steps print")
    parameters.add_params_option(parser)
    parser.add_flags(flag_table.of_pipeline())
    parser.add_show()


def _run(arguments: argparse.Namespace) -> int:
    names = [flag.name for flag in flag_table.of_pipeline()]
    by_name = {flag.name: flag for flag in flag_table.of_pipeline()}
    in_file = parameter_files.read(arguments.params, by_name) if arguments.params else {}
    given = in_file | command_line.given_flags(arguments, names)
    command_line.show_recipe(arguments, given)
    expanded = parameters.combine(None, {}, given)
    checked = flag_table.validate(expanded, names)
    _check(checked, arguments)
    build_options.refuse_dataflow(arguments)
    cluster = compile_options.local_cluster(arguments)
    images_built_with = compile_options.built_with(arguments)
    for name, value in images_built_with.items():
        if value and arguments.runner != "docker":
            raise FlagError(f"--image_{name} needs --runner docker", hint="Without it no step runs in an image.")

    from pipelines.local import run, sample, summary

    values = {name: getattr(checked, name) for name in expanded}
    if checked.train_metadata is None:
        folder = sample.write(f"{arguments.runs_dir}/sample/digits")
        values = sample.FLAGS | values | {"train_metadata": folder}
    values = {name: value for name, value in values.items() if value is not None}
    if cluster:
        cluster.check_flags(values)
    finished = run.run(
        values, arguments.runs_dir, arguments.runner, images_built_with, cluster=cluster, verbose=arguments.verbose
    )
    print(summary.table(finished))
    return 0


def _check(flags: Flags, arguments: argparse.Namespace) -> None:
    parameters.check_together(vars(flags), in_images=arguments.runner == "docker")
    if flags.champion and champion.is_registry(flags.champion):
        raise FlagError(
            "A run on this machine keeps the model in service in a folder",
            received=f"--champion {flags.champion}",
            expected="a folder",
        )
    check_single_path("runs_dir", arguments.runs_dir)
    for flag in flag_table.of_pipeline():
        value = getattr(flags, flag.name)
        if flag.path == "read" and value and champion.names_a_path(flag.name, value):
            _check_exists(flag, value)


def _check_exists(flag: Flag, value: str) -> None:
    """Refuses a path that leads to nothing, before any step is started; globs, dates and URLs are left to the steps."""
    for part in value.split(",") if flag.is_list and not os.path.exists(value) else [value]:
        path = part.strip()
        named = not ("://" in path or dates.PLACEHOLDER in path or GLOB_CHARACTERS.intersection(path))
        # A checkpoint is named by what its files begin with.
        if named and not os.path.exists(path) and not glob.glob(f"{path}*"):
            raise FlagError(f"--{flag.name} is not found", received=part, expected="a file or folder that exists")
