"""python -m pipelines compile: the pipeline as one YAML document, and its components."""

from __future__ import annotations

import argparse

from pipelines.commands import compile_options
from pipelines.commands.subparsers import SubParsers, add_command


def add_parser(commands: SubParsers) -> None:
    parser = add_command(
        commands, "compile", _compile, "Writes the pipeline as one YAML document for Kubeflow and Vertex AI."
    )
    parser.add_argument("--output", required=True, metavar="FILE.yaml", help="file of the compiled pipeline (required)")
    parser.add_argument(
        "--components_dir",
        metavar="DIR",
        help="also write each step as a component, DIR/STEP.yaml, for other pipelines to load",
    )
    compile_options.add_options(parser)


def _compile(arguments: argparse.Namespace) -> int:
    from pipelines.compile import compile_components, compile_pipeline

    options = compile_options.read(arguments)
    compile_pipeline(arguments.output, options)
    print(arguments.output)
    if arguments.components_dir:
        for path in compile_components(arguments.components_dir, options.images):
            print(path)
    return 0
