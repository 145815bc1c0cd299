"""Whether a model is good enough: its evaluation against thresholds. Needs nothing but metrics.json's content."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tf_image_classification.evaluate.artifacts import by_task
from tf_image_classification.flags import Flags


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's answer.

    Attributes:
        passed: whether every check passed.
        reasons: one line per threshold that is set: what was received, what is required, and whether that passes.
    """

    passed: bool
    reasons: list[str]


def judge(metrics: dict[str, Any], flags: Flags) -> Verdict:
    """Checks the metrics of a model, all tasks of it.

    A class without an evaluation example has no recall that could be too low. A regression is judged by its loss alone.

    Args:
        metrics: what `evaluate` returned or wrote as metrics.json.
        flags: with the flags of the gate step.
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
    return Verdict(passed=all(passed for passed, _ in checks), reasons=[reason for _, reason in checks] or ["no threshold is set"])


def _reason(passed: bool, what: str, received: float, required: str) -> str:
    return f"{what} is {received:.6g}, required is {required}{'' if passed else ': FAILED'}"
