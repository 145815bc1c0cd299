"""The example that estimator_specs.py opens with, and how an estimator of one's own is loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tf_image_classification import built_in_estimator, estimator_loading, estimator_specs
from tf_image_classification.errors import EstimatorError, FlagError

_SCRIPT = "my_estimator.py"


def indented_blocks(text: str) -> list[str]:
    """The indented blocks of a docstring, without their indentation."""
    blocks: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.startswith("    ") or not line:
            blocks[-1].append(line)
        elif blocks[-1]:
            blocks.append([])
    return [textwrap.dedent("\n".join(lines)).strip() for lines in blocks if any(lines)]


@pytest.fixture
def example(tmp_path: Path, image_folder: Path) -> tuple[Path, str]:
    """A folder with the docstring's script and with pictures, and the docstring's command."""
    script, command = indented_blocks(estimator_specs.__doc__ or "")
    (tmp_path / _SCRIPT).write_text(script + "\n")
    (tmp_path / "photos").symlink_to(image_folder)
    return tmp_path, command


def test_the_example_of_the_module_trains_and_exports_as_written(example: tuple[Path, str]) -> None:
    folder, command = example
    program, *arguments = command.split()
    assert program == "python"
    done = subprocess.run(
        [sys.executable, *arguments, "--train_steps", "2", "--batch_size", "8"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads((folder / "models" / "export" / "model.json").read_text())
    assert 0 <= facts["metrics"]["accuracy"] <= 1
    assert facts["image_size"] == 64


def test_the_example_of_the_module_is_loaded_by_name_from_the_working_directory(
    example: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = example
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", os.getcwd())])
    spec = estimator_loading.load("my_estimator:MyEstimator")
    monkeypatch.delitem(sys.modules, "my_estimator")
    assert isinstance(spec, estimator_specs.EstimatorSpec)
    assert sys.path[0] == str(folder)


def test_without_a_name_the_built_in_estimator_is_loaded() -> None:
    assert type(estimator_loading.load(None)) is built_in_estimator.BuiltInEstimator


@pytest.mark.parametrize(
    "entry", [{"name": "label", "depth": 2}, {"name": "label", "depth": "2", "one-hot": True}, ("label", 2, True)]
)
def test_a_class_dict_entry_that_lacks_a_key_or_has_another_type_is_refused(entry: object) -> None:
    spec_class = type("Short", (built_in_estimator.BuiltInEstimator,), {"class_dict": [entry]})
    with pytest.raises(EstimatorError, match=r"Short\.class_dict has an invalid entry.*Expected: \{'name': str"):
        estimator_loading.instantiate(spec_class)


@pytest.mark.parametrize("name", ["my_estimator", ":MyEstimator", "my_estimator:"])
def test_an_estimator_that_is_not_module_and_class_is_refused(name: str) -> None:
    with pytest.raises(FlagError, match=r"Invalid value for --estimator.*Expected: package\.module:Class"):
        estimator_loading.load(name)
