"""The style of every plot: SVG that takes its text colour from the page around it, so that it fits a light and a dark
scheme.

Figures are created without pyplot, so nothing is global and no display is needed.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SERIES = ("#3d7fd9", "#e07b39", "#2fa37c", "#b25fc4", "#d1495b", "#8a8f2b", "#2b9fb3", "#a9713f", "#7a6ff0", "#c2569b")

# matplotlib has no currentColor: a colour that nothing else has is used for it until the SVG is written.
_INK = "#01fe02"
_TAG = re.compile(r"<[^>]*>")
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: small, selectable, readable by screen readers
    "font.family": "sans-serif",
    "font.size": 9,
    "text.parse_math": False,  # a class may well be named "$5"
}


def figure(width: float, height: float, *, title: str = "", xlabel: str = "", ylabel: str = "") -> tuple[Figure, Axes]:
    """A figure with one styled set of axes.

    Args:
        width, height: in inches. An SVG scales with its page, so only their ratio, and the size of text (9 points)
            relative to them, matter there.
        title, xlabel, ylabel: '' for none.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        drawn = Figure(figsize=(width, height), layout="constrained", facecolor="none")
        axes = drawn.add_subplot(facecolor="none")
        axes.set_title(title, color=_INK, fontsize=10)
        axes.set_xlabel(xlabel, color=_INK)
        axes.set_ylabel(ylabel, color=_INK)
        axes.tick_params(colors=_INK, length=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set(color=_INK, alpha=0.5)
        axes.grid(color=_INK, alpha=0.15, linewidth=0.6)
        axes.set_axisbelow(True)
    return drawn, axes


def legend(axes: Axes, *, beside: bool = False) -> None:
    """Adds a legend of the labelled series to the axes: inside, or with `beside` to the right."""
    from matplotlib import rc_context

    with rc_context(_STYLE):
        location: Any = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5)} if beside else {"loc": "best"}
        axes.legend(frameon=False, fontsize=8, labelcolor=_INK, **location)


def to_svg(figure: Figure, alt: str) -> str:
    """The figure as an <svg> element to put into HTML: as wide as its parent, in the page's font and text colour.

    Args:
        figure: from `figure`.
        alt: the figure's accessible name; unique on its page, as ids are derived from it.
    """
    from matplotlib import rc_context

    file = io.StringIO()
    # Ids are hashes of their element and this salt: equal figures give equal bytes, and two figures on a page have no
    # id in common.
    with rc_context(_STYLE | {"svg.hashsalt": alt}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing")  # the browser chooses the font
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = file.getvalue()
    # Only tags are edited: matplotlib escapes < and > in text, which may contain a class named like an attribute.
    svg = _TAG.sub(_fit_into_html, svg[svg.index("<svg") :].strip())
    end = svg.index(">")
    head = re.sub(r' width="[\d.]+pt" height="[\d.]+pt"', "", svg[:end])
    return f'{head} role="img" aria-label="{html.escape(alt)}"{svg[end:]}'


def _fit_into_html(tag: re.Match[str]) -> str:
    text = tag[0].replace(_INK, "currentColor")
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)  # HTML has no namespaces
    text = re.sub(r'^<g id="[^"]*"', "<g", text)  # never referred to, and not unique on a page
    return re.sub(r" font-family: [^;\"]*;?", "", text)
