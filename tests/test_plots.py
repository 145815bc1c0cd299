from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from tf_image_classification import plots


def drawn(title: str = "A title", alt: str = "A line") -> str:
    figure, axes = plots.figure(4, 3, title=title, xlabel="x", ylabel="y")
    axes.plot([0, 1], [0, 1], label="$5 <b>", color=plots.SERIES[0])
    plots.legend(axes)
    return plots.to_svg(figure, alt)


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg.replace("xlink:", ""))  # noqa: S314 - our own


def test_a_plot_is_one_svg_element_with_real_text_in_the_pages_colour():
    svg = drawn()
    root = parsed(svg)
    assert root.tag == "svg"
    texts = {text.text: text.get("style", "") for text in root.iter("text")}
    assert {"A title", "x", "y", "$5 <b>"} <= texts.keys()
    assert all("currentColor" in style for style in texts.values())


def test_a_plot_scales_and_has_a_description():
    root = parsed(drawn(alt='"quoted" & more'))
    assert root.get("viewBox")
    assert root.get("width") is None
    assert root.get("aria-label") == '"quoted" & more'


def test_a_plot_refers_to_nothing_outside():
    assert "http" not in drawn()


def test_equal_plots_are_equal_bytes_and_different_ones_share_no_id():
    assert drawn() == drawn()
    ids = [set(re.findall(r' id="([^"]*)"', drawn(alt=alt))) for alt in ("one", "two")]
    assert ids[0]
    assert not ids[0] & ids[1]


@pytest.mark.parametrize(
    "name",
    ["x font-family: y", 'a xmlns="b"', "#01fe02", '"><script>alert(1)</script>', "' onload='alert(1)", r"\g<1> \7"],
)
def test_no_class_name_becomes_markup_or_loses_a_character(name):
    """The figure's other tags and attributes are those of a figure of a class named x."""
    root, plain = parsed(drawn(name, alt=name)), parsed(drawn("x", alt="x"))
    assert name in [text.text for text in root.iter("text")]
    assert root.get("aria-label") == name
    assert [(e.tag, *sorted(e.keys())) for e in root.iter()] == [(e.tag, *sorted(e.keys())) for e in plain.iter()]
