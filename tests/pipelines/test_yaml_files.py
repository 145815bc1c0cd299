"""YAML files from outside: a few lines do not become gigabytes, a traceback, or objects."""

from __future__ import annotations

import pytest

from pipelines import template
from pipelines.commands import parameter_files
from tests.conftest import SHARED
from tf_image_classification import flags as flag_table
from tf_image_classification.errors import FlagError

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)


def read_params(path: str) -> dict[str, object]:
    return parameter_files.read(path, {flag.name: flag for flag in flag_table.of_pipeline()})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (LAUGHS, "its aliases stand for more than 100,000 values"),
        ("a: &a [*a]", "a value contains itself"),
        ("[" * 1000, "maximum recursion depth"),
        ("a: [", "line 1: "),
        ("b:\n  a: 1\n  c: 2\n  a: 1", "line 4: a is given a second time, first in line 2"),
        ("a: 1\nb:\n\tc: 1", "line 3: a tab, where YAML wants spaces"),
        ("x" * 10_000_001, "too large"),
    ],
)
def test_yaml_that_is_none_is_one_paragraph(tmp_path, text, reason):
    path = tmp_path / "file.yaml"
    path.write_text(text)
    for flag, read in (("--params", read_params), ("--template", template.load)):
        with pytest.raises(FlagError, match=rf"{flag} is (not YAML|too large)") as error:
            read(str(path))
        assert reason in str(error.value)
        assert len(str(error.value)) < 1000


def test_an_alias_that_saves_typing_is_read(tmp_path):
    (tmp_path / "params.yaml").write_text("base: &base 0.01\nlearning_rate: *base\n")
    assert read_params(str(tmp_path / "params.yaml")) == {"base": 0.01, "learning_rate": "0.01"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: 2024-13-45", "month must be in 1..12"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
    ],
)
def test_a_template_is_data_and_nothing_else(tmp_path, text, reason):
    (tmp_path / "file.yaml").write_text(text)
    with pytest.raises(FlagError, match="--template is not YAML") as error:
        template.load(str(tmp_path / "file.yaml"))
    assert reason in str(error.value)


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("learning_rate: yes", 1, "yes, a word that is true or false in YAML 1.1. Expected: a number."),
        ("debug: On", 1, "On, a word"),
        ("batch_size: 4\ntrain_steps: 02000", 2, "02000, octal"),
        ("train_steps: 0o17", 1, "0o17, octal, hexadecimal or binary"),
        ("train_steps: 0x11", 1, "0x11"),
        ("train_steps: 1:30", 1, "1:30, base 60"),
        ("# a comment\n\nlearning_rate: 2024-01-01", 3, "2024-01-01, a date"),
        ("batch_size: [8, 16]", 1, "a list"),
        ("champion: [a, b]", 1, "a list"),
        ("trainable_scopes: {a: b}", 1, "a mapping"),
        ("trainable_scopes:\n- a\n- b,c", 3, "b,c, which the flag splits"),
        ("trainable_scopes: [a, [b]]", 1, "an empty value or a list in a list"),
        ("batch_size: !!int 8", 1, "the tag"),
        ("batch_size: !!python/object/apply:os.system [ls]", 1, "the tag"),
        ("extra: [1, 010]", 1, "010, octal"),
    ],
)
def test_what_yaml_reads_in_two_ways_is_refused_with_its_line(tmp_path, text, line, reason):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(FlagError, match="Invalid value for --") as error:
        read_params(str(tmp_path / "params.yaml"))
    assert f"in line {line}: {reason}" in str(error.value)


def test_values_are_what_they_would_be_on_the_command_line(tmp_path):
    (tmp_path / "params.yaml").write_text(
        "champion: 0123\nlabels_file: yes\nmodel_name: 2024-01-01  # a comment\nlearning_rate: 1e-3\n"
        "crop_area: [0.1, 1]\ntrainable_scopes:\n- A/B\n- on\ncheckpoint_path: ''\nestimator: null\nseed:\n"
        "debug: true\nbatch_size: '08'\nextra: {a: [1, -1.5, 1e-3, true, no-number, '010', null]}\n"
    )
    assert read_params(str(tmp_path / "params.yaml")) == {
        "champion": "0123",
        "labels_file": "yes",
        "model_name": "2024-01-01",
        "learning_rate": "1e-3",
        "crop_area": "0.1,1",
        "trainable_scopes": "A/B,on",
        "checkpoint_path": "",
        "estimator": None,
        "seed": None,
        "debug": "true",
        "batch_size": "08",
        "extra": {"a": [1, -1.5, 0.001, True, "no-number", "010", None]},
    }


@pytest.mark.parametrize("text", ["- a", "a", "? [a]\n: b", "a: 1\n---\nb: 1"])
def test_other_documents_are_no_flags(tmp_path, text):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(FlagError, match="not a mapping of flags to values"):
        read_params(str(tmp_path / "params.yaml"))


def test_an_empty_file_sets_nothing(tmp_path):
    for text in ("", "# a comment\n", "---\n"):
        (tmp_path / "params.yaml").write_text(text)
        assert read_params(str(tmp_path / "params.yaml")) == {}


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("duplicate", "learning_rate is given a second time, first in line 1"),
        ("lists", {"trainable_scopes": "Small/Logits", "checkpoint_exclude_scopes": "Small/Logits,Small/Other"}),
        ("octal", "in line 1: 02000, octal"),
        ("text", {"champion": "0123"}),
        ("words", "in line 1: yes, a word"),
    ],
)
def test_files_that_users_wrote(name, outcome):
    path = SHARED / "cases" / "operations" / f"{name}.yaml"
    if not path.exists():
        pytest.skip("the shared cases are not here")
    if isinstance(outcome, dict):
        assert read_params(str(path)) == outcome
        return
    with pytest.raises(FlagError) as error:
        read_params(str(path))
    assert outcome in str(error.value)
