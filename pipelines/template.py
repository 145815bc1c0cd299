"""A compiled pipeline, and the parameters that it is given: checked before anything is sent."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tf_image_classification import command_line, storage
from tf_image_classification import flags as flag_table
from tf_image_classification.errors import FlagError
from tf_image_classification.flags import Flag
from tf_image_classification.promotion import champion

Spec = dict[str, Any]

_TYPES = {"STRING": str, "NUMBER_INTEGER": int, "NUMBER_DOUBLE": float, "BOOLEAN": bool}
# Flags that name files or folders: a step in the cloud sees none of this machine's.
_PATHS = (
    "model_dir",
    "checkpoint_path",
    "train_metadata",
    "eval_metadata",
    "labels_file",
    "image_root",
    "packages",
    "champion",
)


def load(path: str) -> Spec:
    """The pipeline of a compiled YAML or JSON file, local or gs://.

    Raises:
        FlagError: there is no such file, or it holds no pipeline.
    """
    import yaml

    expected = "a pipeline that `python -m pipelines compile` or KFP's compiler wrote, one YAML document"
    try:
        documents = list(yaml.safe_load_all(storage.read_text(path)))
    except OSError as error:
        raise FlagError(
            "Cannot read --template", received=f"{path} ({error.strerror or 'not there'})", expected=expected
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise FlagError("--template is not YAML", received=path, expected=expected) from None
    found = documents[0] if len(documents) == 1 else None
    if isinstance(found, dict):
        found = found.get("pipelineSpec", found)
    if not isinstance(found, dict) or "root" not in found or "pipelineInfo" not in found:
        raise FlagError("--template holds no pipeline", received=path, expected=expected)
    return found


def signature(spec: Spec | None) -> list[Flag]:
    """The parameters of a pipeline as flags; of this project's own, when `spec` is None.

    A parameter that is called as a flag of the table takes what that flag takes. Parameters that are lists or structs
    are not
    among them: only a file of parameters gives those.
    """
    if spec is None:
        return flag_table.of_pipeline()
    flags = []
    for name, one in _definitions(spec).items():
        if one["parameterType"] not in _TYPES:
            continue
        kind = _TYPES[one["parameterType"]]
        known = flag_table.BY_NAME.get(name)
        if known and known.steps and known.type is kind:
            flags.append(known)
        else:
            default = one.get("defaultValue")
            default = None if default in (None, "") else kind(default)
            flags.append(Flag(name, kind, default, "Pipeline", one.get("description", "")))
    return flags


def parse_options(parser: command_line.Parser, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """A command's own options, and the words left over, which `parse_parameters` takes; or its help, with the table's
    flags."""
    if {"-h", "--help"} & set(argv):
        parser.add_flags(_free(parser, flag_table.of_pipeline()))
        parser.print_help()
        raise SystemExit(0)
    return parser.parse_known_args(list(argv))


def parse_parameters(parser: command_line.Parser, words: Sequence[str], spec: Spec | None) -> dict[str, object]:
    """The pipeline's parameters among the words that a command's own options have left over.

    Raises:
        FlagError: there is no such parameter (the nearest one or the nearest option is named), or no value is given.
    """
    flags = signature(spec)
    own = command_line.Parser(parser.prog, "")
    own.add_flags(_free(parser, flags))
    known = [option.removeprefix("--") for option in _options(parser)] + [flag.name for flag in flags]
    given, strays = own.parse_known_args(list(words))
    for stray in strays:
        if stray.startswith("--"):
            raise flag_table.unknown_flag(stray.removeprefix("--").partition("=")[0], known)
    own.parse_args(list(words))  # what is left can only be a value that no flag takes
    return command_line.given_flags(given, [flag.name for flag in flags])


def read_parameters(path: str) -> dict[str, object]:
    """The parameters in a YAML file of `name: value` lines, local or gs://.

    Raises:
        FlagError: there is no such file, or it holds something else.
    """
    import yaml

    expected = "a YAML file of `flag: value` lines"
    try:
        found = yaml.safe_load(storage.read_text(path)) or {}
    except OSError as error:
        raise FlagError(
            "Cannot read --params", received=f"{path} ({error.strerror or 'not there'})", expected=expected
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise FlagError("--params is not a mapping of flags to values", received=path, expected=expected)
    return found


def check(spec: Spec | None, given: Mapping[str, object]) -> dict[str, Any]:
    """The parameters to send: those of `given` that are set, typed as the pipeline has them.

    Raises:
        FlagError: a parameter is unknown, a value is not one that it takes, or a required one is missing.
    """
    flags = {flag.name: flag for flag in signature(spec)}
    definitions = _definitions(spec) if spec else {}
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name in flags:
            values[name] = flags[name].parse(value)
        elif name in definitions:
            values[name] = _check_compound(name, definitions[name]["parameterType"], value)
        else:
            raise flag_table.unknown_flag(name, [*flags, *definitions])
    values = {name: value for name, value in values.items() if value is not None}
    missing = [name for name, one in definitions.items() if "defaultValue" not in one and not one.get("isOptional")]
    missing += ["train_metadata"] if flags.get("train_metadata") is flag_table.BY_NAME["train_metadata"] else []
    for name in missing:
        if name not in values:
            raise FlagError(
                f"--{name} is required", hint=flags[name].help if name in flags else "Give it in a file, with --params."
            )
    return values


def check_paths(parameters: Mapping[str, Any]) -> None:
    """Makes sure that nothing of this machine is named.

    Raises:
        FlagError: a flag names a local file or folder.
    """
    for name in _PATHS:
        value = str(parameters.get(name, ""))
        if (name, value) == ("checkpoint_path", champion.WARM_START) or (
            name == "champion" and champion.is_registry(value)
        ):
            continue
        # What is in service is written on a condition, which a mount does not know.
        places = (storage.GCS_SCHEME,) if name == "champion" else (storage.GCS_SCHEME, storage.GCS_MOUNT)
        for part in value.split(","):
            if part and not part.strip().startswith(places):
                raise FlagError(
                    f"--{name} names a place that the pipeline's machines cannot see",
                    received=part,
                    expected="gs://BUCKET/PATH",
                    hint=f"Copy it there first: gcloud storage cp --recursive {part} gs://BUCKET/",
                )


def without_cache(spec: Spec) -> Spec:
    """The same pipeline with every task run anew."""
    import copy

    spec = copy.deepcopy(spec)
    for component in [spec["root"], *spec.get("components", {}).values()]:
        for task in component.get("dag", {}).get("tasks", {}).values():
            task["cachingOptions"] = {"enableCache": False}
    return spec


def step_names(spec: Mapping[str, Any]) -> set[str]:
    """The names of a pipeline's tasks, those in conditions and exit handlers among them, without these groups
    themselves."""
    dags = [one["dag"] for one in [spec.get("root", {}), *spec.get("components", {}).values()] if "dag" in one]
    tasks = {name: task["componentRef"]["name"] for dag in dags for name, task in dag.get("tasks", {}).items()}
    return {name for name, component in tasks.items() if "dag" not in spec["components"][component]}


def name(spec: Spec) -> str:
    """What the pipeline is called."""
    return str(spec["pipelineInfo"]["name"])


def add_params_option(parser: argparse.ArgumentParser) -> None:
    """--params."""
    parser.add_argument(
        "--params",
        metavar="FILE.yaml",
        help="pipeline parameters, as `flag: value` lines; flags on the command line win",
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options that say which pipeline."""
    group = parser.add_argument_group("Pipeline")
    group.add_argument(
        "--template", metavar="FILE", help="a compiled pipeline, local or gs:// (default: compiles this checkout's)"
    )
    add_compile_options(parser.add_argument_group("Compilation, without --template"))


def add_compile_options(parser: argparse._ActionsContainer) -> None:
    """Options that are fixed when the pipeline is compiled."""
    parser.add_argument(
        "--image_registry",
        default="tf-image-classification",
        help="images are REGISTRY/IMAGE:TAG (default: %(default)s)",
    )
    parser.add_argument(
        "--image_tag",
        default="",
        help="never one that moves, such as latest (default: for each image a hash of what it is made from)",
    )
    for name, value, what in (
        ("cpu", "N", "cores"),
        ("memory", "NG", "memory"),
        ("accelerator", "TYPE:N", "accelerators, as NVIDIA_TESLA_T4:1: the step runs in the GPU variant of its image;"),
    ):
        text = f"{what} of the training step, or of STEP; may be given several times"
        parser.add_argument(f"--{name}", action="append", default=[], metavar=f"[STEP=]{value}", help=text)
    parser.add_argument(
        "--retries",
        type=int,
        default=0,
        metavar="N",
        help="how often a failed step is tried again (default: %(default)s)",
    )
    parser.add_argument(
        "--notify",
        default="",
        metavar="WHERE",
        help=(
            "tell of a run that fails: a web address that takes JSON, or projects/P/topics/T of "
            "Pub/Sub; it can be read in the pipeline"
        ),
    )


def chosen(given: argparse.Namespace) -> Spec | None:
    """The pipeline of --template; None without one.

    Raises:
        FlagError: it cannot be read, or an option of the compilation is given with it.
    """
    fixed = [
        name for name in ("image_tag", "cpu", "memory", "accelerator", "retries", "notify") if getattr(given, name)
    ]
    if given.template and fixed:
        raise FlagError(
            f"--{fixed[0]} cannot be given with --template",
            hint="It is fixed in the template: give it to `python -m pipelines compile`.",
        )
    return load(given.template) if given.template else None


def compile_to(output: str, given: argparse.Namespace) -> None:
    """Compiles this checkout's pipeline as the options say.

    Raises:
        FlagError: an option has an invalid value, or `output` cannot be written.
    """
    if given.retries < 0:
        raise FlagError("Invalid value for --retries", received=given.retries, expected="a whole number >= 0")

    from pipelines.compile import by_step, compile_pipeline, image_references
    from pipelines.definition import Options

    if given.notify:
        from tf_image_classification.promotion import notify

        notify.check(given.notify)
    cpu, memory, accelerator = (
        by_step("cpu", given.cpu),
        by_step("memory", given.memory),
        by_step("accelerator", given.accelerator),
    )
    chosen = image_references(given.image_registry, given.image_tag, accelerator)
    compile_pipeline(output, Options(chosen, cpu, memory, accelerator, given.retries, given.notify))


def compiled(given: argparse.Namespace) -> Spec:
    """This checkout's pipeline, compiled as the options say."""
    with storage.temporary_dir() as folder:
        place = storage.join(folder, "pipeline.yaml")
        compile_to(place, given)
        return load(place)


def _options(parser: argparse.ArgumentParser) -> set[str]:
    return {option for action in parser._actions for option in action.option_strings if option.startswith("--")}


def _free(parser: argparse.ArgumentParser, flags: Iterable[Flag]) -> list[Flag]:
    """Flags that no option of the command shadows; --params gives the others."""
    taken = _options(parser)
    return [flag for flag in flags if f"--{flag.name}" not in taken]


def _definitions(spec: Spec) -> dict[str, Any]:
    return dict(spec["root"].get("inputDefinitions", {}).get("parameters", {}))


def _check_compound(name: str, kind: str, value: object) -> object:
    wanted: type = list if kind == "LIST" else dict
    if not isinstance(value, wanted):
        raise FlagError(
            f"Invalid value for {name}",
            received=repr(value),
            expected="a list" if wanted is list else "a mapping",
        )
    return value
