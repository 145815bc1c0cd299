from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tf_image_classification import training_run
from tf_image_classification.errors import FlagError
from tf_image_classification.training_run import Outputs


@pytest.fixture
def step(built_data, training_flags, tmp_path):
    """Runs the training step with changed flags; returns what its model.json says, and the folder of its
    checkpoints."""

    def run(root="root", version="", data_dir=None, **changes):
        outputs = Outputs(*(str(tmp_path / name) for name in ("model_out", "logs", "curves.html")))
        flags = training_flags(**{"model_dir": None, "train_steps": 3, **changes})
        training_run.train(
            data_dir or built_data.folder,
            flags,
            outputs,
            pipeline_root=str(tmp_path / root),
            checkpoint_version=version,
        )
        return json.loads(Path(outputs.model, "model.json").read_text()), Path(flags.model_dir)

    return run


def test_checkpoints_live_under_the_pipeline_root_and_equal_inputs_share_them(step, tmp_path):
    _, first = step()
    assert first.parent == tmp_path / "root" / "checkpoints"
    assert step()[1] == first


def test_a_root_that_the_service_has_not_filled_in_is_no_place_for_checkpoints(step, tmp_path, monkeypatch):
    with pytest.raises(FlagError, match="--model_dir is required here"):
        step(root="{{$.pipeline_root}}")
    step(root="{{$.pipeline_root}}", model_dir=str(tmp_path / "elsewhere"))


def test_model_dir_names_the_parent_of_the_checkpoints(step, tmp_path):
    _, folder = step(model_dir=str(tmp_path / "elsewhere"))
    assert folder.parent == tmp_path / "elsewhere"


def test_more_steps_go_on_in_the_same_folder_and_fewer_start_in_another(step):
    _, three = step()
    facts, six = step(train_steps=6)
    assert six == three
    facts, two = step(train_steps=2)
    assert two != three
    assert facts["metrics"]["global_step"] == 2


@pytest.mark.parametrize("change", [{"learning_rate": 0.2}, {"batch_size": 4}, {"version": "other"}])
def test_another_flag_or_checkpoint_starts_afresh(step, change):
    assert step()[1] != step(**change)[1]


def test_the_step_hands_on_summaries_and_a_page_of_curves(step, tmp_path):
    step(train_steps=5)
    names = [
        path.relative_to(tmp_path / "logs").as_posix()
        for path in sorted((tmp_path / "logs").rglob("*"))
        if path.is_file()
    ]
    assert [re.sub(r"events.*", "events", name) for name in names] == ["eval/events", "events"]
    page = (tmp_path / "curves.html").read_text()
    assert page.count("<svg") == 3  # loss, learning rate, accuracy
    assert "http" not in page
