"""Every flag, once: name, type, default, allowed values, group and help.

Command lines, pipeline parameters, component arguments, the README's table and validation are all derived from `FLAGS`.
"""

from __future__ import annotations

import difflib
import math
import re
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tf_image_classification.errors import FlagError

_GLOB_CHARACTERS = frozenset("*?[")
_LARGEST = 2**31 - 1  # of a whole number: what TensorFlow's shapes and seeds hold

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


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag.

    Attributes:
        name: as written on a command line after `--`, with underscores, and as the pipeline parameter.
        type: str, int, float or bool.
        default: the value of a flag that is not given; None means "not set".
        group: heading in `--help` and in the README's table.
        help: one or two sentences, units included.
        choices: the only values allowed; empty allows all.
        least, most: inclusive bounds of a number.
        above, below: exclusive bounds of a number.
        commands: the command lines that take the flag.
        steps: the pipeline steps that take it; a flag of no step is not a pipeline parameter.
        several: several values may be given; they are joined by commas (a glob that the shell expanded).
        ours: not among the original framework's flags.
        literal: a path in which TensorFlow would take *, ? and [ for a pattern, so they are refused.
        patterns: comma-separated regular expressions.
    """

    name: str
    type: type[str] | type[int] | type[float] | type[bool]
    default: Value
    group: str
    help: str
    choices: tuple[str, ...] = ()
    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf
    commands: tuple[str, ...] = (TRAIN,)
    # What decides a training, resolve is told too: it says whether the model in service has been made by just that training.
    steps: tuple[str, ...] = (RESOLVE_STEP, TRAIN_STEP)
    several: bool = False
    ours: bool = False
    literal: bool = False
    patterns: bool = False

    @property
    def pipeline_default(self) -> str | int | float | bool:
        """The default as a pipeline parameter: KFP has no good None, so '' or -1 says "not set"."""
        if self.default is None:
            return "" if self.type is str else self.type(-1)
        return self.type(self.default)

    @property
    def allowed(self) -> str:
        """What may be given, in words."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.type is bool:
            return "true or false"
        if self.type is str:
            return "a text that is not empty"
        noun = "a whole number" if self.type is int else "a number"
        bounds = [
            f"{word} {bound:g}"
            for word, bound, unbounded in (
                (">=", self.least, -math.inf),
                (">", self.above, -math.inf),
                ("<=", self.most, math.inf),
                ("<", self.below, math.inf),
            )
            if bound != unbounded
        ]
        return " ".join([noun, " and ".join(bounds)]).strip()

    def parse(self, value: object) -> Value:
        """Converts and checks one value, from a command line (text) or from a pipeline (typed).

        Raises:
            FlagError: naming the flag, what was received and what is allowed.
        """
        if value is None or value == "" or (self.default is None and self.type is not str and value in (-1, "-1")):
            if self.default is None:
                return None
            raise self._error(value)
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
            raise self._error(value) from None
        if isinstance(parsed, str):
            self._check_text(parsed)
        if self.choices and parsed not in self.choices:
            raise self._error(value)
        if isinstance(parsed, (int, float)) and not isinstance(parsed, bool):
            within = self.least <= parsed <= self.most and self.above < parsed < self.below
            if not (within and math.isfinite(parsed)):
                raise self._error(value)
        return parsed

    def _check_text(self, text: str) -> None:
        if self.literal and not _GLOB_CHARACTERS.isdisjoint(text):
            raise FlagError(f"--{self.name} names one place", received=text, expected="a path without the characters * ? [")
        for pattern in filter(None, (part.strip() for part in text.split(","))) if self.patterns else ():
            try:
                re.compile(pattern)
            except re.error as error:
                raise FlagError(f"--{self.name} holds something else than a regular expression", received=f"{pattern}: {error}") from None

    def _error(self, value: object) -> FlagError:
        hint = ""
        if self.choices and (near := difflib.get_close_matches(str(value).lower(), self.choices, n=1)):
            hint = f"Did you mean {near[0]}?"
        return FlagError(f"--{self.name} has a value that it does not take", received=repr(value), expected=self.allowed, hint=hint)


class Flags(types.SimpleNamespace):
    """Validated flag values, by attribute. Made by `validate`."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"no flag named {name} was asked for; these were: {', '.join(vars(self))}")


def validate(values: Mapping[str, object], names: Iterable[str]) -> Flags:
    """Checks `values` against the table.

    Args:
        values: flag name -> value. Those of `names` that are missing get their defaults.
        names: the flags that the caller takes.

    Raises:
        FlagError: a value is not allowed, or a flag is unknown (the nearest known name is suggested).
    """
    known = list(names)
    for name in values:
        if name not in known:
            raise unknown_flag(name, known)
    return Flags(**{name: BY_NAME[name].parse(values.get(name, BY_NAME[name].default)) for name in known})


def check_image_size(model_name: str, image_size: int) -> None:
    """Checks that images are large enough for a built-in network.

    Raises:
        FlagError: they are not.
    """
    least = LEAST_IMAGE_SIZE[model_name]
    if image_size < least:
        raise FlagError(f"--image_size is too small for {model_name}", received=image_size, expected=f"{least} pixels or more")


def for_step(step: str, arguments: Mapping[str, object]) -> Flags:
    """The flags of a pipeline step, checked, out of all its arguments; '' and -1 become "not set".

    Raises:
        FlagError: a value is not allowed.
    """
    names = [flag.name for flag in of_step(step)]
    return validate({name: arguments[name] for name in names if name in arguments}, names)


def unknown_flag(name: str, known: Iterable[str]) -> FlagError:
    """The error for a flag that does not exist, with the nearest one that does."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return FlagError(
        f"There is no flag --{name}",
        hint=f"Did you mean --{near[0]}?" if near else "--help lists the flags.",
    )


def of_command(command: str) -> list[Flag]:
    """The flags that a command line takes, in the table's order."""
    return [flag for flag in FLAGS if command in flag.commands]


def of_step(step: str) -> list[Flag]:
    """The flags that a pipeline step takes, in the table's order."""
    return [flag for flag in FLAGS if step in flag.steps]


def of_pipeline() -> list[Flag]:
    """The flags that are pipeline parameters, in the table's order."""
    return [flag for flag in FLAGS if flag.steps]


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
    if abs(number) > _LARGEST:
        raise ValueError(value)
    return number


# The built-in networks, and the least height and width in pixels of which something reaches their logits.
LEAST_IMAGE_SIZE = {
    "small": 8,
    "inception_v1": 32,
    "inception_v2": 32,
    "inception_v3": 75,
    "inception_v4": 75,
    "inception_resnet_v2": 75,
    "mobilenet_v1": 32,
    "mobilenet_v2": 32,
    "resnet_v1_50": 32,
    "resnet_v1_101": 32,
    "resnet_v1_152": 32,
    "resnet_v2_50": 32,
    "resnet_v2_101": 32,
    "resnet_v2_152": 32,
    "vgg_16": 224,  # fc6 needs a 7x7 map after five halvings
    "vgg_19": 224,
}

COMMON, DATA, MODEL = "Common", "Data", "Model"
OPTIMIZERS, LEARNING_RATE, FINE_TUNING, GATE, SERVICE = "Optimizers", "Learning rate", "Fine tuning", "Gate", "In service"

FLAGS: tuple[Flag, ...] = (
    # Common
    Flag("model_dir", str, None, COMMON,
         "Folder for checkpoints, TensorBoard summaries and, under export/, the finished model. A checkpoint found there is resumed. "
         "In the pipeline: where checkpoints live (default: checkpoints/ under the pipeline root).",
         steps=(TRAIN_STEP,), literal=True),
    Flag("checkpoint_path", str, None, COMMON,
         "Pretrained weights to start from: a slim .ckpt (V1 or V2), a folder of checkpoints, a TF2 checkpoint, .keras, .weights.h5, "
         "or a model folder of this project; in the pipeline, champion is the model in service. Not set: train from scratch.",
         literal=True),
    Flag("train_metadata", str, None, COMMON,
         "Training images: a CSV of path,label (or with header URIs,labels), a folder with one sub-folder per class, or TFRecord files "
         "or globs; several are separated by commas.",
         commands=(BUILD, TRAIN), steps=(RESOLVE_STEP, BUILD_STEP), several=True),
    Flag("eval_metadata", str, None, COMMON,
         "Evaluation images, given like --train_metadata. Not set: --eval_fraction of the training images is held out.",
         commands=(BUILD, TRAIN, EVALUATE), steps=(RESOLVE_STEP, BUILD_STEP), several=True),
    Flag("batch_size", int, 1, COMMON, "Examples per training step, over all replicas.", least=1),
    Flag("train_steps", int, 20, COMMON,
         "Global step at which training ends. It is absolute: a resumed training counts the steps it has already made.", least=1),
    Flag("image_size", int, 299, COMMON, "Height and width in pixels to which preprocessing resizes every image.", least=1, most=8192),
    Flag("eval_freq", int, 5, COMMON, "Evaluation batches in each evaluation during training.", least=1),
    Flag("eval_throttle_secs", int, 120, COMMON, "Seconds between evaluations during training; there is always one at the end.", least=0),
    Flag("debug", bool, False, COMMON, "Debug mode: the data set is not shuffled."),
    # Data
    Flag("labels_file", str, None, DATA,
         "Text file with one class name per line; the line number, from 0, is the class id. Not set: the sorted names of the training set.",
         commands=(BUILD, TRAIN), steps=(RESOLVE_STEP, BUILD_STEP), ours=True),
    Flag("image_root", str, None, DATA,
         "Folder that relative image paths in a CSV are relative to, and outside which no image is read. Not set: the CSV's own folder.",
         commands=(BUILD, TRAIN, EVALUATE), steps=(RESOLVE_STEP, BUILD_STEP), ours=True),
    Flag("eval_fraction", float, 0.2, DATA,
         "Share of the training images that is held out for evaluation when --eval_metadata is not set. An image's path decides, so adding "
         "images moves none.",
         above=0, below=1, commands=(BUILD, TRAIN), steps=(RESOLVE_STEP, BUILD_STEP), ours=True),
    Flag("workers", int, None, DATA, "Processes that read and check images. Not set: one per core.",
         least=1, commands=(BUILD, TRAIN, EVALUATE), steps=(), ours=True),
    Flag("output_dir", str, None, DATA, "Folder that the command's results are written to.",
         commands=(BUILD, EVALUATE), steps=(), ours=True),
    # Model
    Flag("model_name", str, "small", MODEL, "Built-in network.",
         choices=tuple(LEAST_IMAGE_SIZE), ours=True),
    Flag("estimator", str, None, MODEL,
         "Your own EstimatorSpec, as package.module:Class. Not set: the built-in network that --model_name names.",
         commands=(TRAIN, EVALUATE), steps=(RESOLVE_STEP, TRAIN_STEP, EVALUATE_STEP), ours=True),
    Flag("packages", str, None, MODEL,
         "Wheels or source archives that --estimator needs, local or gs://, separated by commas; installed into a folder of their own.",
         commands=(TRAIN, EVALUATE), steps=(RESOLVE_STEP, TRAIN_STEP, EVALUATE_STEP), several=True, ours=True),
    Flag("model", str, None, MODEL, "Model folder to evaluate, as training exported it.",
         commands=(EVALUATE,), steps=(), ours=True, literal=True),
    Flag("eval_batch_size", int, 32, MODEL, "Images per batch when a finished model is evaluated.",
         least=1, commands=(EVALUATE,), steps=(EVALUATE_STEP,), ours=True),
    Flag("seed", int, None, MODEL, "Makes two trainings on one machine bit-identical. Not set: each training differs.",
         least=0, ours=True),
    Flag("save_checkpoints_secs", float, 600, MODEL, "Seconds between checkpoints, besides those before each evaluation and at the end.",
         above=0, ours=True),
    Flag("mixed_precision", bool, False, MODEL, "Compute in float16 with float32 variables: faster on GPUs with tensor cores.", ours=True),
    # Optimizers
    Flag("weight_decay", float, 0.00004, OPTIMIZERS,
         "L2 regularisation of the network's kernels: weight_decay * sum(w^2) / 2 is added to the loss.", least=0),
    Flag("optimizer", str, "rmsprop", OPTIMIZERS, "Name of the optimizer.",
         choices=("adadelta", "adagrad", "adam", "ftrl", "momentum", "sgd", "rmsprop")),
    Flag("adadelta_rho", float, 0.95, OPTIMIZERS, "Decay rate of adadelta.", least=0, most=1),
    Flag("adagrad_initial_accumulator_value", float, 0.1, OPTIMIZERS, "Starting value of adagrad's accumulators.", above=0),
    Flag("adam_beta1", float, 0.9, OPTIMIZERS, "Exponential decay rate of adam's first moments.", least=0, below=1),
    Flag("adam_beta2", float, 0.999, OPTIMIZERS, "Exponential decay rate of adam's second moments.", least=0, below=1),
    Flag("opt_epsilon", float, 1.0, OPTIMIZERS, "Epsilon of adadelta, adam and rmsprop.", least=0),
    Flag("ftrl_learning_rate_power", float, -0.5, OPTIMIZERS, "Learning-rate power of ftrl.", most=0),
    Flag("ftrl_initial_accumulator_value", float, 0.1, OPTIMIZERS, "Starting value of ftrl's accumulators.", least=0),
    Flag("ftrl_l1", float, 0.0, OPTIMIZERS, "L1 regularisation strength of ftrl.", least=0),
    Flag("ftrl_l2", float, 0.0, OPTIMIZERS, "L2 regularisation strength of ftrl.", least=0),
    Flag("momentum", float, 0.9, OPTIMIZERS, "Momentum of the momentum optimizer.", least=0),
    Flag("rmsprop_momentum", float, 0.9, OPTIMIZERS, "Momentum of rmsprop.", least=0),
    Flag("rmsprop_decay", float, 0.9, OPTIMIZERS, "Decay of rmsprop's mean square.", least=0, most=1),
    # Learning rate
    Flag("learning_rate_decay_type", str, "exponential", LEARNING_RATE, "How the learning rate decays: in steps, not at all, or linearly.",
         choices=("fixed", "exponential", "polynomial")),
    Flag("learning_rate", float, 0.01, LEARNING_RATE, "Initial learning rate.", above=0),
    Flag("end_learning_rate", float, 0.0001, LEARNING_RATE, "Learning rate at which polynomial decay ends.", least=0),
    Flag("learning_rate_decay_factor", float, 0.94, LEARNING_RATE, "Factor of each step of exponential decay.", above=0),
    Flag("label_smoothing", float, 0.0, LEARNING_RATE, "Share of each label that is spread evenly over all classes.", least=0, below=1),
    Flag("num_epochs_per_decay", float, 2.0, LEARNING_RATE,
         "Epochs after which exponential decay takes a step, and over which polynomial decay runs.", above=0),
    Flag("sync_replicas", bool, False, LEARNING_RATE,
         "Divide the steps of a decay by --replicas_to_aggregate. That is all it does: replicas are synchronous anyway."),
    Flag("replicas_to_aggregate", int, 1, LEARNING_RATE, "What --sync_replicas divides the steps of a decay by.", least=1),
    # Fine tuning
    Flag("trainable_scopes", str, None, FINE_TUNING,
         "Comma-separated scopes to train: regular expressions matched from the start of a variable's name. Not set: all variables.",
         patterns=True),
    Flag("checkpoint_exclude_scopes", str, None, FINE_TUNING,
         "Comma-separated prefixes of variable names that are not loaded from --checkpoint_path. Not set: all are loaded."),
    # Gate
    Flag("min_accuracy", float, 0.0, GATE, "The model passes only with at least this accuracy on the evaluation set.",
         least=0, most=1, commands=(), steps=(GATE_STEP,), ours=True),
    Flag("min_macro_f1", float, 0.0, GATE, "The model passes only with at least this F1 score, averaged over classes.",
         least=0, most=1, commands=(), steps=(GATE_STEP,), ours=True),
    Flag("min_class_recall", float, 0.0, GATE, "The model passes only if every class is recalled at least this well.",
         least=0, most=1, commands=(), steps=(GATE_STEP,), ours=True),
    Flag("max_loss", float, None, GATE, "The model passes only with at most this loss. Not set: any loss passes.",
         least=0, commands=(), steps=(GATE_STEP,), ours=True),
    # In service
    Flag("champion", str, None, SERVICE,
         "Where the model in service is kept: a folder, or a model of Vertex AI's registry, projects/P/locations/L/models/ID. The new "
         "model passes only if it beats that one on the evaluation set, and then takes its place. Not set: nothing is put in service.",
         commands=(), steps=(RESOLVE_STEP, REGISTER_STEP), ours=True, literal=True),
    Flag("champion_metric", str, "accuracy", SERVICE,
         "What the new model and the one in service are compared by; of several tasks, its mean.",
         choices=("accuracy", "macro_f1", "loss"), commands=(), steps=(GATE_STEP,), ours=True),
    Flag("min_improvement", float, 0.0, SERVICE,
         "How much better --champion_metric has to be than that of the model in service. 0: better at all; below 0: so much worse at most.",
         commands=(), steps=(GATE_STEP,), ours=True),
    Flag("endpoint", str, None, SERVICE,
         "Endpoint of Vertex AI, projects/P/locations/L/endpoints/ID, that a model which passes is deployed to, with all its traffic; for "
         "a --champion in Vertex AI's registry. Not set: nothing is deployed.",
         commands=(), steps=(REGISTER_STEP,), ours=True),
    Flag("serving_machine_type", str, "e2-standard-4", SERVICE, "Machine type of Vertex AI on which --endpoint serves the model.",
         commands=(), steps=(REGISTER_STEP,), ours=True),
    Flag("serving_image", str, "us-docker.pkg.dev/vertex-ai/prediction/tf2-cpu.2-15:latest", SERVICE,
         "Container that Vertex AI serves the model with: one of its prebuilt ones for TensorFlow 2.",
         commands=(), steps=(REGISTER_STEP,), ours=True),
)  # fmt: skip

BY_NAME: dict[str, Flag] = {flag.name: flag for flag in FLAGS}
