"""A compiled pipeline: its parameters and tasks, and checks of the values for it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pipelines import yaml_files
from tf_image_classification import flags as flag_table
from tf_image_classification import storage
from tf_image_classification.errors import FlagError
from tf_image_classification.flag_types import EVALUATE_STEP, TRAIN_STEP
from tf_image_classification.flags import Flag
from tf_image_classification.promotion import champion

Spec = dict[str, Any]


class Pipeline(NamedTuple):
    """A compiled pipeline.

    Attributes:
        platforms: its settings for Kubernetes, by platform, which KFP compiles to a second YAML document.
    """

    spec: Spec
    platforms: dict[str, Any]


_TYPES = {"STRING": str, "NUMBER_INTEGER": int, "NUMBER_DOUBLE": float, "BOOLEAN": bool}


def load(path: str) -> Pipeline:
    """The pipeline of a compiled YAML or JSON file, local or gs://.

    Raises:
        FlagError: the file is not found, or it does not contain a pipeline.
    """
    expected = "a pipeline that `python -m pipelines compile` or KFP's compiler wrote, one or two YAML documents"
    documents = yaml_files.read("--template", path, expected)
    found, settings = documents[0] if documents else None, documents[1] if len(documents) == 2 else {"platforms": {}}
    if isinstance(found, dict):
        found = found.get("pipelineSpec", found)
    if not isinstance(found, dict) or "root" not in found or "pipelineInfo" not in found or len(documents) > 2:
        raise FlagError("--template does not contain a pipeline", received=path, expected=expected)
    if not isinstance(settings, dict) or set(settings) != {"platforms"} or not isinstance(settings["platforms"], dict):
        raise FlagError("The second document of --template is no platform spec", received=path, expected=expected)
    return Pipeline(found, settings["platforms"])


def signature(spec: Spec | None) -> list[Flag]:
    """The parameters of a pipeline as flags; those of this project's pipeline when `spec` is None.

    A parameter with the name and type of a flag in the table is that flag. Lists and structs are left out: they can be
    set in a parameter file only.
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


def defaults(spec: Spec | None) -> dict[str, object]:
    """The parameters that have a default in a compiled pipeline, and it; empty for this project's own, the flags'."""
    definitions = _definitions(spec) if spec else {}
    return {name: one["defaultValue"] for name, one in definitions.items() if "defaultValue" in one}


def check_parameters(spec: Spec | None, given: Mapping[str, object]) -> dict[str, Any]:
    """The parameters of `given` that are set, converted to the pipeline's types.

    Raises:
        FlagError: a parameter is unknown, a value is invalid, or a required parameter is missing.
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


def check_paths(
    parameters: Mapping[str, Any], backend: str = "vertex", mounts: Mapping[str, Sequence[str]] | None = None
) -> None:
    """Checks that no parameter is a path of this machine, which a step in the cloud cannot see.

    Args:
        mounts: on Kubeflow, the folders at which each step sees a PersistentVolumeClaim.

    Raises:
        FlagError: a flag names a local file or folder.
    """
    for flag in flag_table.of_pipeline():
        value = str(parameters.get(flag.name, ""))
        if not (flag.path and value and champion.names_a_path(flag.name, value)):
            continue
        roots = [storage.GCS_SCHEME]
        if backend == "vertex":
            roots += [storage.GCS_MOUNT]
        else:
            roots += storage.REMOTE_SCHEMES
            roots += [storage.as_prefix(mount) for mount in _mounts_of(flag, parameters, mounts or {})]
        if flag.name == "champion":  # a mounted bucket cannot write on a condition, as promoting a model does
            roots = [root for root in roots if not root.startswith(storage.GCS_MOUNT)]
        for part in value.split(",") if flag.is_list else [value]:
            if part and not part.strip().startswith(tuple(roots)):
                raise _unseen(flag, part, backend)


def _mounts_of(flag: Flag, parameters: Mapping[str, Any], mounts: Mapping[str, Sequence[str]]) -> list[str]:
    """The folders at which every step that opens the path of a flag sees a PersistentVolumeClaim."""
    steps = set(flag.steps)
    if flag.name == "champion":
        steps |= {EVALUATE_STEP}
        if parameters.get("checkpoint_path") == champion.WARM_START:
            steps |= {TRAIN_STEP}
    seen = [set(mounts[step]) for step in steps & mounts.keys() or mounts]
    return sorted(set.intersection(*seen)) if seen else []


def _unseen(flag: Flag, path: str, backend: str) -> FlagError:
    expected, hint = "gs://BUCKET/PATH", f"Copy it there first: gcloud storage cp --recursive {path} gs://BUCKET/"
    if storage.is_remote(path):
        hint = "Vertex AI's machines read buckets of Cloud Storage alone."
    if backend == "kubeflow":
        expected += f", s3://BUCKET/PATH or a path below a volume that --kubernetes mounts in {', '.join(flag.steps)}"
        if path.startswith(storage.GCS_MOUNT):
            hint = f"Kubeflow mounts no bucket: write {storage.GCS_SCHEME}{path.removeprefix(storage.GCS_MOUNT)}."
    return FlagError(
        f"--{flag.name} is a path that the pipeline's machines cannot see", received=path, expected=expected, hint=hint
    )


def without_caching(spec: Spec) -> Spec:
    """A copy of the pipeline in which no task is cached."""
    spec = copy.deepcopy(spec)
    for component in [spec["root"], *spec.get("components", {}).values()]:
        for task in component.get("dag", {}).get("tasks", {}).values():
            task["cachingOptions"] = {"enableCache": False}
    return spec


def step_names(spec: Mapping[str, Any]) -> set[str]:
    """The names of a pipeline's tasks, also of those in conditions and exit handlers; these groups are no steps."""
    components = spec.get("components", {})
    names = set()
    for component in [spec.get("root", {}), *components.values()]:
        for name, task in component.get("dag", {}).get("tasks", {}).items():
            if "dag" not in components[task["componentRef"]["name"]]:
                names.add(name)
    return names


def pipeline_name(spec: Mapping[str, Any]) -> str:
    """The name of the pipeline."""
    return str(spec["pipelineInfo"]["name"])


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
