"""The steps as components for other pipelines: docs/components.md, as written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipelines.compile import compile_components, image_references
from pipelines.definition import COMPONENTS, NEVER_CACHED, NOTIFY
from tests.conftest import REPOSITORY
from tf_image_classification import flags as flag_table

PAGE = REPOSITORY / "docs" / "components.md"
_RUN = """
import sys
from kfp import components, local

folder, exports = sys.argv[1:]
local.init(local.SubprocessRunner(use_venv=False), pipeline_root=folder)
pipeline = components.load_component_from_file("nightly_photos.yaml")
pipeline(exports=exports, image_size=16, batch_size=8, train_steps=2)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return Path(tmp_path_factory.mktemp("components"))


def images_of(folder: Path) -> dict[str, str]:
    images = {}
    for path in folder.glob("*.yaml"):
        (executor,) = yaml.safe_load(path.read_text())["deploymentSpec"]["executors"].values()
        images[path.stem] = executor["container"]["image"]
    return images


def test_every_step_has_a_component():
    assert set(COMPONENTS) == {*flag_table.STEPS, NOTIFY}
    for step, component in COMPONENTS.items():
        assert component.python_func.__name__ == step


def test_a_component_file_has_the_image_that_the_pipeline_gives_the_step(tmp_path):
    images = image_references("registry.test/team", accelerator={"train": "NVIDIA_TESLA_T4:1"})
    compile_components(str(tmp_path), images)
    assert images_of(tmp_path) == images
    assert "/train-gpu:" in images["train"]


def test_compiling_leaves_the_components_of_the_pipeline_as_they_are(tmp_path):
    before = {step: component.component_spec.implementation.container.image for step, component in COMPONENTS.items()}
    compile_components(str(tmp_path), image_references("registry.test/team"))
    after = {step: component.component_spec.implementation.container.image for step, component in COMPONENTS.items()}
    assert before == after


def test_every_file_loads_with_the_inputs_and_outputs_of_its_step(tmp_path):
    from kfp import components

    for path in compile_components(str(tmp_path), image_references()):
        loaded, component = components.load_component_from_file(path), COMPONENTS[Path(path).stem]
        assert set(loaded.component_spec.inputs) == set(component.component_spec.inputs)
        assert set(loaded.component_spec.outputs or {}) == set(component.component_spec.outputs or {})


def test_the_page_names_every_file_and_whether_its_step_is_cached():
    rows = dict(re.findall(r"^\| `(\w+)\.yaml` \| .* \| (\w+) \|$", PAGE.read_text(), re.MULTILINE))
    assert rows == {step: "never" if step in NEVER_CACHED else "yes" for step in COMPONENTS}


@pytest.mark.slow
def test_the_pipeline_of_the_page_compiles_and_runs(folder, image_folder):
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}

    def call(*words: str) -> str:
        command = [sys.executable, *words]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    compiled = call("-m", "pipelines", "compile", "--output", "pipeline.yaml", "--components_dir", "build/components")
    assert "build/components/train.yaml" in compiled.splitlines()
    (source,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (folder / "nightly_photos.py").write_text(source)
    call("nightly_photos.py")
    spec = yaml.safe_load((folder / "nightly_photos.yaml").read_text())
    executors = spec["deploymentSpec"]["executors"]
    assert executors["exec-train"]["container"]["image"] == image_references()["train"]

    (folder / "exports" / "2026-11-26").mkdir(parents=True)
    shutil.copytree(image_folder, folder / "exports" / "2026-11-27")
    (folder / "run.py").write_text(_RUN)
    call("run.py", "runs", str(folder / "exports"))
    (model,) = folder.glob("runs/nightly-photos-*/train/model")
    assert (model / "labels.txt").read_text() == "bright\ndark\n"
    assert (model / "saved_model").is_dir()
