"""The pipeline's parameters: flags on the command line, and the file of --params.

A command is parsed twice: first its own options, which name the template; then, from the words left over, the flags
that this template has.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from pipelines import template
from tf_image_classification import command_line, storage
from tf_image_classification import flags as flag_table
from tf_image_classification.errors import FlagError
from tf_image_classification.flags import Flag


def add_options(parser: command_line.Parser) -> None:
    """Makes a command take the pipeline's parameters; called after all its own options are added."""
    parser.add_argument(
        "--params",
        metavar="FILE.yaml",
        help="pipeline parameters, as `flag: value` lines; flags on the command line win",
    )
    parser.usage = parser.usage or f"{parser.prog} [options]"
    parser.list_in_help(_unshadowed(parser, flag_table.of_pipeline()))
    parser.set_defaults(takes_parameters=True)


def parse(arguments: argparse.Namespace, spec: template.Spec | None) -> dict[str, object]:
    """The parameters among the words that the command's own options left over; not yet checked.

    Args:
        spec: the pipeline; None for this project's own.

    Raises:
        FlagError: a parameter is unknown (the nearest one or the nearest option is named), or has no value.
    """
    flags = template.signature(spec)
    parser = command_line.Parser(arguments.parser.prog, "")
    parser.add_flags(_unshadowed(arguments.parser, flags))
    given, strays = parser.parse_known_args(arguments.words)
    arguments.parser.reject(strays, known=[flag.name for flag in flags])
    return command_line.given_flags(given, [flag.name for flag in flags])


def read_file(path: str) -> dict[str, object]:
    """The parameters in a YAML file of `name: value` lines, local or gs://; not yet checked.

    Raises:
        FlagError: the file is not found, or contains something else.
    """
    import yaml

    expected = "a YAML file of `flag: value` lines"
    try:
        found = yaml.safe_load(storage.read_text(path)) or {}
    except OSError as error:
        reason = error.strerror or "not found"
        raise FlagError("Cannot read --params", received=f"{path} ({reason})", expected=expected) from None
    except (yaml.YAMLError, UnicodeDecodeError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise FlagError("--params is not a mapping of flags to values", received=path, expected=expected)
    return found


def _unshadowed(parser: command_line.Parser, flags: Iterable[Flag]) -> list[Flag]:
    """The flags that no option of the command shadows; --params sets the others."""
    shadowing = set(parser.option_names())
    return [flag for flag in flags if flag.name not in shadowing]
