"""What differs between a run that exists and a submission under its id, in the words of the options."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pipelines.backends.base import Submission

_OPTIONS = ("pipeline_root", "labels", "service_account", "network", "encryption_key", "failure_policy")
# What the services fill in where it is not given. Of a run that others submitted, they cannot be told apart.
_FILLED_IN = ("pipeline_root", "service_account")
_OF_TASKS = ("cachingOptions", "retryPolicy")


def find(earlier: Submission, wanted: Submission) -> list[str]:
    """The differences, as `--labels` or `the image of train`; empty if both would start the same run."""
    found = []
    if earlier.parameters != wanted.parameters:
        names = sorted(_different(earlier.parameters, wanted.parameters))
        found.append("the parameters " + ", ".join(f"--{name}" for name in names))
    for option in _OPTIONS:
        before, now = getattr(earlier, option), getattr(wanted, option)
        if before != now and (now or option not in _FILLED_IN):
            found.append(f"--{option} ({before or 'not set'}, now {now or 'not set'})")
    return found + _of_pipelines(earlier.spec, wanted.spec)


def _of_pipelines(earlier: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    before, now = _containers(earlier), _containers(wanted)
    found = []
    if before.keys() == now.keys():
        for part, name in (("image", "the image"), ("resources", "the hardware"), ("command", "the code")):
            steps = [step for step in now if _normal(before[step].get(part)) != _normal(now[step].get(part))]
            found += [f"{name} of {', '.join(steps)}"] if steps else []
    if found or _normal(earlier) == _normal(wanted):
        return found
    if _normal(earlier, without=_OF_TASKS) == _normal(wanted, without=_OF_TASKS):
        return ["the caching or the retries of steps"]
    return ["the pipeline"]


def _containers(spec: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Name of a component -> its container."""
    executors = spec.get("deploymentSpec", {}).get("executors", {})
    return {name.removeprefix("exec-"): one.get("container", {}) for name, one in sorted(executors.items())}


def _different(earlier: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    for name in earlier.keys() | wanted.keys():
        if earlier.get(name) != wanted.get(name):
            yield name


def _normal(value: Any, without: Collection[str] = ()) -> Any:
    """A value without what is empty, zero or false, which services leave out or add, and without some keys."""
    if isinstance(value, Mapping):
        kept = {key: _normal(one, without) for key, one in value.items() if key not in without}
        return {key: one for key, one in kept.items() if one}
    return [_normal(one, without) for one in value] if isinstance(value, list) else value
