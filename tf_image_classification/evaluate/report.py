"""report.html: one self-contained page, without scripts, fonts or network requests."""

from __future__ import annotations

import heapq
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from tf_image_classification import pages, plots
from tf_image_classification.evaluate import figures
from tf_image_classification.evaluate.mistakes import Mistake, thumbnail
from tf_image_classification.evaluation_folder import by_task, confusions, is_number, most_confused

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_TABLE_CLASSES = 50  # a confusion matrix of more is drawn as an image
MAX_CLASS_ROWS = 1000  # of the table of classes: a page of 100,000 would be larger than a browser shows
MAX_CONFUSED_PAIRS = 15
_HEADLINE_FLAGS = (
    "recipe",
    "train_steps",
    "batch_size",
    "optimizer",
    "learning_rate",
    "checkpoint_path",
    "trainable_scopes",
    "seed",
)
_GLOBAL_STEP = "global_step"  # among the metrics of model.json, but none


def render(metrics: dict[str, Any], mistakes: Mapping[str, Sequence[Mistake]], facts: dict[str, Any]) -> str:
    """The report of one evaluation, as HTML.

    Args:
        metrics: the content of metrics.json.
        mistakes: task name -> its most confident mistakes, in the order of the tasks in `metrics`.
        facts: the content of the model's model.json.
    """
    template = pages.template(
        "tf_image_classification.evaluate",
        "report.html",
        percent=_percent,
        number=_number,
        plain=_plain,
        signed=_signed,
    )
    has_several_tasks = len(by_task(metrics)) > 1
    tasks = []
    for (name, task_mistakes), task_metrics in zip(mistakes.items(), by_task(metrics).values(), strict=True):
        suffix = f" of {name}" if has_several_tasks else ""
        if "accuracy" in task_metrics:
            tasks.append({"name": name, **_classification(task_metrics, task_mistakes, suffix)})
        else:
            tasks.append({"name": name, "metrics": task_metrics, "is_classification": False})
    flags = _mapping(facts, "flags")
    training, evaluation = _mapping(facts, "train_metrics"), _mapping(facts, "metrics")
    gap = {
        name: (training[name], value)
        for name, value in evaluation.items()
        if is_number(value) and is_number(training.get(name))
    }
    examples = _mapping(facts, "scored_examples")
    return template.render(
        metrics=metrics,
        tasks=tasks,
        has_several_tasks=has_several_tasks,
        warm_start=_warm_start(facts),
        flags=flags,
        headline_flags={name: flags[name] for name in _HEADLINE_FLAGS if flags.get(name) not in (None, "")},
        model=_model(metrics["model"]),
        gap={name: values for name, values in gap.items() if name != _GLOBAL_STEP},
        gap_examples=examples if all(is_number(examples.get(name)) for name in ("train", "eval")) else None,
        other_metrics={name: value for name, value in evaluation.items() if name not in gap or name == _GLOBAL_STEP},
    )


def _model(model: dict[str, Any]) -> tuple[str, str] | None:
    """What the model is and its name: a built-in network or a user's estimator; None if neither is recorded."""
    if model.get("model_name"):
        return "Network", model["model_name"]
    if model.get("estimator"):
        return "Estimator", model["estimator"].removeprefix("__main__:")  # of a script: its class alone
    return None


def _mapping(facts: dict[str, Any], name: str) -> dict[str, Any]:
    return facts[name] if isinstance(facts.get(name), dict) else {}


def _warm_start(facts: dict[str, Any]) -> dict[str, Any] | None:
    """`warm_start` of model.json; None for none, and for one that is not as training writes it."""
    warm_start = _mapping(facts, "warm_start")
    kinds = {"checkpoint": str, "loaded": int, "not_loaded": list}
    return warm_start if all(isinstance(warm_start.get(name), kind) for name, kind in kinds.items()) else None


def _classification(metrics: dict[str, Any], mistakes: Sequence[Mistake], suffix: str) -> dict[str, Any]:
    """What the template needs of a classification; `suffix` makes the figures' descriptions unique on the page."""
    calibration, curves = metrics["calibration"], metrics.get("curves")
    svgs = [
        _svg(figures.reliability_diagram(calibration), f"Reliability diagram{suffix}: accuracy against score"),
        _svg(figures.score_histogram(calibration), f"Histogram{suffix}: scores of correct and of wrong predictions"),
    ]
    if curves:
        svgs.append(_svg(figures.roc_curves(curves), f"ROC curves{suffix}"))
        svgs.append(_svg(figures.precision_recall_curves(curves), f"Precision-recall curves{suffix}"))
    has_matrix, heatmap = "confusion_matrix" in metrics, None
    if has_matrix and len(metrics["labels"]) > MAX_TABLE_CLASSES:
        figure = figures.confusion_heatmap(metrics["confusion_matrix"])
        heatmap = _svg(figure, f"Confusion matrix{suffix} as a heat map")
    per_class = metrics["per_class"]
    num_correct = sum(count for true, predicted, count in confusions(metrics) if true == predicted)
    lowest_first = heapq.nsmallest(MAX_CLASS_ROWS, per_class, key=_lowest_f1_first)
    return {
        "metrics": metrics,
        "is_classification": True,
        "figures": svgs,
        "heatmap": heatmap,
        "matrix": _matrix_rows(metrics) if has_matrix and not heatmap else None,
        "pairs": most_confused(metrics, MAX_CONFUSED_PAIRS),
        "per_class": lowest_first,
        "hidden_classes": len(per_class) - len(lowest_first),
        "without_examples": [row["name"] for row in per_class if not row["support"]],
        "mistakes": [(mistake, thumbnail(mistake.image)) for mistake in mistakes],
        "wrong": sum(row["support"] for row in per_class) - num_correct,
    }


def _lowest_f1_first(row: dict[str, Any]) -> tuple[bool, float, int]:
    """Sort key: classes without images and predictions last, of equal F1 the one with more images first."""
    return not (row["support"] or row["predicted"]), row["f1"], -row["support"]


def _matrix_rows(metrics: dict[str, Any]) -> list[tuple[str, int, list[tuple[int, float]]]]:
    """The confusion matrix as (true class, examples, cells); a cell is (examples, share of the row)."""
    rows = []
    for label, counts in zip(metrics["labels"], metrics["confusion_matrix"], strict=True):
        total = sum(counts)
        rows.append((label, total, [(count, count / max(total, 1)) for count in counts]))
    return rows


def _svg(figure: Figure, alt: str) -> Markup:
    return Markup(plots.to_svg(figure, alt))  # noqa: S704 - matplotlib escapes a figure's texts, to_svg escapes `alt`


def _percent(value: float) -> str:
    """0.98765 -> 98.77 %; only exact 0 and 1 are shown as 0.00 % and 100.00 %."""
    rounded = f"{value:.2%}"
    if (rounded == "100.00%" and value < 1) or (rounded == "0.00%" and value > 0):
        rounded = "> 99.99%" if value > 0.5 else "< 0.01%"
    return rounded.replace("%", "\N{NO-BREAK SPACE}%")


def _number(value: float | None) -> str:
    """An integer with thousands separators, a float with four significant digits, '-' for None."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def _signed(value: float) -> str:
    return f"{value:+,.4g}".replace("-", "\N{MINUS SIGN}")


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
