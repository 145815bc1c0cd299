"""Which keys the file of --kubernetes has, and the forms of their values, with the line of what is refused."""

from __future__ import annotations

import dataclasses
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pipelines import yaml_files
from tf_image_classification import storage
from tf_image_classification.errors import FlagError, did_you_mean

Path = tuple[str | int, ...]

_EXPECTED = "a YAML file of pod settings, see docs/kubeflow.md"
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"  # RFC 1123
_QUALIFIED = re.compile(rf"({_LABEL}(\.{_LABEL})*/)?[A-Za-z0-9]([A-Za-z0-9._-]{{0,61}}[A-Za-z0-9])?")
# Folders that KFP's launcher mounts, and / itself.
_TAKEN = ("/", "/gcs", "/s3", "/minio", "/.local", "/.cache", "/.config", "/kfp-launcher", "/kfp-workspace")
# What a pod has and this file has not, because an option sets it.
_ELSEWHERE = {
    "serviceAccountName": "--service_account",
    "serviceAccount": "--service_account",
    "resources": "--cpu, --memory and --accelerator",
    "image": "--image_registry and --image_tag",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """A place in the file, for messages.

    Attributes:
        lines: of every place in the file, from 1.
        path: keys and indices that lead there.
    """

    file: str
    lines: Mapping[Path, int]
    path: Path = ()

    def child(self, key: str | int) -> Place:
        """The place of an item of a mapping or list."""
        return dataclasses.replace(self, path=(*self.path, key))

    def error(self, problem: str, received: object, expected: object, hint: str = "") -> FlagError:
        """An error that names the place; one that is not in the file has the line of what should hold it."""
        name = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in self.path).lstrip(".")
        known = next(self.path[:end] for end in range(len(self.path), -1, -1) if self.path[:end] in self.lines)
        where = f"{self.file}, line {self.lines[known]}" + (f", {name}" if name else "")
        return FlagError(f"--kubernetes: {problem}", received=f"{received} ({where})", expected=expected, hint=hint)


Reader = Callable[[Any, Place], Any]


def load(path: str) -> tuple[dict[str, Any], Place]:
    """The file, local or gs://, checked value by value, and the place of its whole content.

    Raises:
        FlagError: it cannot be read, a key is unknown, or a value has another form.
    """
    documents = yaml_files.read("--kubernetes", path, _EXPECTED)
    if len(documents) != 1:
        raise FlagError("--kubernetes is not one YAML document", received=path, expected=_EXPECTED)
    place = Place(path, _lines(storage.read_text(path)))
    return _FILE(documents[0], place), place


def _lines(text: str) -> dict[Path, int]:
    """The line of every key and item."""
    import yaml

    def walk(node: Any, path: Path) -> Iterator[tuple[Path, int]]:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                yield (*path, key.value), key.start_mark.line + 1
                yield from walk(value, (*path, key.value))
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                yield (*path, index), item.start_mark.line + 1
                yield from walk(item, (*path, index))

    return {(): 1} | dict(walk(yaml.compose(text, Loader=yaml.SafeLoader), ()))


def _mapping(readers: Mapping[str, Reader], required: tuple[str, ...] = ()) -> Reader:
    """A reader of a mapping with these keys."""

    def read(value: Any, place: Place) -> dict[str, Any]:
        keys = ", ".join(readers)
        if not isinstance(value, dict) or not value:
            raise place.error("not a mapping", value, f"a mapping with the keys {keys}")
        for key in value:
            if key not in readers:
                hint = did_you_mean(str(key), readers)
                if key in _ELSEWHERE:
                    hint = f"Use {_ELSEWHERE[key]}."
                raise place.child(key).error("unknown key", key, keys, hint)
        for key in required:
            if key not in value:
                raise place.error(f"{key} is missing", ", ".join(map(str, value)), f"a mapping with {key}")
        return {key: readers[key](item, place.child(key)) for key, item in value.items()}

    return read


def _list_of(reader: Reader) -> Reader:
    def read(value: Any, place: Place) -> list[Any]:
        if not isinstance(value, list) or not value:
            raise place.error("not a list", value, "a list: lines that start with -")
        return [reader(item, place.child(index)) for index, item in enumerate(value)]

    return read


def _text(form: str, expected: str) -> Reader:
    pattern = re.compile(form)

    def read(value: Any, place: Place) -> str:
        if not isinstance(value, str):
            raise place.error(
                "not a text", repr(value), f'{expected}, in quotes where YAML reads it as another type: "1"'
            )
        if not pattern.fullmatch(value):
            raise place.error("invalid value", repr(value), expected)
        return value

    return read


def _choice(*allowed: str) -> Reader:
    def read(value: Any, place: Place) -> str:
        if value not in allowed:
            hint = did_you_mean(str(value), allowed)
            raise place.error("invalid value", value, " or ".join(allowed), hint)
        return str(value)

    return read


def _whole(least: int) -> Reader:
    def read(value: Any, place: Place) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise place.error("invalid value", repr(value), f"a whole number of seconds >= {least}")
        return value

    return read


def _switch(value: Any, place: Place) -> bool:
    if not isinstance(value, bool):
        raise place.error("invalid value", repr(value), "true or false")
    return value


def _labels(value: Any, place: Place) -> dict[str, str]:
    if not isinstance(value, dict) or not value:
        raise place.error("not a mapping", value, "labels of nodes, as cloud.google.com/gke-accelerator: nvidia-l4")
    for key in value:
        if not isinstance(key, str) or not _QUALIFIED.fullmatch(key):
            raise place.child(key).error("invalid name of a label", key, "NAME or DOMAIN/NAME")
    return {key: _LABEL_VALUE(item, place.child(key)) for key, item in value.items()}


def _mount_path(value: Any, place: Place) -> str:
    path = _text(r"/[^:\0]*", "an absolute path, as /mnt/data")(value, place)
    if posixpath.normpath(path) != (path.rstrip("/") or "/"):
        raise place.error("invalid value", path, "an absolute path without .. and //, as /mnt/data")
    path = posixpath.normpath(path)
    if path in _TAKEN:
        raise place.error("KFP mounts its own folder there", path, "another folder, as /mnt/data")
    return path


_LABEL_VALUE = _text(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?", "a label's value, at most 63 characters")
_NAME = _text(rf"{_LABEL}(\.{_LABEL})*", "a name in lower case, as minio-keys")
# KFP names a volume as what it holds is named, and names of volumes have no dots.
_VOLUME_NAME = _text(_LABEL, "a name of lower-case letters, digits and hyphens, at most 63 characters")
_KEY = _text(r"[A-Za-z0-9._-]{1,253}", "a key of the Secret")
_VARIABLE = _text(r"[A-Za-z_][A-Za-z0-9_.-]*", "the name of an environment variable")

_POD: dict[str, Reader] = {
    "env": _list_of(
        _mapping(
            {
                "name": _VARIABLE,
                "value": _text(r"(?s).*", "a text"),
                "valueFrom": _mapping(
                    {"secretKeyRef": _mapping({"name": _NAME, "key": _KEY, "optional": _switch}, ("name", "key"))},
                    ("secretKeyRef",),
                ),
            },
            ("name",),
        )
    ),
    "volumeMounts": _list_of(
        _mapping(
            {
                "name": _VOLUME_NAME,
                "mountPath": _mount_path,
                "subPath": _text(r"(?!/)(?!(.*/)?\.\.(/|$)).+", "a folder of the volume, without .."),
            },
            ("name", "mountPath"),
        )
    ),
    "nodeSelector": _labels,
    "tolerations": _list_of(
        _mapping(
            {
                "key": _text(_QUALIFIED.pattern, "the key of a taint"),
                "operator": _choice("Equal", "Exists"),
                "value": _LABEL_VALUE,
                "effect": _choice("NoSchedule", "PreferNoSchedule", "NoExecute"),
                "tolerationSeconds": _whole(0),
            }
        )
    ),
    "imagePullSecrets": _list_of(_mapping({"name": _NAME}, ("name",))),
    "imagePullPolicy": _choice("Always", "IfNotPresent", "Never"),
    "activeDeadlineSeconds": _whole(1),
}


def _steps(value: Any, place: Place) -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        raise place.error("not a mapping", value, "settings by step, as train: {...}")
    return {str(step): _mapping(_POD)(settings, place.child(step)) for step, settings in value.items()}


_FILE = _mapping(
    {
        "volumes": _list_of(
            _mapping(
                {
                    "name": _VOLUME_NAME,
                    "persistentVolumeClaim": _mapping({"claimName": _VOLUME_NAME}, ("claimName",)),
                    "secret": _mapping({"secretName": _VOLUME_NAME, "optional": _switch}, ("secretName",)),
                },
                ("name",),
            )
        ),
        **_POD,
        "steps": _steps,
    }
)
