"""The timeline of `demo_cluster` as a picture: a bar for each process, and what happens to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tf_image_classification import plots

if TYPE_CHECKING:
    from tests.standin.demo_cluster import Event

_LAST, _LOST = plots.SERIES[2], plots.SERIES[4]  # colours of a process that ends with 0, and of others
_HEIGHT = 0.16  # of a bar; tasks are 1 apart


def write(events: Sequence[Event], path: str) -> None:
    """Draws the events, in the order in which they happened, into a PNG file."""
    from matplotlib.figure import Figure

    tasks = sorted({event.task for event in events})
    figure = Figure(figsize=(11, 1.1 + 1.2 * len(tasks)), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    for row, task in enumerate(tasks):
        own = [event for event in events if event.task == task]
        starts = [event.seconds for event in own if event.what.endswith(("starts", "started again"))]
        ends = [event for event in own if event.what.startswith("ends with")]
        for start, end in zip(starts, ends, strict=True):
            colour = _LAST if end.what.startswith("ends with 0") else _LOST
            axes.barh(-row, end.seconds - start, _HEIGHT, start, color=colour)
        for number, event in enumerate(own):
            level = -row + _HEIGHT * (1.1 + 1.05 * (number % 4))
            axes.plot([event.seconds] * 2, [-row, level], color="0.6", linewidth=0.7, zorder=0)
            words = axes.text(event.seconds, level, f" {event.what}", fontsize=8, verticalalignment="bottom")
            words.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.5})  # over the lines of others
    axes.set_yticks([-row for row in range(len(tasks))], [task.replace(":", " ") for task in tasks])
    axes.set_ylim(-len(tasks) + 0.7, 0.95)
    axes.set_xlim(0, 1.13 * max(event.seconds for event in events))  # room for the words of the last one
    axes.set_xlabel("seconds")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.savefig(path)
