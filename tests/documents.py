"""The documentation as tests read it: pages, code blocks, sections; and a checkout to follow them in."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from tests.conftest import REPOSITORY

PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    *sorted(f"docs/{path.name}" for path in (REPOSITORY / "docs").glob("*.md")),
]


def read(page: str) -> str:
    return (REPOSITORY / page).read_text()


def blocks(text: str, language: str) -> list[str]:
    """The content of the code blocks of one language, in their order."""
    return [content for found, content in blocks_of_any_language(text) if found == language]


def blocks_of_any_language(text: str) -> list[tuple[str, str]]:
    """The code blocks that name their language, in their order: language, content."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def section(text: str, heading: str) -> str:
    """What follows a heading of level 2, up to the next one."""
    return text.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def copy_of_the_checkout(folder: Path) -> Path:
    """A checkout without its tests, whose `make setup` is done: its .venv is the one that runs this test."""
    ignored = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "tests", "runs", "build")
    shutil.copytree(REPOSITORY, folder, ignore=ignored)
    environment = folder / ".venv"
    environment.mkdir()
    for entry in Path(sys.prefix).iterdir():
        if entry.name != ".ready":
            (environment / entry.name).symlink_to(entry)
    (environment / ".ready").touch()
    return folder
