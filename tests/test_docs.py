"""What the documentation shows is so."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests import documents
from tests.conftest import REPOSITORY
from tf_image_classification import nets

_NAMED_FILE = re.compile(r"`((?:tf_image_classification|components|pipelines|images|tests|benchmarks|docs)/[\w./]*)`")


def test_the_table_of_slims_checkpoints_matches_the_networks() -> None:
    rows = [
        [cell.strip(" `") for cell in line.strip("|\n").split("|")]
        for line in documents.section(documents.read("docs/checkpoints.md"), "slim's released checkpoints").splitlines()
        if line.startswith("| `")
    ]
    documented = {row[0]: (int(row[3]), int(row[4]), int(row[5]), row[6]) for row in rows if row[0] in nets.NETS}
    manifests = {
        path.stem: json.loads(path.read_text())
        for path in (REPOSITORY / "tests" / "parity" / "manifests").glob("*.json")
    }
    assert documented == {
        name: (
            nets.NETS[name].default_size,
            manifest["classes"],
            manifest["classes"] - 1000,
            nets.NETS[name].preprocessing,
        )
        for name, manifest in manifests.items()
    }


@pytest.mark.parametrize("page", documents.PAGES)
def test_every_link_has_a_target(page: str) -> None:
    text = documents.read(page)
    for target, anchor in re.findall(r"\]\((?!http)([^)#]*)(?:#([^)]*))?\)", text):
        linked = (REPOSITORY / page).parent / target if target else REPOSITORY / page
        assert linked.exists(), target
        if anchor:
            headings = {
                re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-")
                for line in linked.read_text().splitlines()
            }
            assert anchor in headings, anchor


@pytest.mark.parametrize("page", documents.PAGES)
def test_files_and_folders_that_a_page_names_exist(page: str) -> None:
    """New files of docs/extending.md apart, which it marks."""
    named = _NAMED_FILE.findall(re.sub(r"`[^`]+` \(new.*?\)", "", documents.read(page)))
    missing = {name for name in named if not (REPOSITORY / name).exists()}
    assert not missing - {"components/archive/README.md"}  # which a recipe generates


def test_the_readme_is_short() -> None:
    """A newcomer reads it in five minutes."""
    assert len(documents.read("README.md").splitlines()) <= 200


def test_every_page_is_reached_from_the_readme() -> None:
    linked = set(re.findall(r"\]\(([\w/.]+\.md)", documents.read("README.md")))
    assert linked >= set(documents.PAGES) - {"README.md"}


def test_the_architectures_table_has_the_layers_that_the_linter_checks() -> None:
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (
        contract["layers"] for contract in contracts if contract.get("containers") == ["tf_image_classification"]
    )
    layer_of = {module: number for number, layer in enumerate(layers) for module in layer.split(" | ")}
    section = documents.section(documents.read("docs/architecture.md"), "Packages")
    rows = [re.findall(r"`(\w+)/?`", line.split("|")[1]) for line in section.splitlines() if line.startswith("| `")]
    numbers = [[layer_of[module] for module in row if module in layer_of] for row in rows]
    assert {module for row in rows for module in row} >= set(layer_of)
    for above, below in itertools.pairwise(filter(None, numbers)):
        assert max(above) < min(below)


def test_the_messages_that_the_page_on_vertex_explains_are_those_of_the_code() -> None:
    section = documents.section(documents.read("docs/vertex.md"), "When it does not run")
    messages = re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)
    folders = ("tf_image_classification", "pipelines")
    code = "".join(file.read_text() for folder in folders for file in (REPOSITORY / folder).rglob("*.py"))
    fragments = [fragment.strip() for message in messages for fragment in message.split("...")]
    assert len(messages) > 3
    assert not [fragment for fragment in fragments if fragment not in code]


def test_the_migrated_estimator_trains_on_the_originals_records_by_its_scopes(mini_mnist: Path, tmp_path: Path) -> None:
    (script,) = documents.blocks(documents.read("docs/migrating.md"), "python")
    (tmp_path / "myEstimator.py").write_text(script)
    records = mini_mnist / "dataset" / "tf_records"
    command = (
        f"{sys.executable} myEstimator.py --train_metadata {records}/train* --eval_metadata "
        f"{records}/eval* --model_dir ./models "
        "--batch_size 32 --train_steps 5 --image_size 28 --trainable_scopes MiniMNIST/logits"
    )
    answer = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert "418 training and 182 evaluation" in answer.stderr
    facts = json.loads((tmp_path / "models" / "export" / "model.json").read_text())
    assert (facts["tasks"][0]["name"], facts["tasks"][0]["labels_file"]) == ("class_id", "labels.txt")
