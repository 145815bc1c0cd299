"""A compiled pipeline: its parameters and tasks, and checks of the values for it."""

from __future__ import annotations

import copy
import datetime as dt
import posixpath
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pipelines import clusters, yaml_files
from tf_image_classification import flags as flag_table
from tf_image_classification import storage
from tf_image_classification.data import dates, sources
from tf_image_classification.errors import FlagError, UserError
from tf_image_classification.flag_types import EVALUATE_STEP, TRAIN_STEP, check_single_path
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


# KFP's compiler leaves a task that is never cached without this: an explicit "off" is one that can be turned on again.
_CACHING_OFF = {"enableCache": False}
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


def parameter_names(spec: Spec) -> set[str]:
    """The names of a pipeline's parameters, lists and structs included."""
    return set(_definitions(spec))


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
        FlagError: a flag names a local file or folder, or has a {date} that no step fills in.
    """
    for flag in flag_table.of_pipeline():
        value = str(parameters.get(flag.name, ""))
        if not (flag.path and value and champion.names_a_path(flag.name, value)):
            continue
        if dates.PLACEHOLDER in value and flag.name not in ("train_metadata", "eval_metadata"):
            raise _date_in(flag.name, value)
        steps = _steps_that_open(flag, parameters)
        roots = [storage.GCS_SCHEME]
        if backend == "vertex":
            roots += [storage.GCS_MOUNT]
        else:
            roots += storage.REMOTE_SCHEMES
            roots += [storage.as_prefix(mount) for mount in _mounts_of(steps, mounts or {})]
        if flag.name == "champion":  # a mounted bucket cannot write on a condition, as promoting a model does
            roots = [root for root in roots if not root.startswith(storage.GCS_MOUNT)]
        for part in _paths(value, tuple(roots)) if flag.is_list else [value]:
            place = part.strip()
            if place.startswith("/"):
                place = storage.as_prefix(posixpath.normpath(place))  # /mnt/photos/../x is outside of /mnt/photos
            if part and not place.startswith(tuple(roots)):
                raise _unseen(flag, part, backend, steps)


def _steps_that_open(flag: Flag, parameters: Mapping[str, Any]) -> list[str]:
    steps = list(flag.steps)
    if flag.name == "champion":
        steps.append(EVALUATE_STEP)
        if parameters.get("checkpoint_path") == champion.WARM_START:
            steps.append(TRAIN_STEP)
    return steps


def _mounts_of(steps: Sequence[str], mounts: Mapping[str, Sequence[str]]) -> list[str]:
    """The folders at which each of the steps sees a PersistentVolumeClaim."""
    seen = [set(mounts[step]) for step in mounts if step in steps] or [set(mount) for mount in mounts.values()]
    return sorted(set.intersection(*seen)) if seen else []


def _unseen(flag: Flag, path: str, backend: str, steps: Sequence[str]) -> FlagError:
    expected, hint = "gs://BUCKET/PATH", f"Copy it there first: gcloud storage cp --recursive {path} gs://BUCKET/"
    if storage.is_remote(path):
        hint = "Vertex AI's machines read buckets of Cloud Storage alone."
    if backend == "kubeflow":
        expected += f", s3://BUCKET/PATH or a path below a volume that --kubernetes mounts in {', '.join(steps)}"
        if path.startswith(storage.GCS_MOUNT):
            hint = f"Kubeflow mounts no bucket: write {storage.GCS_SCHEME}{path.removeprefix(storage.GCS_MOUNT)}."
    return FlagError(
        f"--{flag.name} is a path that the pipeline's machines cannot see", received=path, expected=expected, hint=hint
    )


def check_root(pipeline_root: str) -> str:
    """The pipeline root without the slashes at its end, which the services would repeat.

    Artifacts are below it, which the steps see as files of a mount or a volume, and open with globs.

    Raises:
        FlagError: it has a character that is special in a glob, or a folder without a name.
    """
    check_single_path("pipeline_root", pipeline_root)
    if dates.PLACEHOLDER in pipeline_root:
        raise _date_in("pipeline_root", pipeline_root)
    path = pipeline_root.partition("://")[2]
    if path and not {"", ".", ".."}.isdisjoint(path.removesuffix("/").split("/")):
        raise FlagError(
            "--pipeline_root has a folder that no file system shows",
            received=pipeline_root,
            expected="a path without //, /./ and /../",
        )
    return pipeline_root.rstrip("/") if path else pipeline_root


def _paths(value: str, roots: tuple[str, ...]) -> list[str]:
    """The paths that commas separate. One that may belong to the word before it is looked for."""
    words = value.split(",")
    if not words[0].strip().startswith(roots) or all(word.strip().startswith(roots) for word in words if word):
        return words
    try:
        return sources.split_metadata(dates.fill_in(value, dt.datetime.now(dt.UTC).date()))
    except (UserError, OSError):  # not found, or this account may not look
        return words


def _date_in(name: str, value: str) -> FlagError:
    return FlagError(
        f"{dates.PLACEHOLDER} is filled in in --train_metadata and --eval_metadata only", received=f"--{name} {value}"
    )


def without_caching(spec: Mapping[str, Any]) -> Spec:
    """A copy of the pipeline in which no task is cached; `with_caching` restores it."""
    changed = copy.deepcopy(dict(spec))
    for _, task in tasks(changed):
        if task.get("cachingOptions", {}).get("enableCache"):
            task["cachingOptions"] = dict(_CACHING_OFF)
    return changed


def with_caching(spec: Mapping[str, Any], never_cached: Collection[str] = ()) -> Spec:
    """A copy of the pipeline in which the tasks are cached again that `without_caching` has changed.

    Args:
        never_cached: names of tasks that stay uncached.
    """
    changed = copy.deepcopy(dict(spec))
    for name, task in tasks(changed):
        if task.get("cachingOptions") == _CACHING_OFF and name not in never_cached:
            task["cachingOptions"] = {"enableCache": True}
    return changed


def is_without_caching(spec: Mapping[str, Any]) -> bool:
    """Whether `without_caching` has changed the pipeline."""
    return any(task.get("cachingOptions") == _CACHING_OFF for _, task in tasks(spec))


def with_longest_backoff(spec: Mapping[str, Any], seconds: int) -> Spec:
    """A copy of the pipeline in which no task's backoffMaxDuration is longer."""
    limited = copy.deepcopy(dict(spec))
    for component in [limited.get("root", {}), *limited.get("components", {}).values()]:
        for task in component.get("dag", {}).get("tasks", {}).values():
            policy = task.get("retryPolicy", {})
            if float(policy.get("backoffMaxDuration", "0s").removesuffix("s")) > seconds:
                policy["backoffMaxDuration"] = f"{seconds}s"
    return limited


def step_names(spec: Mapping[str, Any]) -> set[str]:
    """The names of a pipeline's tasks; see `tasks`."""
    return {name for name, _ in tasks(spec)}


def tasks(spec: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The name and definition of each task, also in conditions and exit handlers; these groups themselves are none."""
    components = spec.get("components", {})
    for component in [spec.get("root", {}), *components.values()]:
        for name, task in component.get("dag", {}).get("tasks", {}).items():
            if "dag" not in components[task["componentRef"]["name"]]:
                yield name, task


def images(spec: Mapping[str, Any]) -> set[str]:
    """The images of a pipeline's tasks and of its cluster's, except those that a parameter names."""
    executors = spec.get("deploymentSpec", {}).get("executors", {}).values()
    found = {executor.get("container", {}).get("image", "") for executor in executors}
    if cluster := clusters.of_spec(spec):
        found.add(cluster.image)
    return {image for image in found if image and "{{" not in image}


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
