"""A file fits in the head: limits on its length and on that of each function, besides what `make generate` writes."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import REPOSITORY

MAX_FILE_LINES, MAX_FUNCTION_LINES = 350, 60
GENERATED = re.compile(r"^ *# flags: begin.*?# flags: end\n", re.MULTILINE | re.DOTALL)


def sources() -> Iterator[tuple[Path, str]]:
    """Every Python file under version control, without its generated parts."""
    tracked = subprocess.run(["git", "ls-files", "*.py"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    for name in tracked.stdout.splitlines():
        yield Path(name), GENERATED.sub("", (REPOSITORY / name).read_text())


def test_no_file_is_too_long():
    lengths = {path: text.count("\n") for path, text in sources()}
    assert lengths
    assert {path: lines for path, lines in lengths.items() if lines > MAX_FILE_LINES} == {}


def test_no_function_is_too_long():
    too_long = {}
    for path, text in sources():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    too_long[f"{path}:{node.name}"] = lines
    assert too_long == {}
