from __future__ import annotations

import pytest

from tf_image_classification import flags as flag_table
from tf_image_classification.errors import FlagError


def test_every_flag_belongs_to_a_command_or_a_step_and_has_help():
    for flag in flag_table.FLAGS:
        assert flag.commands or flag.steps, flag.name
        assert flag.help.endswith("."), flag.name
    assert len(flag_table.BY_NAME) == len(flag_table.FLAGS)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("batch_size", "0", ">= 1"),
        ("batch_size", "1.5", "a whole number"),
        ("batch_size", "many", "a whole number"),
        ("train_steps", 0, ">= 1"),
        ("eval_freq", -1, ">= 1"),
        ("eval_throttle_secs", -1, ">= 0"),
        ("learning_rate", "nan", "a number > 0"),
        ("learning_rate", "inf", "a number > 0"),
        ("label_smoothing", 1.0, "< 1"),
        ("adam_beta1", 1, "< 1"),
        ("adagrad_initial_accumulator_value", 0, "> 0"),
        ("ftrl_learning_rate_power", 0.5, "<= 0"),
        ("eval_fraction", 0, "> 0 and < 1"),
        ("debug", "perhaps", "true or false"),
        ("train_steps", "1_000", "a whole number"),
        ("image_size", "9999999999999999999999", "<= 8192"),
        ("train_steps", "9999999999999999999999", "a whole number"),
        ("learning_rate_decay_type", "sine", "fixed, exponential, polynomial, cosine"),
    ],
)
def test_a_bad_value_is_refused_with_the_flag_what_was_received_and_what_is_allowed(name, value, allowed):
    with pytest.raises(FlagError) as caught:
        flag_table.validate({name: value}, [name])
    message = str(caught.value)
    assert f"--{name}" in message
    assert repr(value) in message
    assert allowed in message


@pytest.mark.parametrize("name", ["model_dir", "checkpoint_path", "model"])
def test_a_path_that_tensorflow_would_take_for_a_pattern_is_refused(name):
    with pytest.raises(FlagError, match=f"--{name} takes a single path"):
        flag_table.validate({name: "models[1]"}, [name])


def test_scopes_that_are_no_regular_expressions_are_refused():
    with pytest.raises(FlagError, match="--trainable_scopes is not a regular expression"):
        flag_table.validate({"trainable_scopes": "Net/a, Net/(b"}, ["trainable_scopes"])


def test_choices_are_case_sensitive_and_the_nearest_is_suggested():
    with pytest.raises(FlagError, match="Did you mean adam"):
        flag_table.validate({"optimizer": "Adam"}, ["optimizer"])


def test_an_unknown_flag_is_refused_with_the_nearest_known_one():
    with pytest.raises(FlagError, match="Did you mean --optimizer"):
        flag_table.validate({"optimzer": "adam"}, ["optimizer", "momentum"])


@pytest.mark.parametrize("name", ["seed", "max_loss", "model_dir", "checkpoint_path"])
def test_a_pipeline_default_of_a_flag_without_default_means_not_set(name):
    flag = flag_table.BY_NAME[name]
    assert flag.pipeline_default in ("", -1)
    assert flag.parse(flag.pipeline_default) is None


def test_every_pipeline_default_is_itself_a_valid_value():
    for flag in flag_table.of_pipeline():
        assert flag.parse(flag.pipeline_default) == flag.default
        assert type(flag.pipeline_default) is flag.type


def test_a_step_gets_its_own_flags_out_of_all_arguments():
    parsed = vars(flag_table.for_step("gate", {"min_accuracy": 0.9, "max_loss": -1.0, "evaluation": object()}))
    assert set(parsed) == {flag.name for flag in flag_table.of_step("gate")}
    assert (parsed["min_accuracy"], parsed["min_macro_f1"], parsed["max_loss"]) == (0.9, 0.0, None)


def test_resolve_takes_everything_that_decides_a_training():
    names = {step: {flag.name for flag in flag_table.of_step(step)} for step in ("resolve", "train")}
    assert names["train"] - names["resolve"] == {"model_dir", "profile"}


def test_the_error_for_a_flag_that_was_not_parsed_names_those_that_were():
    with pytest.raises(AttributeError, match=r"flag momentum was not parsed.*seed"):
        _ = flag_table.validate({}, ["seed"]).momentum


@pytest.mark.parametrize(
    "image",
    [
        "us-docker.pkg.dev/vertex-ai/prediction/tf2-cpu.2-15:latest",
        "europe-docker.pkg.dev/vertex-ai/prediction/tf2-gpu.2-15:latest",
        "europe-docker.pkg.dev/mine/serving/tf:2.21.0",
        "registry.test:5000/serving@sha256:" + "0" * 64,
        "registry.test/serving:latest@sha256:" + "0" * 64,
    ],
)
def test_a_serving_image_with_a_version_is_taken(image):
    assert flag_table.validate({"serving_image": image}, ["serving_image"]).serving_image == image


@pytest.mark.parametrize(
    "image",
    [
        "tensorflow/serving",
        "tensorflow/serving:latest",
        "registry.test:5000/serving",
        "europe-docker.pkg.dev/mine/prediction/tf2-cpu.2-15:latest",
        "us-docker.pkg.dev/vertex-ai/prediction/tf_opt-cpu.nightly:latest",
    ],
)
def test_a_serving_image_that_changes_under_its_name_is_refused(image):
    with pytest.raises(FlagError, match=r"--serving_image is an image whose tag moves.*Expected: IMAGE:VERSION"):
        flag_table.validate({"serving_image": image}, ["serving_image"])
