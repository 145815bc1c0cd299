"""Decides whether a model is good enough: its metrics against thresholds, and against those of the model in service.

Needs only the content of metrics.json.
"""

from __future__ import annotations

from dataclasses import dataclass

from tf_image_classification import storage
from tf_image_classification.errors import DataError, FlagError, printable
from tf_image_classification.evaluation_folder import CHAMPION, METRICS, Metrics, by_task, is_number
from tf_image_classification.flags import Flags

_EXPECTED = "JSON as evaluate writes it"


@dataclass(frozen=True, slots=True)
class GateDecision:
    """The gate's decision.

    Attributes:
        passed: whether every check passed.
        reasons: one line per check: the value, what is required, and FAILED if it is not met.
    """

    passed: bool
    reasons: list[str]


def read_metrics(evaluation_dir: str) -> tuple[Metrics, Metrics | None]:
    """Reads what the evaluate step wrote: the metrics of the new model, and of the model in service if there is one.

    Raises:
        FlagError: the folder has no metrics.
        DataError: they are not as the evaluate step writes them.
    """
    new, champion = (storage.join(evaluation_dir, *parts, METRICS) for parts in ((), (CHAMPION,)))
    if not storage.exists(new):
        raise FlagError("Not an evaluation", received=evaluation_dir, expected=f"a folder with {METRICS}")
    return _read(new), _read(champion) if storage.exists(champion) else None


def _read(path: str) -> Metrics:
    """The content of a metrics.json, whose entries that the gate and a promotion read were checked."""
    metrics = storage.read_json(path, expected=_EXPECTED)
    model, tasks = metrics.get("model"), by_task(metrics)
    if not isinstance(model, dict) or any(
        not isinstance(model.get(name), str | None) for name in ("folder", "digest", "sha256")
    ):
        raise DataError(f"{path} cannot be read", received=f"`model`: {model!r:.200}", expected=_EXPECTED)
    for name, task in tasks.items() if isinstance(tasks, dict) and tasks else [("", tasks)]:
        if not _is_task(task):
            received = f"incomplete or invalid metrics{f' of {name}' if name else ''}"
            raise DataError(f"{path} cannot be read", received=received, expected=_EXPECTED)
    return metrics


def _is_task(task: object) -> bool:
    """Whether these are the metrics of a task: of a classification with accuracy and classes, of a regression not."""
    if not isinstance(task, dict) or not is_number(task.get("loss")):
        return False
    if "accuracy" not in task:
        return True
    rows = task.get("per_class")
    return (
        all(is_number(task.get(name)) for name in ("accuracy", "macro_f1"))
        and isinstance(rows, list)
        and all(
            isinstance(row, dict)
            and isinstance(row.get("name"), str)
            and all(is_number(row.get(name)) for name in ("recall", "support"))
            for row in rows
        )
        and any(row["support"] for row in rows)
    )


def decide(metrics: Metrics, flags: Flags, champion: Metrics | None = None) -> GateDecision:
    """Checks a model's metrics, those of each of its tasks.

    A class without an evaluation image has no recall that could be too low. A regression is checked by its loss only.

    Args:
        metrics: the content of metrics.json.
        flags: with the flags of the gate step.
        champion: the same of the model in service, on the same examples; None for none.

    Raises:
        DataError: the two models have no metric in common.
    """
    checks: list[tuple[bool, str]] = []
    tasks = by_task(metrics)
    for name, task in tasks.items():
        checks += _check_thresholds(task, flags, prefix=f"{printable(name)}: " if len(tasks) > 1 else "")
    if champion is not None:
        checks.append(_compare(metrics, champion, flags))
    return GateDecision(
        passed=all(passed for passed, _ in checks),
        reasons=[reason for _, reason in checks] or ["no thresholds are set"],
    )


def _check_thresholds(task: Metrics, flags: Flags, prefix: str) -> list[tuple[bool, str]]:
    """(whether it passed, reason) for each threshold that is set."""
    checks = []
    if "accuracy" in task:
        lowest = min((row for row in task["per_class"] if row["support"]), key=lambda row: row["recall"])
        for what, value, minimum in (
            ("accuracy", task["accuracy"], flags.min_accuracy),
            ("macro F1", task["macro_f1"], flags.min_macro_f1),
            (f"lowest class recall ({printable(lowest['name'])})", lowest["recall"], flags.min_class_recall),
        ):
            if minimum > 0:
                checks.append(_check(value >= minimum, f"{prefix}{what} is {value:.6g}", f"at least {minimum:g}"))
    if flags.max_loss is not None:
        loss = task["loss"]
        checks.append(_check(loss <= flags.max_loss, f"{prefix}loss is {loss:.6g}", f"at most {flags.max_loss:g}"))
    return checks


def _compare(metrics: Metrics, champion: Metrics, flags: Flags) -> tuple[bool, str]:
    """Compares by --champion_metric; by the loss where one of the models has no such metric, as regressions."""
    digest = metrics["model"].get("digest")
    if digest and digest == champion["model"].get("digest"):
        return True, "already in service: the new model is the model in service"
    name = flags.champion_metric
    if _mean(name, metrics) is None or _mean(name, champion) is None:
        name = "loss"
    new, old = _mean(name, metrics), _mean(name, champion)
    if new is None or old is None:
        raise DataError("The new model and the model in service have no metric in common", received=name)
    improvement = old - new if name == "loss" else new - old
    better, worse = ("lower", "higher") if name == "loss" else ("higher", "lower")
    minimum = flags.min_improvement
    if minimum == 0:
        passed, required = improvement > 0, better
    else:
        passed = improvement >= minimum
        required = f"{better} by at least {minimum:g}" if minimum > 0 else f"{worse} by at most {-minimum:g}"
    return _check(passed, f"{name.replace('_', ' ')} is {new:.6g}, that of the model in service is {old:.6g}", required)


def _mean(name: str, metrics: Metrics) -> float | None:
    """A metric's mean over the tasks that have it; None where none has."""
    values = [task[name] for task in by_task(metrics).values() if name in task]
    return sum(values) / len(values) if values else None


def _check(passed: bool, statement: str, required: str) -> tuple[bool, str]:
    return passed, f"{statement} (required: {required}){'' if passed else ': FAILED'}"
