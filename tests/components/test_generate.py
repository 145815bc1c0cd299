from __future__ import annotations

import re

import pytest

from components import generate
from tf_image_classification import flags as flag_table
from tf_image_classification import network_sizes


def test_every_generated_part_is_current():
    stale = [str(path) for path, now, wanted in generate.generated() if now != wanted]
    assert not stale, "run `make generate`"


def test_the_documentation_lists_every_flag_with_its_default():
    page = (generate.ROOT / "docs" / "flags.md").read_text()
    for flag in flag_table.FLAGS:
        assert f"| `{flag.name}`" in page
    assert "| `opt_epsilon` | `1.0` |" in page


def test_the_documentation_lists_every_network_with_its_smallest_images():
    page = (generate.ROOT / "docs" / "checkpoints.md").read_text()
    for name, min_image_size in network_sizes.MIN_IMAGE_SIZE.items():
        assert re.search(rf"^\| `{name}` \| \d+ \| {min_image_size} \| ", page, re.MULTILINE), name


@pytest.mark.parametrize("step", flag_table.STEPS)
def test_a_component_takes_exactly_its_steps_flags_and_its_artifacts(step):
    from importlib import import_module

    component = getattr(import_module(f"components.{step}.component"), step)
    inputs = component.component_spec.inputs or {}
    flags = {flag.name: flag for flag in flag_table.of_step(step)}
    assert set(flags) <= set(inputs)
    others = {"data", "model", "evaluation", "fingerprint", "pipeline_root", "checkpoint_version", "estimator_version"}
    others |= {"champion_folder", "champion_version", "in_service", "reason", "run"}
    assert set(inputs) - set(flags) <= others
    for name, flag in flags.items():
        assert inputs[name].default == flag.pipeline_default
