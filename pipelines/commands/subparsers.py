"""How a command is added to `python -m pipelines`."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from tf_image_classification.command_line import Parser

SubParsers = argparse._SubParsersAction
Handler = Callable[[argparse.Namespace], int]


def add_command(
    commands: SubParsers, name: str, handler: Handler, description: str, *details: str, target: str = ""
) -> Parser:
    """Adds a command.

    Args:
        handler: takes the parsed arguments and returns the exit code. Among the arguments are `parser`, the command's
            own parser, and `words`, those that it left over: the pipeline's parameters, where it takes them.
        description: a sentence, for the list of commands too.
        details: further sentences for its own help.
        target: what the command's argument `name` names, as RUN; '' for a command without one.
    """
    parser: Parser = commands.add_parser(
        name, help=description[0].lower() + description[1:].rstrip("."), description=" ".join([description, *details])
    )
    parser.set_defaults(handler=handler, parser=parser, takes_parameters=False)
    if target:
        parser.add_argument("name", metavar=target)
        parser.usage = f"{parser.prog} {target} [options]"
    return parser


def add_group(commands: SubParsers, name: str, description: str) -> SubParsers:
    """Adds a command that consists of commands; alone it prints its help."""

    def print_help(arguments: argparse.Namespace) -> int:
        arguments.parser.print_help()
        return 2

    parser = add_command(commands, name, print_help, description)
    parser.epilog = f"`{parser.prog} COMMAND --help` lists a command's options."
    return parser.add_subparsers(title="Commands", metavar="COMMAND")
