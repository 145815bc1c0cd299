"""Recipes: what they may set, and which flags win over them."""

from __future__ import annotations

import logging

import pytest

from tests.test_command_line import call
from tf_image_classification import flags as flag_table
from tf_image_classification import recipes, train_estimator, training_key
from tf_image_classification.errors import FlagError
from tf_image_classification.flag_types import RESOLVE_STEP, TRAIN_STEP

RECIPES = sorted(recipes.RECIPES)
STEPS = (RESOLVE_STEP, TRAIN_STEP)


def test_the_table_of_flags_names_the_recipes():
    assert set(flag_table.BY_NAME["recipe"].choices) == set(recipes.RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_holds_allowed_values_that_differ_from_the_defaults(name):
    recipe = recipes.RECIPES[name]
    checked = vars(flag_table.validate(recipe, recipe))
    assert checked == recipe
    assert recipes.without_defaults(recipe) == recipe


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_holds_flags_of_the_two_steps_that_expand_it_and_no_other(name):
    for flag in map(flag_table.BY_NAME.get, recipes.RECIPES[name]):
        assert (flag.commands, flag.steps) == ((flag_table.TRAIN,), STEPS), flag.name


def parse(*words: str):
    return train_estimator._parse(["--train_metadata", "photos", *words])


def test_on_a_command_line_a_flag_that_is_given_wins_also_at_its_default(caplog):
    caplog.set_level(logging.INFO)
    flags = parse("--recipe", "finetune", "--train_steps", "20", "--head_learning_rate", "-1", "--batch_size", "8")
    assert (flags.train_steps, flags.head_learning_rate, flags.batch_size) == (20, None, 8)
    left = {name: getattr(flags, name) for name in recipes.RECIPES["finetune"]}
    given = {"train_steps": 20, "head_learning_rate": None, "batch_size": 8}
    assert left == recipes.RECIPES["finetune"] | given
    (line,) = caplog.messages
    assert line.startswith("Recipe finetune: image_size 224, ")
    assert not any(name in line for name in ("train_steps", "head_learning_rate", "batch_size"))


def test_without_a_recipe_the_defaults_stay_and_nothing_is_logged(caplog):
    caplog.set_level(logging.INFO)
    flags = vars(parse())
    assert all(value == flag_table.BY_NAME[name].default for name, value in flags.items() if name != "train_metadata")
    assert not caplog.messages


def test_a_misspelt_recipe_is_answered_by_the_nearest_one():
    with pytest.raises(FlagError, match=r"--recipe.*'finetun'.*Did you mean finetune\?"):
        parse("--recipe", "finetun")
    with pytest.raises(FlagError, match=r"Did you mean finetune\?"):
        recipes.for_step("train", {"recipe": "fine-tune"})


@pytest.mark.parametrize("step", STEPS)
def test_in_a_step_a_flag_at_its_default_counts_as_not_given(step, caplog):
    caplog.set_level(logging.INFO)
    arguments = {flag.name: flag.pipeline_default for flag in flag_table.of_step(step)}
    given = {"recipe": "finetune", "train_steps": 20, "learning_rate": 0.5, "seed": 3}
    flags = vars(recipes.for_step(step, arguments | given))
    expected = recipes.RECIPES["finetune"] | {"learning_rate": 0.5}
    assert {name: flags[name] for name in expected} == expected
    assert flags["seed"] == 3
    assert flags.keys() == {flag.name for flag in flag_table.of_step(step)}
    (line,) = caplog.messages
    assert line.startswith("Recipe finetune: ") and f"train_steps {recipes.RECIPES['finetune']['train_steps']}" in line


def test_resolve_and_train_expand_a_recipe_alike():
    resolved, trained = (vars(recipes.for_step(step, {"recipe": "scratch", "clip_norm": 2.0})) for step in STEPS)
    assert {name: trained[name] for name in resolved if name in trained} == {
        name: resolved[name] for name in resolved if name in trained
    }
    assert training_key.checkpoint_key_flags(trained) == training_key.checkpoint_key_flags(resolved)


def test_the_checkpoint_key_is_that_of_the_same_flags_without_a_recipe():
    named = vars(recipes.for_step("train", {"recipe": "finetune"}))
    written_out = vars(recipes.for_step("train", recipes.RECIPES["finetune"]))
    assert training_key.checkpoint_key_flags(named) == training_key.checkpoint_key_flags(written_out) != {}


COMMANDS = [["-m", "tf_image_classification.train_estimator"], ["-m", "pipelines", "run"]]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_show_prints_each_flag_of_a_recipe_and_its_default_and_nothing_else_is_needed(command):
    shown = call(*command, "--recipe", "finetune", "--show")
    assert shown.returncode == 0, shown.stderr
    header, *lines = shown.stdout.splitlines()
    assert header.split() == ["flag", "finetune", "default"]
    assert {line.split()[0] for line in lines} == set(recipes.RECIPES["finetune"])
    assert ["optimizer", "adamw", "rmsprop"] in [line.split() for line in lines]
    assert len({line.index(line.split()[1]) for line in lines}) == 1  # aligned


def test_show_tells_which_of_the_other_flags_win():
    words = ["--recipe", "finetune", "--train_steps", "20", "--seed", "3", "--show"]
    shown = call(*COMMANDS[0], *words)
    rows = [line.split() for line in shown.stdout.splitlines()]
    assert rows[0] == ["flag", "finetune", "default", "given", "(wins)"]
    assert ["train_steps", str(recipes.RECIPES["finetune"]["train_steps"]), "20", "20"] in rows
    assert ["seed", "not", "set", "3"] in rows
    assert ["batch_size", "32", "1"] in rows


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--show"], "--recipe finetune|scratch"),
        (["--recipe", "scrtch", "--show"], "Did you mean scratch?"),
        (["--recipe", "scratch", "--train_steps", "many", "--show"], "--train_steps"),
    ],
)
def test_show_refuses_what_the_command_would_refuse(words, message):
    for command in COMMANDS:
        answer = call(*command, *words)
        assert answer.returncode == 2
        assert message in " ".join(answer.stderr.split())
        assert not answer.stdout


def test_a_users_own_script_takes_recipes_too(tmp_path):
    script = tmp_path / "own.py"
    script.write_text(
        "from tf_image_classification import train_estimator\n"
        "from tf_image_classification.estimator_specs import EstimatorSpec\n"
        "class Own(EstimatorSpec): ...\n"
        "train_estimator.run(Own)\n"
    )
    shown = call(str(script), "--recipe", "scratch", "--show")
    assert shown.returncode == 0 and "ema_decay" in shown.stdout, shown.stderr
