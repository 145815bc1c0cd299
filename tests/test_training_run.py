from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path

import pytest

from tests.packaged import wheel
from tf_image_classification import flags as flag_table
from tf_image_classification import packages, train_estimator, training_key, training_run
from tf_image_classification.checkpoints import checkpoint_file
from tf_image_classification.errors import ConflictError, FlagError
from tf_image_classification.flags import Flag
from tf_image_classification.training_run import TrainOutputs

RUN = "0f8fad5b-d9cb-469f-a165-70867728950e"


@pytest.fixture
def step(built_data, training_flags, tmp_path):
    """Runs the training step with changed flags; returns its model.json, and the folder of its
    checkpoints."""

    def run(root="root", version="", data_dir=None, estimator_version="", **changes):
        outputs = TrainOutputs(
            *(str(tmp_path / name) for name in ("model_out", "logs", "curves.html", "augmentation.html"))
        )
        flags = training_flags(**{"model_dir": None, "train_steps": 3, **changes})
        training_run.train(
            data_dir or built_data.folder,
            flags,
            outputs,
            pipeline_root=str(tmp_path / root),
            checkpoint_version=version,
            estimator_version=estimator_version,
        )
        return json.loads(Path(outputs.model, "model.json").read_text()), Path(flags.model_dir)

    return run


def test_checkpoints_are_under_the_pipeline_root_and_equal_inputs_share_them(step, tmp_path):
    _, first = step()
    assert first.parent == tmp_path / "root" / "checkpoints"
    assert step()[1] == first


def test_a_root_that_the_service_has_not_filled_in_cannot_hold_checkpoints(step, tmp_path, monkeypatch):
    with pytest.raises(FlagError, match="--model_dir is required here"):
        step(root="{{$.pipeline_root}}")
    step(root="{{$.pipeline_root}}", model_dir=str(tmp_path / "elsewhere"))


@pytest.mark.parametrize(
    "root", ["gs://bucket", "s3://bucket/a/b", "minio://mlpipeline/v2/artifacts", f"gs://b/{RUN}/x"]
)
@pytest.mark.parametrize("task", ["train", f"train-2/{RUN}"])
def test_the_root_on_kubeflow_is_that_of_the_uri_of_an_output(root, task):
    assert training_run.pipeline_root_of(f"{root}/image-classification/{RUN}/{task}/model") == root


@pytest.mark.parametrize(
    "uri", ["gs://bucket/123/image-classification-2030/train_-45/model", f"/pipeline/{RUN}/train/model"]
)
def test_a_uri_of_another_form_has_no_root(uri):
    with pytest.raises(FlagError, match="--model_dir is required here"):
        training_run.pipeline_root_of(uri)


def test_model_dir_names_the_parent_of_the_checkpoints(step, tmp_path):
    _, folder = step(model_dir=str(tmp_path / "elsewhere"))
    assert folder.parent == tmp_path / "elsewhere"


@pytest.mark.slow
def test_more_steps_continue_in_the_same_folder_and_fewer_start_in_another(step):
    _, three = step()
    facts, six = step(train_steps=6)
    assert six == three
    facts, two = step(train_steps=2)
    assert two != three
    assert facts["metrics"]["global_step"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"learning_rate": 0.2}, {"batch_size": 4}, {"version": "other"}])
def test_another_flag_or_checkpoint_starts_afresh(step, change):
    assert step()[1] != step(**change)[1]


def test_other_code_of_an_estimator_starts_afresh_and_equal_code_elsewhere_does_not(step, tmp_path, monkeypatch):
    folders = []

    def train_and_evaluate(spec, data, flags, **_):
        folders.append(flags.model_dir)
        raise FlagError("enough")

    monkeypatch.setattr(train_estimator, "train_and_evaluate", train_and_evaluate)
    monkeypatch.setattr(packages, "install", lambda _: "")
    own = {"estimator": "tests.test_own_estimator:Counting", "model_dir": str(tmp_path / "checkpoints")}
    for folder, text in (("a", "A = 1\n"), ("b", "A = 1\n"), ("a", "A = 2\n")):
        package = wheel(tmp_path / folder / "own-1-py3-none-any.whl", "own", text)
        with pytest.raises(FlagError, match="enough"):
            step(packages=str(package), **own)
    assert folders[0] == folders[1] != folders[2]
    with pytest.raises(ConflictError, match="has changed since the resolve step"):
        step(packages=str(package), estimator_version=f"packages:{'0' * 64}", **own)


@pytest.mark.slow
def test_a_folder_of_version_2_0_0_is_not_continued_with_an_estimator_whose_code_it_does_not_know(
    step, tmp_path, monkeypatch
):
    folders = []
    monkeypatch.setattr(checkpoint_file, "latest", lambda folder: folders.append(folder))
    monkeypatch.setattr(train_estimator, "train_and_evaluate", lambda *_, **__: 1 / 0)
    for estimator in (None, "tests.test_own_estimator:Counting"):
        with pytest.raises(ZeroDivisionError):
            step(estimator=estimator)
    assert len(folders) == 3  # two for the built-in estimator


def test_a_precision_under_either_name_continues_the_same_folders(step, monkeypatch):
    folders = []
    monkeypatch.setattr(checkpoint_file, "latest", lambda folder: folders.append(folder))
    monkeypatch.setattr(train_estimator, "train_and_evaluate", lambda *_, **__: 1 / 0)
    for change in ({"mixed_precision": True}, {"precision": "mixed_float16"}, {}, {"precision": "float32"}):
        with pytest.raises(ZeroDivisionError):
            step(**change)
    assert len(folders) == 8  # of each training, the one of its key and the one of 2.0.0
    assert folders[:2] == folders[2:4] != folders[4:6] == folders[6:]


@pytest.mark.parametrize(
    "flags", [{}, {"learning_rate_decay_type": "polynomial"}, {"learning_rate_decay_type": "fixed"}]
)
def test_where_a_training_ends_does_not_decide_where_its_checkpoints_are(flags):
    few, many = (training_key.checkpoint_key_flags(flags | {"train_steps": steps}) for steps in (30, 60))
    assert few == many
    assert "train_steps" not in few


@pytest.mark.parametrize(
    "flags",
    [{"learning_rate_decay_type": "cosine"}, {"warmup_fraction": 0.1}, {"head_fraction": 0.2}, {"num_evals": 5}],
)
def test_other_train_steps_start_afresh_where_every_step_depends_on_them(flags):
    few, many = (training_key.checkpoint_key_flags(flags | {"train_steps": steps}) for steps in (30, 60))
    assert (few["train_steps"], many["train_steps"]) == (30, 60)


def test_a_training_is_known_by_its_precision_under_the_name_of_earlier_versions():
    key = training_key.checkpoint_key_flags
    assert key({"precision": "float32"}) == {}
    assert key({"precision": "mixed_float16"}) == {"mixed_precision": True}
    assert key({"precision": "mixed_bfloat16"}) == {"precision": "mixed_bfloat16"}


@pytest.mark.slow
def test_a_training_with_evaluations_at_fractions_of_its_steps_is_not_continued_with_more_steps(step):
    _, three = step(num_evals=1)
    facts, six = step(num_evals=1, train_steps=6)
    assert six != three
    assert facts["metrics"]["global_step"] == 6
    assert step(num_evals=1)[1] == three


NEW_FLAG = Flag("grad_clip", float, 0.0, "Optimizers", "A flag of a later version.")


def add_new_flag(monkeypatch) -> None:
    """Adds a flag to the table, as a later version may."""
    monkeypatch.setattr(flag_table, "FLAGS", (*flag_table.FLAGS, NEW_FLAG))
    monkeypatch.setitem(flag_table.BY_NAME, NEW_FLAG.name, NEW_FLAG)


@pytest.mark.slow
def test_a_flag_added_by_a_later_version_keeps_the_folder_and_another_value_of_it_starts_afresh(step, monkeypatch):
    _, before = step()
    add_new_flag(monkeypatch)
    assert step()[1] == before
    assert step(grad_clip=1.0)[1] != before


@pytest.fixture
def folders(step, monkeypatch) -> tuple[Path, Path]:
    """The folders of two equal trainings of 3 steps: the new one, and the one that version 2.0.0 would have used."""
    _, new = step()
    with monkeypatch.context() as context:
        context.setattr(
            training_key,
            "checkpoint_key_flags",
            lambda values: {name: values[name] for name in sorted(training_run._KEY_FLAGS_2_0_0)},
        )
        _, old = step()
    assert old != new
    return new, old


@pytest.mark.slow
def test_a_folder_of_version_2_0_0_is_continued_also_after_a_flag_was_added(step, folders, monkeypatch):
    new, old = folders
    shutil.rmtree(new)
    add_new_flag(monkeypatch)
    assert step()[1] == old
    facts, folder = step(train_steps=5)
    assert (folder, facts["metrics"]["global_step"]) == (old, 5)
    facts, folder = step(train_steps=4)
    assert (folder.name, facts["metrics"]["global_step"]) == (f"{old.name}-4", 4)


@pytest.mark.slow
def test_a_folder_of_version_2_0_0_is_not_continued_where_there_is_a_new_one(step, folders):
    new, _ = folders
    assert step()[1] == new


@pytest.mark.slow
def test_a_folder_of_version_2_0_0_is_not_continued_with_another_value_of_an_added_flag(step, folders, monkeypatch):
    new, old = folders
    shutil.rmtree(new)
    add_new_flag(monkeypatch)
    assert step(grad_clip=1.0)[1] not in (new, old)


def test_the_step_hands_on_summaries_a_profile_and_pages_of_curves_and_of_augmented_samples(step, tmp_path):
    step(train_steps=5, profile=2)
    names = [
        path.relative_to(tmp_path / "logs").as_posix()
        for path in sorted((tmp_path / "logs").rglob("*"))
        if path.is_file()
    ]
    *summaries, profile = [re.sub(r"events.*", "events", name) for name in names]
    assert summaries == ["eval/events", "events"]
    assert re.fullmatch(r"plugins/profile/[^/]+/[^/]+\.xplane\.pb", profile)
    page = (tmp_path / "curves.html").read_text()
    assert page.count("<svg") == 4  # loss, the same without regularisation, learning rate, accuracy
    assert "http:" not in page and "https:" not in page
    assert "original: the estimator's own training" in html.unescape((tmp_path / "augmentation.html").read_text())
