"""docs/extending.md, followed as written: its code blocks go into the files that it names, then its commands run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest

from tests import documents

SMALL = "--train_metadata photos --image_size 16 --batch_size 8 --learning_rate 0.1 --seed 7"
_ITEM = re.compile(r"^\d+\. (.*?)(?=^\d+\. |\Z)", re.DOTALL | re.MULTILINE)
_BLOCK = re.compile(r"^ *```(\w+)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A section of the page.

    Attributes:
        blocks: file -> its blocks, each a language and its text; none for a new, empty file.
        generated: the files that `make generate` is to write.
        commands: what the section runs in the end.
    """

    blocks: dict[str, list[tuple[str, str]]]
    generated: set[str]
    commands: str

    def apply(self, checkout: Path) -> None:
        """Writes the new files, and patches the others with the diffs."""
        for name, blocks in self.blocks.items():
            file = checkout / name
            file.parent.mkdir(exist_ok=True)
            if not blocks:
                file.touch(exist_ok=False)
            for language, block in blocks:
                if language == "diff":
                    file.write_text(_patched(file.read_text(), block))
                else:
                    assert not file.exists(), f"{name} is not new"
                    file.write_text(block)


def recipe(heading: str) -> Recipe:
    section = documents.section(documents.read("docs/extending.md"), heading)
    blocks, generated = {}, set()
    for item in _ITEM.findall(section):
        item = re.split(r"^```", item, maxsplit=1, flags=re.MULTILINE)[0]  # the commands behind the last item
        first, *others = re.findall(r"`([^`]+)`", item.split("\n\n")[0])
        if first == "make generate":
            generated |= set(others)
        else:
            blocks[first] = [(language, dedent(block)) for language, block in _BLOCK.findall(item)]
    return Recipe(blocks, generated, "".join(documents.blocks(section, "bash")))


def _patched(text: str, diff: str) -> str:
    lines = diff.splitlines(keepends=True)
    old, new = ("".join(line[1:] for line in lines if line[0] in kept) for kept in (" -", " +"))
    assert text.count(old) == 1, f"these lines are not in the file, or not just once:\n{old}"
    return text.replace(old, new)


@pytest.fixture
def checkout(tmp_path, image_folder) -> Path:
    """A checkout with photos, also as a JSON file."""
    folder = documents.copy_of_the_checkout(tmp_path / "checkout")
    shutil.copytree(image_folder, folder / "photos")
    items = [
        {"image": path.relative_to(folder).as_posix(), "label": path.parent.name}
        for path in sorted((folder / "photos").rglob("*.*"))
    ]
    (folder / "photos.json").write_text(json.dumps([*items, {"label": "bright"}]))
    return folder


def run(checkout: Path, commands: str) -> str:
    """Runs commands in the checkout; returns what they print."""
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    shell = ["bash", "-c", f"set -ex\n{commands}"]
    done = subprocess.run(shell, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def follow(heading: str, checkout: Path) -> None:
    """Applies a recipe and runs its commands. Afterwards exactly the files that it names differ, and nothing is left to
    generate."""
    followed, before = recipe(heading), _contents(checkout)
    followed.apply(checkout)
    run(checkout, followed.commands)
    changed = _changed(checkout, before)
    assert changed == followed.blocks.keys() | followed.generated
    run(checkout, f"{sys.executable} -m components.generate --check")
    style = f"{sys.executable} -m ruff"
    files = " ".join(name for name in changed if name.endswith(".py"))
    run(checkout, f"{style} check {files} && {style} format --check {files}")


def _contents(checkout: Path) -> dict[str, bytes]:
    """The checkout's own files: sources and documentation."""
    suffixes, results = {".py", ".md", ".toml", ".txt"}, {"photos", "models", "data", "runs"}
    files = (path for path in checkout.rglob("*") if path.suffix in suffixes and path.is_file())
    by_name = {path.relative_to(checkout).as_posix(): path for path in files if ".venv" not in path.parts}
    return {name: path.read_bytes() for name, path in by_name.items() if name.split("/")[0] not in results}


def _changed(checkout: Path, before: dict[str, bytes]) -> set[str]:
    """Names of the files that are new or differ."""
    return {name for name, content in _contents(checkout).items() if before.get(name) != content}


@pytest.mark.parametrize("heading", re.findall(r"^## (.+)$", documents.read("docs/extending.md"), re.MULTILINE))
def test_the_diffs_of_a_recipe_apply_and_change_exactly_the_files_that_it_names(heading, checkout):
    followed, before = recipe(heading), _contents(checkout)
    followed.apply(checkout)
    assert _changed(checkout, before) == followed.blocks.keys()


@pytest.mark.slow
def test_a_network_that_is_not_slims_is_added_and_trains(checkout):
    follow("A network", checkout)
    facts = json.loads((checkout / "models" / "export" / "model.json").read_text())
    assert (facts["model_name"], facts["metrics"]["global_step"]) == ("patches", 2)


def test_a_kind_of_source_is_added_and_built_with_every_item_accounted_for(checkout):
    follow("A source", checkout)
    splits = json.loads((checkout / "data" / "manifest.json").read_text())["splits"]
    assert sum(split["images"] for split in splits.values()) == 61
    assert "photos.json:61,no object" in (checkout / "data" / "rejected.csv").read_text()


@pytest.mark.slow
def test_a_flag_is_added_and_existing_trainings_keep_their_key(checkout):
    run(checkout, f".venv/bin/python -m pipelines run {SMALL} --train_steps 2")
    (folder,) = (checkout / "runs" / "checkpoints").iterdir()
    follow("A flag", checkout)
    # That of the page's own command, which gives the flag a value.
    (other,) = set((checkout / "runs" / "checkpoints").iterdir()) - {folder}
    run(checkout, f".venv/bin/python -m pipelines run {SMALL} --train_steps 4")
    assert set((checkout / "runs" / "checkpoints").iterdir()) == {folder, other}
    assert (folder / "model.ckpt-4.index").exists()
    facts = json.loads((checkout / "runs" / "latest" / "model" / "model.json").read_text())
    assert facts["flags"]["clip_value"] is None


@pytest.mark.slow
def test_a_step_is_added_to_the_pipeline_and_runs(checkout):
    follow("A step", checkout)
    with tarfile.open(checkout / "runs" / "latest" / "archive" / "packed") as archive:
        assert "./model.json" in archive.getnames()
