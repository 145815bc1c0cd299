"""A training is bound to the code of its estimator: it says so when another one continues it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.test_own_estimator import Counting
from tests.training.support import train
from tf_image_classification import evaluate
from tf_image_classification.estimator_code import EstimatorCode
from tf_image_classification.training import estimator_record, training_folder

OLD, NEW = (EstimatorCode((("own-1.whl", digit * 64),), "f" * 64) for digit in "12")
CHANGE = "--packages own-1.whl (sha256 111111111111) then, own-1.whl (sha256 222222222222) now"


@pytest.fixture
def update(tmp_path):
    """Opens the training's folder as a training does, at a step, with this code."""

    def call(code: EstimatorCode, start: int, train_steps: int = 10) -> None:
        with training_folder.open_folder(str(tmp_path / "model")) as folder:
            estimator_record.update(folder, code, start, train_steps)

    return call


def test_a_training_that_is_continued_with_another_package_names_both_and_says_so_once(update, caplog):
    update(OLD, 0)
    update(OLD, 5)
    assert not caplog.text
    update(NEW, 5)
    assert CHANGE in caplog.text
    assert "up to step 5" in caplog.text and "The training continues with the new code" in caplog.text
    caplog.clear()
    update(NEW, 6)
    assert not caplog.text


def test_a_training_that_is_complete_is_not_passed_off_as_one_of_the_new_package(update, caplog):
    update(OLD, 0)
    for _ in range(2):
        caplog.clear()
        update(NEW, 10)
        assert "Nothing is trained with the new code, as --train_steps is reached" in caplog.text


def test_edited_source_is_named_and_source_that_is_not_found_is_no_difference(update, caplog):
    update(OLD, 0)
    update(OLD._replace(source=""), 5)
    update(EstimatorCode(), 0)
    assert not caplog.text
    update(OLD, 6)
    update(OLD._replace(source="e" * 64), 7)
    assert "source ffffffffffff then, eeeeeeeeeeee now" in caplog.text


@pytest.mark.parametrize("content", ["", "[]", "[" * 2000, '{"packages": 1, "estimator_source": {}}'])
def test_a_damaged_record_is_written_again(update, tmp_path, content):
    update(OLD, 0)
    (tmp_path / "model" / "estimator.json").write_text(content)
    update(OLD, 5)
    assert json.loads((tmp_path / "model" / "estimator.json").read_text()) == OLD.facts()


def test_model_json_holds_the_hashes_and_an_evaluation_with_other_code_says_so(
    built_data, training_flags, tmp_path, caplog
):
    spec = Counting()
    spec.code = OLD
    trained = train(built_data, training_flags(train_steps=1), spec)
    facts = json.loads(Path(trained.export_dir, "model.json").read_text())
    assert (facts["packages"], facts["estimator_source"]) == ({"own-1.whl": "1" * 64}, "f" * 64)
    spec = Counting()
    spec.code = NEW
    evaluate.evaluate(trained.export_dir, built_data, str(tmp_path / "evaluation"), batch_size=8, spec=spec)
    assert f"is not the code that {trained.export_dir} was trained with: {CHANGE}" in caplog.text
