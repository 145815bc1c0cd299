"""The pipeline's parameters: flags on the command line, and --params, for which see `parameter_files`.

A command is parsed twice: first its own options, which name the template; then, from the words left over, the flags
that this template has.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from pipelines import template
from tf_image_classification import command_line, estimator_code, recipes
from tf_image_classification import flags as flag_table
from tf_image_classification.errors import FlagError
from tf_image_classification.flags import Flag
from tf_image_classification.promotion import champion

_log = logging.getLogger(__name__)
_RECIPE = flag_table.BY_NAME["recipe"]


def add_options(parser: command_line.Parser, *, of_new: bool) -> None:
    """Makes a command take the pipeline's parameters; called after all its own options are added.

    Args:
        of_new: for a new run or schedule, not for one that has parameters already.
    """
    add_params_option(parser)
    parser.usage = parser.usage or f"{parser.prog} [options]"
    parser.list_in_help(_unshadowed(parser, flag_table.of_pipeline()), required=["train_metadata"] if of_new else [])
    parser.set_defaults(takes_parameters=True)


def add_params_option(parser: command_line.Parser) -> None:
    """Adds --params."""
    parser.add_argument(
        "--params",
        metavar="FILE.yaml",
        help="pipeline parameters, as `flag: value` lines; flags on the command line win",
    )


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


def combine(
    spec: template.Spec | None, inherited: Mapping[str, object], given: Mapping[str, object]
) -> dict[str, object]:
    """The parameters of a run: those given, over those of the recipe, over the inherited ones; not yet checked.

    A step gets a value for every parameter and cannot tell a default that was given from one that was not. So the
    values of the recipe are sent, and `recipe` itself empty. Only where the pipeline lacks one of these parameters, as
    one of the user's own may, the recipe is left to the steps.

    Args:
        spec: the pipeline; None for this project's own.
        inherited: of the run or schedule that is changed. Where its recipe is not expanded, since it was set in a UI or
            is the template's default, those at their defaults count as not given, as in the steps.
        given: on the command line and in --params.

    Raises:
        FlagError: the recipe is unknown; or it is left to the steps, and a flag is given at its default, which would
            not win there.
    """
    flags = template.signature(spec)
    set_before = {**template.defaults(spec), **inherited}
    name = recipes.named({"recipe": set_before.get("recipe"), **given}) if _RECIPE in flags else None
    if name is None:
        return {**inherited, **given}
    if not recipes.RECIPES[name].keys() <= {flag.name for flag in flags}:
        _check_left_to_steps(name, given)
        return {**inherited, **given}
    if given.get("recipe"):
        values = {**recipes.without_others(name, inherited), **recipes.expand(given)}
    else:
        values = {**inherited, **recipes.expand(recipes.without_defaults(set_before)), **given}
    return values | {"recipe": ""}


def check_together(values: Mapping[str, Any], *, in_images: bool) -> None:
    """Checks the flags that need another one; warns of those that another one leaves without effect.

    Args:
        values: the checked parameters.
        in_images: whether the steps run in their images, and so without this machine's modules.

    Raises:
        FlagError: a flag lacks the one that it needs.
    """
    promote = values.get("promote") is not False
    champion.check(values.get("checkpoint_path"), values.get("champion"), values.get("endpoint"), promote=promote)
    if values.get("endpoint") and not promote:
        _log.warning("--endpoint has no effect with --promote false: the run deploys nothing")
    estimator, packages = values.get("estimator"), values.get("packages")
    estimator_code.check_flags(estimator, packages)
    if in_images and estimator and not packages and not estimator.startswith(f"{flag_table.__package__}."):
        _log.warning(
            "--estimator %s without --packages: the steps find it only if the base image of their images has it",
            estimator,
        )


def _check_left_to_steps(recipe: str, given: Mapping[str, object]) -> None:
    for name in recipes.RECIPES[recipe].keys() & given.keys():
        flag = flag_table.BY_NAME[name]
        if flag.parse(given[name]) == flag.default:
            raise FlagError(
                f"--{name} at its default has no effect beside a recipe that the steps expand",
                received=f"--recipe {recipe} --{name} {given[name]}, and a template without all flags of the recipe",
                expected=f"a --{name} other than {flag.default}, or no recipe",
            )


def _unshadowed(parser: command_line.Parser, flags: Iterable[Flag]) -> list[Flag]:
    """The flags that no option of the command shadows; --params sets the others."""
    shadowing = set(parser.option_names())
    return [flag for flag in flags if flag.name not in shadowing]
