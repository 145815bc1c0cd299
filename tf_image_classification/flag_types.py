"""One flag: its type, its default, its allowed values, and how a value is parsed and checked."""

from __future__ import annotations

import math
import re
import types
from dataclasses import dataclass
from typing import Any, Literal

from tf_image_classification.errors import FlagError, did_you_mean

Value = str | int | float | bool | None

BUILD, TRAIN, EVALUATE = "build_tfrecords", "train_estimator", "evaluate"  # command lines
RESOLVE_STEP, BUILD_STEP, TRAIN_STEP, EVALUATE_STEP, GATE_STEP, REGISTER_STEP = STEPS = (
    "resolve",
    "build_tfrecords",
    "train",
    "evaluate",
    "gate",
    "register",
)

GLOB_CHARACTERS = frozenset("*?[")
# Vertex AI has its prebuilt containers under the tag latest only; the version of TensorFlow is in the image's name.
_PREBUILT = re.compile(r"[a-z]+-docker\.pkg\.dev/vertex-ai(-restricted)?/prediction/[a-z0-9_]+-[a-z]+\.\d+-\d+:latest")
_MAX_INTEGER = 2**31 - 1  # int32, as in TensorFlow's shapes and seeds


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag.

    Attributes:
        name: as written on a command line after `--`, with underscores, and as the pipeline parameter.
        type: str, int, float or bool.
        default: the value when the flag is not given; None means "not set".
        group: heading in `--help` and in the documentation's table.
        help: a few sentences, units included.
        choices: the allowed values; empty allows all.
        ge, le: inclusive bounds of a number.
        gt, lt: exclusive bounds of a number.
        commands: the command lines that take the flag.
        steps: the pipeline steps that take it; a flag of no step is not a pipeline parameter.
        path: "read" for files or folders that are read, "write" for a folder that is written to, "" for no path.
        is_list: takes several values, which are joined by commas (a glob that the shell expanded).
        no_glob: a path without *, ? and [, which TensorFlow would interpret as a pattern.
        is_regex: comma-separated regular expressions.
        is_range: two numbers within the bounds, the smaller first, separated by a comma.
        is_comma_separated: several values in one word, which is not split by the command line.
        is_image: a container image, whose name says its version.
        in_checkpoint_key: whether a training with another value of this training flag has checkpoints of its own.
        ours: not one of the original framework's flags.
    """

    name: str
    type: type[str] | type[int] | type[float] | type[bool]
    default: Value
    group: str
    help: str
    choices: tuple[str, ...] = ()
    ge: float = -math.inf
    le: float = math.inf
    gt: float = -math.inf
    lt: float = math.inf
    commands: tuple[str, ...] = (TRAIN,)
    # resolve takes every training flag: it checks whether the model in service comes from an identical training.
    steps: tuple[str, ...] = (RESOLVE_STEP, TRAIN_STEP)
    path: Literal["", "read", "write"] = ""
    is_list: bool = False
    no_glob: bool = False
    is_regex: bool = False
    is_range: bool = False
    is_comma_separated: bool = False
    is_image: bool = False
    in_checkpoint_key: bool = True
    ours: bool = False

    @property
    def is_training(self) -> bool:
        """Whether the training step takes this flag."""
        return TRAIN_STEP in self.steps

    @property
    def takes_several(self) -> bool:
        """Whether the value may be several, separated by commas."""
        return self.is_list or self.is_regex or self.is_range or self.is_comma_separated

    @property
    def pipeline_default(self) -> str | int | float | bool:
        """The default as a pipeline parameter: '' or -1 for "not set", as KFP cannot pass None."""
        if self.default is None:
            return "" if self.type is str else self.type(-1)
        return self.type(self.default)

    @property
    def allowed(self) -> str:
        """The allowed values, in words."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.type is bool:
            return "true or false"
        if self.type is str and not self.is_range:
            return "a non-empty string"
        noun = "a whole number" if self.type is int else "a number"
        if self.is_range:
            noun = "two numbers, the smaller first, separated by a comma, each"
        bounds = ((">=", self.ge), (">", self.gt), ("<=", self.le), ("<", self.lt))
        limits = [f"{sign} {bound:g}" for sign, bound in bounds if math.isfinite(bound)]
        return " ".join([noun, " and ".join(limits)]).strip()

    def parse(self, value: object) -> Value:
        """Converts and checks a value.

        Args:
            value: text from a command line, or a typed value from a pipeline. None, '' and, for a number without
                default, -1 mean "not set".

        Returns:
            The value as `type`; None if it is not set and the default is None.

        Raises:
            FlagError: the value is not allowed; it names the flag and the allowed values.
        """
        if value is None or value == "" or (self.default is None and self.type is not str and value in (-1, "-1")):
            if self.default is None:
                return None
            raise self._invalid(value)
        parsed: Value
        try:
            if self.type is bool:
                parsed = _parse_bool(value)
            elif self.type is int:
                parsed = _parse_int(value)
            elif self.type is float:
                parsed = float(value)  # type: ignore[arg-type]
            else:
                parsed = str(value)
        except (TypeError, ValueError, OverflowError):
            raise self._invalid(value) from None
        if isinstance(parsed, str):
            self._check_text(parsed)
        if self.choices and parsed not in self.choices:
            raise self._invalid(value)
        if isinstance(parsed, (int, float)) and not isinstance(parsed, bool) and not self._is_within(parsed):
            raise self._invalid(value)
        return parsed

    def _is_within(self, number: float) -> bool:
        return math.isfinite(number) and self.ge <= number <= self.le and self.gt < number < self.lt

    def _check_text(self, text: str) -> None:
        if self.no_glob:
            check_single_path(self.name, text)
        if self.is_image:
            _check_versioned(self.name, text)
        if self.is_range:
            try:
                low, high = parse_range(text)
            except ValueError:
                raise self._invalid(text) from None
            if not (low <= high and all(self._is_within(number) for number in (low, high))):
                raise self._invalid(text)
        for pattern in filter(None, (part.strip() for part in text.split(","))) if self.is_regex else ():
            try:
                re.compile(pattern)
            except re.error as error:
                raise FlagError(f"--{self.name} is not a regular expression", received=f"{pattern}: {error}") from None

    def _invalid(self, value: object) -> FlagError:
        hint = did_you_mean(str(value).lower(), self.choices)
        return FlagError(f"Invalid value for --{self.name}", received=repr(value), expected=self.allowed, hint=hint)


class Flags(types.SimpleNamespace):
    """Validated flag values, as attributes. `flags.validate` returns one."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"flag {name} was not parsed; parsed flags: {', '.join(vars(self))}")


def check_single_path(name: str, path: str) -> None:
    """Checks that the path which an option takes is no glob.

    Raises:
        FlagError: it has *, ? or [.
    """
    if not GLOB_CHARACTERS.isdisjoint(path):
        raise FlagError(f"--{name} takes a single path", received=path, expected="a path without the characters * ? [")


def parse_range(text: str) -> tuple[float, float]:
    """The two numbers of a flag with `is_range`.

    Raises:
        ValueError: there are not two numbers.
    """
    low, high = map(float, text.split(","))
    return low, high


def _check_versioned(name: str, image: str) -> None:
    tag = image.rpartition("/")[2].partition(":")[2]
    if tag in ("", "latest") and "@sha256:" not in image and not _PREBUILT.fullmatch(image):
        raise FlagError(
            f"--{name} is an image whose tag moves",
            received=image,
            expected="IMAGE:VERSION, IMAGE@sha256:DIGEST, or a prebuilt container of Vertex AI",
            hint="What `latest` names changes without notice, under the models that are in service.",
        )


def _parse_bool(value: object) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).lower()
    if text in ("true", "t", "1", "yes", "y"):
        return True
    if text in ("false", "f", "0", "no", "n"):
        return False
    raise ValueError(value)


def _parse_int(value: object) -> int:
    if isinstance(value, bool):
        raise ValueError(value)
    if isinstance(value, str) and not re.fullmatch(r"[+-]?[0-9]+", value):
        raise ValueError(value)
    if isinstance(value, float) and not value.is_integer():
        raise ValueError(value)
    number = int(value)  # type: ignore[call-overload]
    if abs(number) > _MAX_INTEGER:
        raise ValueError(value)
    return number
