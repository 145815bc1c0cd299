"""The file of --kubernetes: settings of the steps' pods on Kubeflow, in the words of a Kubernetes pod.

The settings beside `steps` are those of all steps, those under `steps` are added for one. The file holds names of
Secrets and never what is in them, since the compiled pipeline shows all of it.
"""

from __future__ import annotations

import dataclasses
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipelines import kubernetes_schema as schema
from pipelines.kubernetes_platform import Mount, PodSettings, Variable
from pipelines.kubernetes_schema import Place
from tf_image_classification import flags as flag_table
from tf_image_classification.errors import did_you_mean

NOTIFY = "notify"
_GOOGLE_KEY = "GOOGLE_APPLICATION_CREDENTIALS"
# Names whose values are secrets; KEY_FILE or TOKEN_PATH would name a file.
_SECRET = re.compile(r"(?i).*(secret|password|passwd|token|api_?key|access_?key(_id)?|private_?key|credentials?)")


def read(path: str, *, notify: bool) -> dict[str, PodSettings]:
    """The settings of each step, by step.

    Args:
        path: local or gs://.
        notify: whether the pipeline has the step that reports failures.

    Raises:
        FlagError: the file cannot be read, or a setting is unknown, invalid, or without effect.
    """
    found, place = schema.load(path)
    steps = [*flag_table.STEPS, *([NOTIFY] if notify else [])]
    given = found.get("steps", {})
    for step in given:
        if step not in steps:
            hint = "The pipeline has it with --notify only." if step == NOTIFY else did_you_mean(step, steps)
            raise place.child("steps").child(step).error("unknown step", step, ", ".join(steps), hint)
    volumes = _by_name(found.get("volumes", []), place.child("volumes"), "name")
    shared = {key: value for key, value in found.items() if key not in ("volumes", "steps")}
    base = _settings(shared, volumes, place)
    merged = {}
    for step in steps:
        where = place.child("steps").child(step)
        merged[step] = _merge(base, _settings(given.get(step, {}), volumes, where))
        _check_step(merged[step], step, where if step in given else place)
    mounted = {one["name"] for settings in (found, *given.values()) for one in settings.get("volumeMounts", ())}
    for index, name in enumerate(volumes):
        if name not in mounted:
            where = place.child("volumes").child(index)
            raise where.error("this volume is in no step's volumeMounts", name, "a volume that is mounted")
    return merged


def _settings(found: Mapping[str, Any], volumes: Mapping[str, Any], place: Place) -> PodSettings:
    """Converts one group of settings."""
    variables = _by_name(found.get("env", []), place.child("env"), "name")
    mounts = _by_name(found.get("volumeMounts", []), place.child("volumeMounts"), "mountPath")
    return PodSettings(
        variables=tuple(
            _variable(one, place.child("env").child(index)) for index, one in enumerate(variables.values())
        ),
        mounts=tuple(
            _mount(one, volumes, place.child("volumeMounts").child(index)) for index, one in enumerate(mounts.values())
        ),
        node_selector=found.get("nodeSelector", {}),
        tolerations=tuple(
            _toleration(one, place.child("tolerations").child(index))
            for index, one in enumerate(found.get("tolerations", []))
        ),
        image_pull_secrets=tuple(one["name"] for one in found.get("imagePullSecrets", [])),
        image_pull_policy=found.get("imagePullPolicy", ""),
        timeout=found.get("activeDeadlineSeconds", 0),
    )


def _by_name(items: Sequence[Mapping[str, Any]], place: Place, key: str) -> dict[str, Any]:
    """The items of a list by the key that identifies them."""
    named: dict[str, Any] = {}
    for index, item in enumerate(items):
        if item[key] in named:
            raise place.child(index).child(key).error(f"this {key} is given twice", item[key], "different ones")
        named[item[key]] = item
    return named


def _variable(found: Mapping[str, Any], place: Place) -> Variable:
    name = found["name"]
    if ("value" in found) == ("valueFrom" in found):
        raise place.error("a variable has either a value or a valueFrom", name, "valueFrom: {secretKeyRef: ...}")
    if "value" not in found:
        reference = found["valueFrom"]["secretKeyRef"]
        return Variable(name, secret=reference["name"], key=reference["key"], optional=reference.get("optional", False))
    if name != _GOOGLE_KEY and _SECRET.fullmatch(name):
        raise place.child("value").error(
            "a secret must not be in the file, since the compiled pipeline shows it",
            f"a value for {name}",
            "valueFrom: {secretKeyRef: {name: SECRET, key: KEY}}",
            "Create the Secret first: kubectl create secret generic SECRET --from-literal=KEY=...",
        )
    return Variable(name, value=found["value"])


def _mount(found: Mapping[str, Any], volumes: Mapping[str, Any], place: Place) -> Mount:
    name, path = found["name"], found["mountPath"]
    if name not in volumes:
        expected = ", ".join(volumes) or "a volume under volumes"
        raise place.child("name").error("unknown volume", name, expected, did_you_mean(name, volumes))
    volume = volumes[name]
    if ("persistentVolumeClaim" in volume) == ("secret" in volume):
        raise place.error(f"the volume {name} has one kind", list(volume), "persistentVolumeClaim or secret")
    if "secret" in volume:
        if "subPath" in found:
            raise place.child("subPath").error("KFP mounts the whole Secret", found["subPath"], "no subPath")
        secret = volume["secret"]
        return Mount(path, secret=secret["secretName"], optional=secret.get("optional", False))
    return Mount(path, claim=volume["persistentVolumeClaim"]["claimName"], sub_path=found.get("subPath", ""))


def _toleration(found: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """Checks what Kubernetes requires of a toleration, and converts it."""
    operator, seconds = found.get("operator", "Equal"), found.get("tolerationSeconds")
    if operator == "Exists" and "value" in found:
        raise place.error("operator Exists takes no value", found["value"], "operator: Equal, or no value")
    if operator == "Equal" and "key" not in found:
        raise place.error("a toleration without a key", found, "operator: Exists, which tolerates every taint")
    if seconds is not None and found.get("effect") != "NoExecute":
        raise place.error("tolerationSeconds has an effect beside NoExecute only", seconds, "effect: NoExecute")
    converted = {key: found[key] for key in ("key", "value", "effect") if key in found}
    return converted | {"operator": operator} | ({} if seconds is None else {"toleration_seconds": seconds})


def _merge(base: PodSettings, own: PodSettings) -> PodSettings:
    """The settings of all steps with those of one, which win."""
    return dataclasses.replace(
        own,
        variables=_replaced(base.variables, own.variables, "name"),
        mounts=_replaced(base.mounts, own.mounts, "path"),
        node_selector={**base.node_selector, **own.node_selector},
        tolerations=base.tolerations + tuple(one for one in own.tolerations if one not in base.tolerations),
        image_pull_secrets=tuple(dict.fromkeys(base.image_pull_secrets + own.image_pull_secrets)),
        image_pull_policy=own.image_pull_policy or base.image_pull_policy,
        timeout=own.timeout or base.timeout,
    )


def _replaced(base: Iterable[Any], own: Iterable[Any], key: str) -> tuple[Any, ...]:
    return tuple({getattr(one, key): one for one in (*base, *own)}.values())


def _check_step(settings: PodSettings, step: str, place: Place) -> None:
    """Checks what holds for the settings of a step as a whole."""
    # KFP names the volumes of a pod as their claims and Secrets are named.
    sources = [mount.claim or mount.secret for mount in settings.mounts]
    for source in sources:
        if sources.count(source) > 1:
            raise place.child("volumeMounts").error(
                f"KFP mounts a claim or Secret once per step, and the step {step} has two mounts of one name",
                source,
                "one mount, of a common parent folder",
            )
    for variable in settings.variables:
        folders = [posixpath.join(mount.path, "") for mount in settings.mounts]
        if variable.name == _GOOGLE_KEY and not variable.value.startswith(tuple(folders)):
            raise place.child("env").error(
                f"{_GOOGLE_KEY} is the path of a mounted key file, and the step {step} has none there",
                variable.value or "a secretKeyRef",
                "a file below a mountPath of a secret volume",
            )
