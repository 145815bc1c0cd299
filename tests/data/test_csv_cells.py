"""What a spreadsheet would calculate is text, a number stays one, and every text can be read back."""

from __future__ import annotations

import csv
import io

import pytest

from tf_image_classification.data.csv_cells import cell

FORMULAS = [
    "=1+1",
    "+1+cmd|' /C calc'!A0",
    "-1+1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "\uff1d1",
    "=",
    "-",
    "'=1",
    "''@a",
]
OTHERS = ["daisy", "a=b", "1-2", "'quoted'", "", "-0.5", "-1e-07", "+3", "-inf", "\u2212", -0.25, 7, None]


def read_back(text: str) -> str:
    """As docs/serving.md tells a program to."""
    return text[1:] if text.startswith("'") and text.lstrip("'").startswith(tuple("=+-@\t\r\n\uff1d")) else text


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_becomes_text_that_can_be_read_back(text):
    file = io.StringIO(newline="")
    csv.writer(file).writerow([cell(text)])
    ((read,),) = csv.reader(io.StringIO(file.getvalue(), newline=""))
    assert read == f"'{text}"
    assert read_back(read) == text


@pytest.mark.parametrize("value", OTHERS)
def test_everything_else_is_unchanged(value):
    assert cell(value) is value
    assert not isinstance(value, str) or read_back(value) == value
