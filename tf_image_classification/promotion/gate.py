"""Whether a model is good enough: its evaluation against thresholds and against that of the model in service.

Needs nothing but what metrics.json says.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from tf_image_classification import storage
from tf_image_classification.errors import DataError
from tf_image_classification.evaluation_folder import CHAMPION, METRICS, Metrics, by_task
from tf_image_classification.flags import Flags


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's answer.

    Attributes:
        passed: whether every check passed.
        reasons: one line per check: what was received, what is required, and whether that passes.
    """

    passed: bool
    reasons: list[str]


def read(folder: str) -> tuple[Metrics, Metrics | None]:
    """The metrics of the new model and of the one in service, out of a folder that the evaluate step wrote."""
    champion = storage.join(folder, CHAMPION, METRICS)
    new = json.loads(storage.read_text(storage.join(folder, METRICS)))
    return new, json.loads(storage.read_text(champion)) if storage.exists(champion) else None


def judge(metrics: Metrics, flags: Flags, champion: Metrics | None = None) -> Verdict:
    """Checks the metrics of a model, all tasks of it.

    A class without an evaluation example has no recall that could be too low. A regression is judged by its loss alone.

    Args:
        metrics: what `evaluate` returned or wrote as metrics.json.
        flags: with the flags of the gate step.
        champion: the same of the model in service, on the same examples; None for none.
    """
    checks: list[tuple[bool, str]] = []
    tasks = by_task(metrics)
    for name, task in tasks.items():
        of_task = f"{name}: " if len(tasks) > 1 else ""
        if "accuracy" in task:
            worst = min((row for row in task["per_class"] if row["support"]), key=lambda row: row["recall"])
            for what, received, required in (
                ("accuracy", task["accuracy"], flags.min_accuracy),
                ("macro F1", task["macro_f1"], flags.min_macro_f1),
                (f"lowest recall of a class ({worst['name']})", worst["recall"], flags.min_class_recall),
            ):
                if required > 0:
                    passed = received >= required
                    checks.append((passed, _reason(passed, f"{of_task}{what}", received, f"at least {required:g}")))
        if flags.max_loss is not None:
            passed = task["loss"] <= flags.max_loss
            checks.append((passed, _reason(passed, f"{of_task}loss", task["loss"], f"at most {flags.max_loss:g}")))
    if champion is not None:
        checks.append(_compare(metrics, champion, flags))
    return Verdict(
        passed=all(passed for passed, _ in checks), reasons=[reason for _, reason in checks] or ["no threshold is set"]
    )


def _compare(metrics: Metrics, champion: Metrics, flags: Flags) -> tuple[bool, str]:
    if metrics["model"]["digest"] == champion["model"]["digest"]:
        return True, "it is in service already"
    name = (
        flags.champion_metric
        if all(_mean(flags.champion_metric, one) is not None for one in (metrics, champion))
        else "loss"
    )
    new, old = _mean(name, metrics), _mean(name, champion)
    if new is None or old is None:
        raise DataError("The new model and the one in service have nothing to be compared by", received=name)
    gain = old - new if name == "loss" else new - old
    least = flags.min_improvement
    passed = gain > 0 if least == 0 else gain >= least
    required = "better" if least == 0 else f"better by {least:g}" if least > 0 else f"worse by {-least:g} at most"
    what = f"{name.replace('_', ' ')} is {new:.6g}, that of the model in service {old:.6g}, required is {required}"
    return passed, what if passed else f"{what}: FAILED"


def _mean(name: str, metrics: Metrics) -> float | None:
    """A metric's mean over the tasks that have it; None where none has."""
    values = [task[name] for task in by_task(metrics).values() if name in task]
    return sum(values) / len(values) if values else None


def _reason(passed: bool, what: str, received: float, required: str) -> str:
    return f"{what} is {received:.6g}, required is {required}{'' if passed else ': FAILED'}"
