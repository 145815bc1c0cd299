"""report.html: one page that needs nothing else, no script, no font, no network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from tf_image_classification import pages
from tf_image_classification import plots as style
from tf_image_classification.evaluate import figures
from tf_image_classification.evaluate.mistakes import Mistake, thumbnail
from tf_image_classification.evaluation_folder import by_task, most_confused

TABLE_CLASSES = 50  # a confusion matrix of more is drawn as an image
PAIRS = 15
_HEADLINE_FLAGS = (
    "train_steps",
    "batch_size",
    "optimizer",
    "learning_rate",
    "checkpoint_path",
    "trainable_scopes",
    "seed",
)


def render(metrics: dict[str, Any], mistakes: Mapping[str, Sequence[Mistake]], facts: dict[str, Any]) -> str:
    """The report of one evaluation.

    Args:
        metrics: the content of metrics.json.
        mistakes: task name -> its surest mistakes.
        facts: the content of the model's model.json.
    """
    page = pages.template(
        "tf_image_classification.evaluate", "report.html", percent=_percent, number=_number, plain=_plain
    )
    tasks = by_task(metrics)
    names = list(mistakes)
    several = len(tasks) > 1
    flags: dict[str, Any] = facts["flags"] if isinstance(facts.get("flags"), dict) else {}
    return page.render(
        metrics=metrics,
        tasks=[_task(name, task, mistakes[name], several) for name, task in zip(names, tasks.values(), strict=True)],
        several=several,
        facts=facts,
        flags=flags,
        headline_flags={name: flags[name] for name in _HEADLINE_FLAGS if flags.get(name) not in (None, "")},
    )


def _task(name: str, metrics: dict[str, Any], mistakes: Sequence[Mistake], several: bool) -> dict[str, Any]:
    """What the template needs of one task."""
    if "confusion_matrix" not in metrics:
        return {"name": name, "metrics": metrics, "is_classification": False}
    of_task = f" of {name}" if several else ""
    drawn = [
        (figures.reliability(metrics["calibration"]), f"Reliability diagram{of_task}: accuracy against score"),
        (figures.scores(metrics["calibration"]), f"Histogram{of_task}: scores of right and of wrong predictions"),
    ]
    if metrics.get("curves"):
        drawn.append((figures.roc(metrics["curves"]), f"ROC curves{of_task}"))
        drawn.append((figures.precision_recall(metrics["curves"]), f"Precision-recall curves{of_task}"))
    heatmap = None
    if len(metrics["labels"]) > TABLE_CLASSES:
        heatmap = _svg(figures.heatmap(metrics["confusion_matrix"]), f"Confusion matrix{of_task} as a heat map")
    by_f1 = sorted(
        metrics["per_class"], key=lambda row: (not (row["support"] or row["predicted"]), row["f1"], -row["support"])
    )
    return {
        "name": name,
        "metrics": metrics,
        "is_classification": True,
        "figures": [_svg(figure, alt) for figure, alt in drawn],
        "heatmap": heatmap,
        "matrix": None if heatmap else _rows(metrics),
        "pairs": most_confused(metrics, PAIRS),
        "per_class": by_f1,
        "without_examples": [row["name"] for row in metrics["per_class"] if not row["support"]],
        "mistakes": [(mistake, thumbnail(mistake.image)) for mistake in mistakes],
        "wrong": sum(row["support"] for row in metrics["per_class"])
        - sum(row[i] for i, row in enumerate(metrics["confusion_matrix"])),
    }


def _rows(metrics: dict[str, Any]) -> list[tuple[str, int, list[tuple[int, float]]]]:
    """The confusion matrix as (true class, examples, cells); a cell is (examples, share of the row)."""
    return [
        (label, sum(counts), [(count, count / max(sum(counts), 1)) for count in counts])
        for label, counts in zip(metrics["labels"], metrics["confusion_matrix"], strict=True)
    ]


def _svg(figure: Any, alt: str) -> Markup:
    return Markup(style.to_svg(figure, alt))  # noqa: S704 - matplotlib escapes every text of a figure, to_svg escapes `alt`


def _percent(value: float) -> str:
    """0.98765 -> 98.77 %; what is not quite all or nothing does not look like it."""
    rounded = f"{value:.2%}"
    if (rounded == "100.00%" and value < 1) or (rounded == "0.00%" and value > 0):
        rounded = "> 99.99%" if value > 0.5 else "< 0.01%"
    return rounded.replace("%", "\N{NO-BREAK SPACE}%")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
