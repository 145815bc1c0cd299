"""Command lines from the flag table: parsing, help, and errors as one paragraph with an exit code."""

from __future__ import annotations

import argparse
import contextlib
import errno
import logging
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from tf_image_classification import flags as flag_table
from tf_image_classification import library_output, recipes
from tf_image_classification.errors import FlagError, UserError, did_you_mean, printable, printable_lines
from tf_image_classification.flags import Flag, Flags

# A word that begins so is a value, of which the flag says whether it is one: -1e-3, -.5, -inf. argparse's own pattern
# knows -1 and -0.5.
_NEGATIVE_NUMBER = re.compile(r"-(\.?[0-9]|inf|nan)", re.IGNORECASE)


class Parser(argparse.ArgumentParser):
    """argparse without abbreviated flags. A wrong call is a FlagError; for an unknown flag it names the nearest one."""

    def __init__(self, prog: str, description: str, epilog: str = "") -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self._flags_in_help: list[Flag] = []
        self._required_in_help: Sequence[str] = ()
        self._negative_number_matcher = _NEGATIVE_NUMBER

    def add_flags(self, flags: Iterable[Flag], required: Sequence[str] = ()) -> None:
        """Adds flags of the table, by group. Their values stay text until `parse_flags`.

        Args:
            flags: in the order of `--help`.
            required: names that help marks as required, instead of by their default.
        """
        groups: dict[str, argparse._ArgumentGroup] = {}
        for flag in flags:
            if flag.group not in groups:
                groups[flag.group] = self.add_argument_group(flag.group)
            group = groups[flag.group]
            default = "" if flag.default is None else f" (default: {flag.default})"
            default = " (required)" if flag.name in required else default
            text = flag.help.replace("%", "%%") + default
            if flag.type is bool:
                group.add_argument(
                    f"--{flag.name}", nargs="?", const=True, default=argparse.SUPPRESS, metavar="true|false", help=text
                )
                group.add_argument(
                    f"--no{flag.name}",
                    dest=flag.name,
                    action="store_false",
                    default=argparse.SUPPRESS,
                    help=argparse.SUPPRESS,
                )
            else:
                metavar = (
                    "|".join(flag.choices) if flag.choices and len(flag.choices) < 5 else flag.type.__name__.upper()
                )
                group.add_argument(
                    f"--{flag.name}",
                    nargs="+" if flag.is_list else None,
                    action="extend" if flag.is_list else "store",
                    default=argparse.SUPPRESS,
                    metavar=metavar,
                    help=text + (f" One of: {', '.join(flag.choices)}." if len(flag.choices) >= 5 else ""),
                )

    def add_show(self) -> None:
        """Adds --show, which prints the recipe instead of the command's work; see `show_recipe`."""
        self.add_argument(
            "--show",
            action="store_true",
            help="print the values of --recipe, the flags' defaults, and which of the other flags given win; then exit",
        )

    def parse_flags(self, flags: Iterable[Flag], argv: Sequence[str] | None, required: Sequence[str] = ()) -> Flags:
        """Parses and validates the flags that `add_flags` has added, and expands the recipe. With --show it exits.

        Args:
            flags: as for `add_flags`.
            argv: the arguments; None for sys.argv[1:].
            required: names that must be given.

        Raises:
            FlagError: a flag is unknown or missing, or a value is not allowed.
        """
        return self._validated(self.parse_args(argv), flags, required)

    def parse_known_flags(
        self, flags: Iterable[Flag], argv: Sequence[str] | None, required: Sequence[str], *, beside: str
    ) -> tuple[Flags, list[str]]:
        """Does what `parse_flags` does, and returns the words of unknown flags, which another program takes.

        Args:
            beside: name of the flag without which there must not be any.
        """
        arguments, strays = self.parse_known_args(argv)
        if not hasattr(arguments, beside):
            self.reject(strays)
        return self._validated(arguments, flags, required), strays

    def _validated(self, arguments: argparse.Namespace, flags: Iterable[Flag], required: Sequence[str]) -> Flags:
        names = [flag.name for flag in flags]
        given = given_flags(arguments, names)
        show_recipe(arguments, given)
        parsed = flag_table.validate(recipes.expand(given), names)
        for name in required:
            if getattr(parsed, name) is None:
                raise FlagError(f"--{name} is required", hint=flag_table.BY_NAME[name].help)
        return parsed

    def list_in_help(self, flags: Iterable[Flag], required: Sequence[str] = ()) -> None:
        """Lists flags in `--help` that a later parser parses, as those that a pipeline's template decides."""
        self._flags_in_help, self._required_in_help = list(flags), required

    def format_help(self) -> str:
        """Returns the text of `--help`. The first call adds the flags of `list_in_help` to the parser."""
        self.add_flags(self._flags_in_help, self._required_in_help)
        self._flags_in_help = []
        return super().format_help()

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        parsed, strays = self.parse_known_args(args, namespace)
        self.reject(strays)
        return parsed

    def option_names(self) -> list[str]:
        """The long options, without their hyphens."""
        options = [option for action in self._actions for option in action.option_strings]
        return [option.removeprefix("--") for option in options if option.startswith("--")]

    def reject(self, strays: Sequence[str], known: Iterable[str] = ()) -> None:
        """Rejects the words that `parse_known_args` left over.

        Args:
            known: names of flags besides the parser's own, for the nearest one.

        Raises:
            FlagError: there are any.
        """
        for stray in strays:
            if stray.startswith("--"):
                name = stray.removeprefix("--").partition("=")[0]
                raise flag_table.unknown_flag(name, [*self.option_names(), *known])
        if strays:
            raise FlagError(
                "Unexpected positional arguments", received=" ".join(strays), hint="Put a value after its --flag."
            )

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        known = list(map(str, action.choices))
        is_command = isinstance(action, argparse._SubParsersAction)
        name = "/".join(action.option_strings) or action.metavar or action.dest  # a positional argument has no options
        raise FlagError(
            "Unknown command" if is_command else f"Invalid value for {name}",
            received=value,
            expected=" or ".join(known),
            hint=did_you_mean(str(value), known),
        )

    def error(self, message: str) -> NoReturn:
        raise FlagError(re.sub(r"^argument ", "", message), hint="--help lists the flags.")


def given_flags(parsed: argparse.Namespace, names: Iterable[str]) -> dict[str, object]:
    """Name -> text of those flags that were given, at their defaults or not; not validated."""
    given = {name: value for name, value in vars(parsed).items() if name in names}
    return {name: ",".join(value) if isinstance(value, list) else value for name, value in given.items()}


def show_recipe(parsed: argparse.Namespace, given: Mapping[str, object]) -> None:
    """If --show was given, prints the recipe and ends the process, as --help does.

    Args:
        parsed: of a parser with `add_show` or without.
        given: the flags, as `given_flags` returns them.

    Raises:
        FlagError: a value is not allowed, or --show was given without a recipe.
        SystemExit: the recipe was printed.
    """
    if not getattr(parsed, "show", False):
        return
    flag_table.validate(given, given)
    name = recipes.named(given)
    if name is None:
        raise FlagError("--show prints a recipe, and none is given", expected=f"--recipe {'|'.join(recipes.RECIPES)}")
    print(table(*recipes.comparison(name, given)))
    raise SystemExit(0)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligns columns at their widest cells; what a terminal would act on in a cell is escaped."""
    cells = [list(map(printable, row)) for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        padded = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def main(work: Callable[[Sequence[str] | None], int | None], argv: Sequence[str] | None = None) -> NoReturn:
    """Runs a command and exits: with 0 when it is done, 2 if the call is wrong, 1 if it failed, 130 after Ctrl-C.

    Args:
        work: the command; its result, if any, is the exit code.
        argv: passed to `work`; None for sys.argv[1:].
    """
    code: int | None = 0
    try:
        with reporting_errors():
            code = work(argv)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # the reader of our output has ended, as `| head` does
        sys.stderr.close()
        code = 1
    sys.exit(code or 0)


@contextlib.contextmanager
def reporting_errors() -> Iterator[None]:
    """Sets up logging and keeps libraries quiet for the block, and turns a UserError into a paragraph and an exit code.

    Changes global state: the root logger's handlers, for the block, and what `library_output.quiet` names.

    Raises:
        SystemExit: with the error's exit code.
    """
    with library_output.quiet(), _logging():
        try:
            yield
        except UserError as error:
            _print_error(str(error))
            raise SystemExit(error.exit_code) from None
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                raise
            _print_error(
                f"A file cannot be written. Received: {error.filename or 'a file'}: {error.strerror}. "
                "Free some space, and run again."
            )
            raise SystemExit(1) from None


class _Formatter(logging.Formatter):
    """Escapes what a terminal would act on: records name classes, files and values that come from outside."""

    def format(self, record: logging.LogRecord) -> str:
        return printable_lines(super().format(record))


@contextlib.contextmanager
def _logging() -> Iterator[None]:
    """Lines such as `12:01:09 I Training from scratch`, on stderr, or where KFP's executor has set up logging before.

    In a step that is stdout: what a container of Vertex AI writes to stderr is an error in Cloud Logging.
    """
    streams = [handler.stream for handler in logging.getLogger().handlers if type(handler) is logging.StreamHandler]
    handler = logging.StreamHandler(*streams[:1])
    handler.setFormatter(_Formatter("%(asctime)s %(levelname).1s %(message)s", "%H:%M:%S"))
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def _print_error(text: str) -> None:
    print(
        textwrap.fill(f"error: {printable(text)}", width=110, break_long_words=False, break_on_hyphens=False),
        file=sys.stderr,
        flush=True,
    )
