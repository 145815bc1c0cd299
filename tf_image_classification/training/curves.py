"""The history of a training as a page: curves of loss, metrics and learning rate over global steps."""

from __future__ import annotations

from typing import Any

from tf_image_classification import pages, plots
from tf_image_classification.training import history

_MARKED_POINTS = 30  # more points than that need no markers to be seen


def page(model_dir: str) -> str:
    """A self-contained HTML page of what `history.History` recorded in `model_dir`."""
    entries = history.read_history(model_dir)
    series: dict[str, dict[str, list[tuple[int, float]]]] = {}  # name of a value -> train or eval -> points
    for entry in entries:
        for name, value in entry.items():
            if name not in ("kind", "step"):
                series.setdefault(name, {}).setdefault(entry["kind"], []).append((entry["step"], value))
    charts = [_chart(name, by_kind) for name, by_kind in series.items()]
    last: dict[str, Any] = next((entry for entry in reversed(entries) if entry["kind"] == "eval"), {})
    facts = {name: value for name, value in last.items() if name != "kind"}
    return pages.template("tf_image_classification.training", "curves.html").render(charts=charts, facts=facts)


def _chart(name: str, by_kind: dict[str, list[tuple[int, float]]]) -> Any:
    import markupsafe

    figure, axes = plots.figure(5.2, 2.8, title=name.replace("_", " "), xlabel="global step")
    labels = {"train": "training", "eval": "evaluation"}
    for colour, (kind, points) in zip(plots.SERIES, sorted(by_kind.items(), reverse=True), strict=False):
        steps, values = zip(*points, strict=True)
        marker = "o" if len(points) < _MARKED_POINTS else ""
        axes.plot(steps, values, color=colour, label=labels[kind], marker=marker, markersize=3)
    axes.set_xlim(left=0)
    if len(by_kind) > 1:
        plots.legend(axes)
    svg = plots.to_svg(figure, f"{name} over global steps")
    return {"name": name, "svg": markupsafe.Markup(svg)}  # noqa: S704 - matplotlib escapes text
