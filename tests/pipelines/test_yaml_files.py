"""YAML files from outside: a few lines do not become gigabytes, a traceback, or objects."""

from __future__ import annotations

import pytest

from pipelines import template
from pipelines.commands import parameters
from tf_image_classification.errors import FlagError

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (LAUGHS, "its aliases stand for more than 100,000 values"),
        ("a: &a [*a]", "a value contains itself"),
        ("[" * 1000, "maximum recursion depth"),
        ("a: 2024-13-45", "month must be in 1..12"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("a: [", "while parsing"),
        ("x" * 10_000_001, "too large"),
    ],
)
def test_yaml_that_is_none_is_one_paragraph(tmp_path, text, reason):
    path = tmp_path / "file.yaml"
    path.write_text(text)
    for flag, read in (("--params", parameters.read_file), ("--template", template.load)):
        with pytest.raises(FlagError, match=rf"{flag} is (not YAML|too large)") as error:
            read(str(path))
        assert reason in str(error.value)
        assert len(str(error.value)) < 1000


def test_an_alias_that_saves_typing_is_read(tmp_path):
    (tmp_path / "params.yaml").write_text("base: &base 0.01\nlearning_rate: *base\n")
    assert parameters.read_file(str(tmp_path / "params.yaml")) == {"base": 0.01, "learning_rate": 0.01}
