"""Cells of the CSV files that a step writes for people, who open them in a spreadsheet."""

from __future__ import annotations

import contextlib

# A spreadsheet takes a text that begins so for a formula (CWE-1236); the last four are full-width = + - @.
_BEGIN_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def cell(value: object) -> object:
    """The value, or, for a text that a spreadsheet would take for a formula, the text after an apostrophe.

    A number is none, as `-0.5`. A text of apostrophes and such a formula gets another one, so that a reader gets every
    text back by taking one off.
    """
    if not isinstance(value, str) or not value.lstrip("'").startswith(_BEGIN_FORMULAS):
        return value
    with contextlib.suppress(ValueError):
        float(value)
        return value
    return f"'{value}"
