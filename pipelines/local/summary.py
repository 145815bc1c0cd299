"""What a person sees at the end of a local run: a metrics table and where things are."""

from __future__ import annotations

import os
from pathlib import Path

from pipelines.local.run import EVALUATION, MODEL, LocalRun
from tf_image_classification import evaluation_folder
from tf_image_classification.errors import printable_lines

_METRICS = ("num_examples", "accuracy", "top_5_accuracy", "loss", "macro_precision", "macro_recall", "macro_f1")


def table(run: LocalRun) -> str:
    """The metrics, one table for each task, the gate's decision, and the paths of report, model and run folder."""
    lines = [""]
    for name, metrics in evaluation_folder.by_task(run.metrics).items():
        rows = [(key.replace("_", " "), _number(metrics[key])) for key in _METRICS if key in metrics]
        width = max(len(label) for label, _ in rows)
        lines += [name] if name else []
        lines += [f"  {label:<{width}}  {value:>10}" for label, value in rows]
    lines += [f"  gate: {'passed' if run.passed else 'FAILED'}: {run.reason}", ""]
    report = run.folder / EVALUATION / evaluation_folder.REPORT
    places = {"report": report, "model": run.folder / MODEL, "run": run.folder}
    if run.in_service:
        places["in service"] = Path(run.in_service)
    width = max(map(len, places))
    lines += [f"  {label:<{width}}  {_relative(path)}" for label, path in places.items()]
    return printable_lines("\n".join(lines))


def _relative(path: Path) -> str:
    """Relative to the current folder for a path below it."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
