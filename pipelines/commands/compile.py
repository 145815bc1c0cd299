"""python -m pipelines compile: the pipeline as a YAML file, and its components."""

from __future__ import annotations

import argparse
import sys

from pipelines.backend_limits import BACKENDS
from pipelines.commands import compile_options
from pipelines.commands.subparsers import SubParsers, add_command


def add_parser(commands: SubParsers) -> None:
    parser = add_command(
        commands, "compile", _compile, "Writes the pipeline as a YAML file for Kubeflow and Vertex AI."
    )
    parser.add_argument("--output", required=True, metavar="FILE.yaml", help="file of the compiled pipeline")
    parser.add_argument(
        "--components_dir",
        metavar="DIR",
        help="also write each step as a component, DIR/STEP.yaml, for other pipelines to load",
    )
    parser.add_argument(
        "--backend",
        choices=tuple(BACKENDS),
        default="",
        help="refuse options that this service does not take (default: says which service alone takes the file)",
    )
    compile_options.add_options(parser)


def _compile(arguments: argparse.Namespace) -> int:
    from pipelines.compile import compile_components, compile_pipeline

    options = compile_options.read(arguments)
    only = compile_pipeline(arguments.output, options, arguments.backend)
    print(arguments.output)
    if only and not arguments.backend:
        print(only, file=sys.stderr)
    if arguments.components_dir:
        for path in compile_components(arguments.components_dir, options.images):
            print(path)
    return 0
