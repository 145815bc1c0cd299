"""The last step promotes the model that was exported and evaluated, where the account of the run may."""

from __future__ import annotations

import json

import pytest
from kfp import dsl

from components.register.component import register
from tests import model_folders
from tf_image_classification import model_folder


@pytest.fixture
def step(tmp_path):
    """Runs the step on a model folder of two files and its evaluation; keyword arguments replace some."""
    folder = model_folders.write(tmp_path / "model")
    (tmp_path / "evaluation").mkdir()
    evaluated = {"model": {"sha256": model_folder.verify(str(folder)).sha256}, "loss": 0.5}
    (tmp_path / "evaluation" / "metrics.json").write_text(json.dumps(evaluated))

    def run(**changes):
        return register.python_func(
            model=dsl.Model(uri=str(folder)),
            evaluation=dsl.Artifact(uri=str(tmp_path / "evaluation")),
            registered=dsl.Model(uri=str(tmp_path / "registered")),
            **{"in_service": "", "reason": "it is better", "run": "first", "champion": str(tmp_path / "service")}
            | changes,
        )

    return run


def test_a_model_that_was_evaluated_is_promoted(step, tmp_path):
    (version,) = step()
    assert json.loads((tmp_path / "service" / "champion.json").read_text())["model"] == version


def test_a_model_that_was_changed_after_its_export_is_not_promoted(step, tmp_path, capsys):
    (tmp_path / "model" / "model.keras").write_bytes(b"other weights")
    with pytest.raises(SystemExit):
        step()
    assert "is not as it was exported" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "service").exists()


def test_a_model_that_was_changed_after_its_evaluation_is_not_promoted(step, tmp_path, capsys):
    model_folders.write(tmp_path / "model", note="exported again")
    with pytest.raises(SystemExit):
        step()
    assert "not the one that was evaluated" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "service").exists()


def test_an_account_that_may_not_deploy_leaves_the_promotion_to_another(step, tmp_path, capsys):
    assert step(promote=False, in_service="models/before") == ("models/before",)
    assert (tmp_path / "registered").read_text() == "models/before"
    assert "not promoted, as --promote is false" in capsys.readouterr().out
    assert not (tmp_path / "service").exists()
