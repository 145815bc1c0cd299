"""The Kubernetes settings of steps, and how KFP's tasks get them (kfp-kubernetes)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Variable:
    """An environment variable: a text, or the value of a Secret's key.

    Attributes:
        optional: the step starts without the variable when the Secret or its key does not exist.
    """

    name: str
    value: str = ""
    secret: str = ""
    key: str = ""
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder of the container that is a PersistentVolumeClaim's, or holds the keys of a Secret as files.

    Attributes:
        sub_path: folder of the claim; '' for all of it.
        optional: the step starts with an empty folder when the Secret does not exist.
    """

    path: str
    claim: str = ""
    sub_path: str = ""
    secret: str = ""
    optional: bool = False


@dataclass(frozen=True, slots=True)
class PodSettings:
    """The settings of one step's pod.

    Attributes:
        tolerations: each as the keyword arguments of `kfp.kubernetes.add_toleration`.
        image_pull_policy: '' for Kubernetes's default.
        timeout: seconds that an attempt may take; 0 for any.
    """

    variables: tuple[Variable, ...] = ()
    mounts: tuple[Mount, ...] = ()
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()
    image_pull_secrets: tuple[str, ...] = ()
    image_pull_policy: str = ""
    timeout: int = 0


def apply(task: Any, settings: PodSettings) -> None:
    """Gives a task its settings; texts of variables become part of the pipeline, all else of its platform spec."""
    from kfp import kubernetes

    for variable in settings.variables:
        if variable.secret:
            names = {variable.key: variable.name}
            kubernetes.use_secret_as_env(task, variable.secret, names, optional=variable.optional)
        else:
            task.set_env_variable(variable.name, variable.value)
    for mount in settings.mounts:
        if mount.secret:
            kubernetes.use_secret_as_volume(task, mount.secret, mount.path, optional=mount.optional)
        else:
            kubernetes.mount_pvc(task, mount.claim, mount.path, mount.sub_path)
    for key, value in settings.node_selector.items():
        kubernetes.add_node_selector(task, key, value)
    for toleration in settings.tolerations:
        kubernetes.add_toleration(task, **toleration)
    if settings.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(settings.image_pull_secrets))
    if settings.image_pull_policy:
        kubernetes.set_image_pull_policy(task, settings.image_pull_policy)
    if settings.timeout:
        kubernetes.set_timeout(task, settings.timeout)
    # KFP before 2.16 refuses a step whose variables have this field, whose default is false.
    for reference in task.platform_config.get("kubernetes", {}).get("secretAsEnv", ()):
        if not reference.get("optional", True):
            del reference["optional"]


def claim_mounts(spec: Mapping[str, Any], platforms: Mapping[str, Any]) -> dict[str, list[str]]:
    """The folders at which each step of a compiled pipeline sees PersistentVolumeClaims."""
    settings = platforms.get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
    return {
        label.removeprefix("exec-").replace("-", "_"): [
            mount.get("mountPath", "") for mount in settings.get(label, {}).get("pvcMount", ())
        ]
        for label in spec.get("deploymentSpec", {}).get("executors", {})
    }
