from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from images import catalog
from pipelines.compile import compile_pipeline, image_references, parse_by_step
from pipelines.definition import Options
from tf_image_classification import flags as flag_table
from tf_image_classification.errors import FlagError


def compiled(folder: Path, **options) -> dict:
    output = folder / "pipeline.yaml"
    compile_pipeline(str(output), Options(**{"images": image_references("registry.test/team"), **options}))
    documents = list(yaml.safe_load_all(output.read_text()))
    assert len(documents) == 1
    return documents[0]


@pytest.fixture(scope="module")
def spec(tmp_path_factory) -> dict:
    return compiled(tmp_path_factory.mktemp("compiled"))


@pytest.mark.parametrize("flag", flag_table.of_pipeline(), ids=lambda flag: flag.name)
def test_every_flag_is_a_parameter_with_its_default_and_a_description(spec, flag):
    parameter = spec["root"]["inputDefinitions"]["parameters"][flag.name]
    assert parameter.get("defaultValue", "") == flag.pipeline_default
    assert parameter["description"].rstrip(".") == flag.help.rstrip(".")


def test_the_parameters_are_the_flag_tables_and_no_others(spec):
    assert set(spec["root"]["inputDefinitions"]["parameters"]) == {flag.name for flag in flag_table.of_pipeline()}


def test_the_chain_is_resolve_build_train_evaluate_gate_and_then_register(spec):
    tasks = spec["root"]["dag"]["tasks"]
    assert {name: sorted(task.get("dependentTasks", [])) for name, task in tasks.items()} == {
        "resolve": [],
        "build-tfrecords": ["resolve"],
        "train": ["build-tfrecords", "resolve"],
        "evaluate": ["build-tfrecords", "resolve", "train"],
        "gate": ["evaluate"],
        "condition-1": ["evaluate", "gate", "resolve", "train"],
    }
    assert "champion" in tasks["condition-1"]["triggerPolicy"]["condition"]
    (inner,) = spec["components"]["comp-condition-1"]["dag"]["tasks"].values()
    assert "gate-passed" in inner["triggerPolicy"]["condition"]
    assert list(spec["components"]["comp-condition-2"]["dag"]["tasks"]) == ["register"]


def _all_tasks(spec: dict) -> dict[str, dict]:
    dags = [one["dag"]["tasks"] for one in (spec["root"], *spec["components"].values()) if "dag" in one]
    return {name: task for tasks in dags for name, task in tasks.items()}


def test_no_cached_step_has_the_image_of_one_that_is_not(tmp_path):
    """A tag is part of a cached step's key: a change of the gate must not train anew."""
    document = compiled(tmp_path, notify="projects/p/topics/failures")
    image = images_of(document)
    cached = {name for name, task in _all_tasks(document).items() if task.get("cachingOptions", {}).get("enableCache")}
    assert {image[name] for name in cached}.isdisjoint(image[name] for name in set(image) - cached)


def test_only_the_cheap_steps_that_read_outside_their_inputs_are_never_cached(spec):
    tasks = _all_tasks(spec)
    cached = {name for name, task in tasks.items() if task.get("cachingOptions", {}).get("enableCache")}
    assert cached == {"build-tfrecords", "train", "evaluate"}


def test_every_flag_of_a_step_reaches_it(spec):
    tasks = _all_tasks(spec)
    for step in flag_table.STEPS:
        given = tasks[step.replace("_", "-")]["inputs"]["parameters"]
        for flag in flag_table.of_step(step):
            source = given[flag.name]
            if "componentInputParameter" in source:
                assert source["componentInputParameter"].removeprefix("pipelinechannel--") == flag.name
            else:
                assert source["taskOutputParameter"]["producerTask"] == "resolve"


@pytest.mark.parametrize("step", ["train", "evaluate"])
def test_the_cache_key_of_a_step_that_runs_an_estimator_holds_the_version_of_its_code(spec, step):
    passed = spec["root"]["dag"]["tasks"][step]["inputs"]["parameters"]["estimator_version"]
    assert passed["taskOutputParameter"] == {"outputParameterKey": "estimator_version", "producerTask": "resolve"}


def images_of(document: dict) -> dict[str, str]:
    return {
        name.removeprefix("exec-"): executor["container"]["image"]
        for name, executor in document["deploymentSpec"]["executors"].items()
    }


def test_every_step_has_its_image_under_a_tag_of_the_images_content(spec):
    tag = {name: image.tag() for name, image in catalog.IMAGES.items()}
    assert images_of(spec) == {
        "resolve": f"registry.test/team/vertex:{tag['vertex']}",
        "build-tfrecords": f"registry.test/team/build_tfrecords:{tag['build_tfrecords']}",
        "train": f"registry.test/team/train:{tag['train']}",
        "evaluate": f"registry.test/team/evaluate:{tag['evaluate']}",
        "gate": f"registry.test/team/vertex:{tag['vertex']}",
        "register": f"registry.test/team/vertex:{tag['vertex']}",
    }


def test_one_tag_for_all_images_can_be_given(tmp_path):
    document = compiled(tmp_path, images=image_references("registry.test/team", "v7"))
    assert {reference.rpartition(":")[2] for reference in images_of(document).values()} == {"v7"}


@pytest.mark.parametrize("tag", ["latest", "two words", ".7"])
def test_a_tag_that_moves_or_is_invalid_is_refused(tag):
    with pytest.raises(FlagError, match="--image_tag"):
        image_references(tag=tag)


def test_no_step_installs_anything_when_it_starts(spec):
    for executor in spec["deploymentSpec"]["executors"].values():
        assert "pip install" not in " ".join(executor["container"]["command"])


def test_the_file_loads_as_a_component(tmp_path):
    from kfp import components

    compiled(tmp_path)
    loaded = components.load_component_from_file(str(tmp_path / "pipeline.yaml"))
    assert loaded.component_spec.inputs["train_steps"].default == 20


def test_resources_retries_and_accelerators_are_fixed_at_compile_time(tmp_path):
    accelerator = parse_by_step("accelerator", ["NVIDIA_TESLA_T4:2"])
    document = compiled(
        tmp_path,
        images=image_references(accelerator=accelerator),
        cpu=parse_by_step("cpu", ["8", "evaluate=4"]),
        memory=parse_by_step("memory", ["32G", "build_tfrecords=16G", "32G"]),
        accelerator=accelerator,
        retries=3,
    )
    resources = {
        name: executor["container"].get("resources", {})
        for name, executor in document["deploymentSpec"]["executors"].items()
    }
    assert resources["exec-train"]["resourceCpuLimit"] == "8"
    assert resources["exec-train"]["resourceMemoryLimit"] == "32G"
    assert resources["exec-train"]["accelerator"]["resourceType"] == "NVIDIA_TESLA_T4"
    assert resources["exec-train"]["accelerator"]["resourceCount"] == "2"
    assert resources["exec-evaluate"]["resourceCpuLimit"] == "4"
    assert resources["exec-build-tfrecords"]["resourceMemoryLimit"] == "16G"
    assert not resources["exec-resolve"]
    assert not resources["exec-gate"]
    assert document["root"]["dag"]["tasks"]["evaluate"]["retryPolicy"]["maxRetryCount"] == 3


def test_a_failed_run_is_reported_to_the_destination_that_is_compiled_in(tmp_path):
    document = compiled(tmp_path, notify="projects/p/topics/failures")
    tasks = document["root"]["dag"]["tasks"]
    assert tasks["notify"]["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    assert (
        tasks["notify"]["inputs"]["parameters"]["destination"]["runtimeValue"]["constant"]
        == "projects/p/topics/failures"
    )
    assert {"resolve", "train", "register"} <= set(_all_tasks(document))
    assert images_of(document)["notify"] == image_references("registry.test/team")["notify"]


def test_an_accelerator_selects_the_gpu_image_of_its_step_alone():
    plain, accelerated = image_references(), image_references(accelerator={"train": "NVIDIA_TESLA_T4:1"})
    assert accelerated["train"] == catalog.IMAGES["train-gpu"].reference(catalog.REGISTRY)
    assert accelerated | {"train": ""} == plain | {"train": ""}
    with pytest.raises(FlagError, match="train or evaluate"):
        image_references(accelerator={"gate": "NVIDIA_TESLA_T4:1"})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("cpu", "eight"),
        ("cpu", "0"),
        ("memory", "32 gigabytes"),
        ("accelerator", "NVIDIA_TESLA_T4"),
        ("accelerator", "T4:0"),
        ("cpu", "trian=8"),
        ("cpu", ""),
    ],
)
def test_a_resource_of_the_wrong_form_or_of_no_step_is_refused(option, value):
    with pytest.raises(FlagError, match=f"--{option}"):
        parse_by_step(option, [value])


def test_two_compilations_are_equal(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert compiled(tmp_path / "a") == compiled(tmp_path / "b")


def test_the_command_writes_the_file_and_prints_its_path(tmp_path):
    output = tmp_path / "deep" / "pipeline.yaml"
    answer = subprocess.run(
        [sys.executable, "-m", "pipelines", "compile", "--output", str(output)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() == str(output)
    assert output.exists()


def test_a_misspelt_command_is_answered_with_the_nearest(tmp_path):
    answer = subprocess.run([sys.executable, "-m", "pipelines", "compil"], capture_output=True, text=True, check=False)
    assert answer.returncode == 2
    assert "Did you mean compile" in " ".join(answer.stderr.split())
