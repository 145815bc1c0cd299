"""Which parameters a recipe becomes: those given, at their defaults or not, win; a step could not tell."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pipelines import template
from pipelines.commands import parameters
from pipelines.local import sample
from tf_image_classification import flags as flag_table
from tf_image_classification import recipes
from tf_image_classification.errors import FlagError

FINETUNE = recipes.RECIPES["finetune"]
DATA = {"train_metadata": "gs://bucket/photos"}


def as_in_the_step(values: dict) -> dict:
    """The flags that the train step makes of the parameters."""
    arguments = {flag.name: flag.pipeline_default for flag in flag_table.of_pipeline()} | values
    return vars(recipes.for_step("train", arguments))


@pytest.fixture
def submitted(pipelines, vertex, tmp_path):
    """Submits the pipeline with these words and lines of a --params file; returns the parameters that were sent."""

    def submit(*words: str, params: str = "") -> dict:
        file = tmp_path / "flags.yaml"
        file.write_text(params)
        name = f"run-{len(vertex.jobs)}"
        root = ["--pipeline_root", "gs://bucket/root", "--train_metadata", "gs://bucket/words", "--params", str(file)]
        done = pipelines("submit", "--run_id", name, *root, *words)
        assert done.returncode == 0, done.stderr
        return dict(vertex.jobs[name].runtime_config.parameter_values)

    return submit


def test_a_submitted_recipe_is_sent_as_its_values(submitted):
    sent = submitted("--recipe", "finetune", "--train_steps", "20", "--batch_size", "8", params="eval_freq: 5\n")
    given = {"train_steps": 20, "batch_size": 8, "eval_freq": 5}
    assert sent == {"train_metadata": "gs://bucket/words", "recipe": ""} | FINETUNE | given


def test_a_recipe_in_a_file_of_parameters_is_expanded_as_well(submitted):
    sent = submitted("--learning_rate", "0.01", params="recipe: finetune\n")
    assert sent["recipe"] == "" and sent["optimizer"] == "adamw" and sent["learning_rate"] == 0.01


def test_a_schedule_gets_the_values_of_a_recipe_and_an_update_those_of_another(pipelines, vertex):
    root = ["--pipeline_root", "gs://bucket/root", "--train_metadata", "gs://bucket/words"]
    recurrence = ["--cron", "0 3 * * 1", "--time_zone", "Europe/Berlin"]
    done = pipelines("schedule", "create", "weekly", *recurrence, *root, "--recipe", "finetune", "--train_steps", "20")
    assert done.returncode == 0, done.stderr

    def scheduled() -> dict:
        (weekly,) = vertex.schedules.values()
        return dict(weekly.create_pipeline_job_request.pipeline_job.runtime_config.parameter_values)

    sent = {"train_metadata": "gs://bucket/words", "recipe": ""}
    assert scheduled() == sent | FINETUNE | {"train_steps": 20}
    assert pipelines("schedule", "update", "weekly", "--recipe", "scratch").returncode == 0
    assert scheduled() == sent | recipes.RECIPES["scratch"]


def test_a_run_on_this_machine_takes_the_recipe_over_the_samples_flags_and_given_flags_over_both(
    command, tmp_path, monkeypatch
):
    from pipelines.local import run, summary

    runs = []
    monkeypatch.setattr(run, "run", lambda values, *_, **__: runs.append(values))
    monkeypatch.setattr(summary, "table", lambda _: "done")
    words = ["run", "--runs_dir", str(tmp_path), "--recipe", "scratch", "--train_steps", "20", "--clip_norm", "-1"]
    assert command(*words).returncode == 0
    (values,) = runs
    expected = sample.FLAGS | recipes.RECIPES["scratch"] | {"train_steps": 20}
    del expected["clip_norm"]
    assert values == expected | {"train_metadata": f"{tmp_path}/sample/digits"}
    flags = as_in_the_step(values)
    assert (flags["train_steps"], flags["clip_norm"]) == (20, None)


def combine(inherited: dict, given: dict, spec=None) -> dict:
    return parameters.combine(spec, inherited, given)


def test_a_flag_that_is_unset_beside_a_recipe_stays_unset():
    combined = combine({}, DATA | {"recipe": "finetune", "checkpoint_exclude_scopes": ""})
    assert as_in_the_step(combined)["checkpoint_exclude_scopes"] is None


def test_a_rerun_keeps_the_expanded_values_and_takes_what_is_given():
    first = combine({}, DATA | {"recipe": "finetune", "train_steps": 20})
    again = as_in_the_step(combine(first, {"batch_size": 1}))
    assert (again["train_steps"], again["batch_size"], again["optimizer"]) == (20, 1, "adamw")


def test_a_recipe_that_a_rerun_names_replaces_the_earlier_values():
    first = combine({}, DATA | {"train_steps": 999, "seed": 3})
    again = as_in_the_step(combine(first, {"recipe": "finetune"}))
    assert (again["train_steps"], again["seed"]) == (recipes.RECIPES["finetune"]["train_steps"], 3)


def test_a_rerun_of_a_recipe_that_was_set_in_a_ui_does_what_the_steps_did_then_and_a_given_default_wins():
    in_ui = {flag.name: flag.pipeline_default for flag in flag_table.of_pipeline()}
    in_ui |= DATA | {"recipe": "finetune", "learning_rate": 0.5}
    again = as_in_the_step(combine(in_ui, {}))
    assert again == as_in_the_step(in_ui) | {"recipe": None}
    assert as_in_the_step(combine(in_ui, {"train_steps": 20}))["train_steps"] == 20
    assert as_in_the_step(combine(in_ui, {"recipe": ""}))["train_steps"] == 20


OWN = """
from kfp import compiler, dsl

@dsl.component(base_image="python:3.11", install_kfp_package=False)
def train(recipe: str, batch_size: int): pass

@dsl.pipeline(name="own")
def own({signature}):
    train(recipe=recipe, batch_size=batch_size)

compiler.Compiler().compile(own, __import__("sys").argv[1])
"""


@pytest.fixture(scope="module")
def own_template(tmp_path_factory):
    """Makes the compiled pipeline of a user with these parameters."""

    def make(signature: str) -> str:
        folder = tmp_path_factory.mktemp("own")
        (folder / "own.py").write_text(OWN.format(signature=signature))
        path = str(folder / "own.yaml")
        subprocess.run([sys.executable, str(folder / "own.py"), path], check=True, capture_output=True)
        return path

    return make


def test_a_pipeline_without_the_recipes_parameters_leaves_it_to_the_steps(own_template):
    spec = template.load(own_template("recipe: str = '', batch_size: int = 1")).spec
    assert combine({}, {"recipe": "finetune", "batch_size": 8}, spec) == {"recipe": "finetune", "batch_size": 8}
    with pytest.raises(FlagError, match=r"--batch_size at its default.*template without all flags"):
        combine({}, {"recipe": "finetune", "batch_size": "1"}, spec)
    with pytest.raises(FlagError, match=r"Did you mean finetune\?"):
        combine({}, {"recipe": "finetun"}, spec)


def test_a_recipe_that_is_a_templates_default_is_expanded_with_the_templates_other_defaults(own_template, submitted):
    others = "".join(
        f", {flag.name}: {flag.type.__name__} = {flag.pipeline_default!r}"
        for flag in flag_table.of_pipeline()
        if flag.name not in ("recipe", "batch_size", "learning_rate")
    )
    path = own_template(f"recipe: str = 'finetune', batch_size: int = 1, learning_rate: float = 0.5{others}")
    sent = submitted("--template", path, "--train_steps", "20")
    assert (sent["train_steps"], sent["learning_rate"], sent["batch_size"], sent["recipe"]) == (20, 0.5, 32, "")
    spec = template.load(path).spec
    assert combine(sent, {}, spec)["recipe"] == ""  # of a rerun: else the template's default returns
