"""Each promise of SECURITY.md has a test, and each promise that is not made a reason."""

from __future__ import annotations

import ast
import re

import pytest

from tests import documents
from tests.conftest import REPOSITORY

_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def _rows(heading: str) -> list[tuple[str, str]]:
    """The table below a heading: its two columns, without the header."""
    lines = documents.section(documents.read("SECURITY.md"), heading).splitlines()
    cells = [line.strip("|").split("|") for line in lines if line.startswith("|")]
    return [(first.strip(), second.strip()) for first, second in cells[2:]]


def test_there_are_promises_and_each_is_made_once():
    promises = [promise for promise, _ in _rows("Promises")]
    assert len(promises) > 10 and len(set(promises)) == len(promises)


@pytest.mark.parametrize(("promise", "tests"), _rows("Promises"))
def test_a_promise_has_tests_that_exist(promise, tests):
    named = _TEST.findall(tests)
    assert named and _TEST.sub("", tests).strip(" ,") == "", f"no test, or other words: {promise}"
    for file, name in named:
        path = REPOSITORY / file
        assert path.is_file(), f"{file} is missing: {promise}"
        functions = [node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
        assert name in functions, f"{file} has no {name}: {promise}"


@pytest.mark.parametrize(("what", "reason"), _rows("No promise"))
def test_what_is_not_promised_has_a_reason(what, reason):
    assert len(reason.split()) > 5, what
