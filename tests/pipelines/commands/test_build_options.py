"""--build_runner dataflow and what belongs to it: the compiled build step, schedules, and what is refused."""

from __future__ import annotations

import shlex

import pytest
import yaml

from pipelines import build_runner
from tests import documents
from tests.standin.vertex_messages import to_json
from tf_image_classification.dataflow.options import DataflowOptions

_ROOT = ("--pipeline_root", "gs://bucket/root", "--train_metadata", "gs://bucket/photos")
_DATAFLOW = ("--build_runner", "dataflow")


def compiled(command, tmp_path, *words: str) -> dict:
    path = tmp_path / "pipeline.yaml"
    done = command("compile", "--output", str(path), "--image_tag", "v1", *words)
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(path.read_text())


def test_a_build_step_on_dataflow_has_the_same_inputs_and_outputs_in_the_image_of_the_workers(command, tmp_path):
    words = ("--cpu", "build_tfrecords=4", "--retries", "2")
    here = compiled(command, tmp_path, *words)
    there = compiled(
        command, tmp_path, *words, *_DATAFLOW, "--build_region", "europe-west4", "--build_max_workers", "9"
    )
    image = "tf-image-classification/beam:v1"
    assert build_runner.of_spec(here) is None
    assert build_runner.of_spec(there) == DataflowOptions(image, region="europe-west4", max_workers=9)
    before, after = here["components"]["comp-build-tfrecords"], there["components"]["comp-build-tfrecords"]
    assert after["outputDefinitions"] == before["outputDefinitions"]
    inputs = before["inputDefinitions"]["parameters"]
    assert set(after["inputDefinitions"]["parameters"]) - set(inputs) == {"dataflow", *build_runner.OF_THE_RUN}
    task, given = (spec["root"]["dag"]["tasks"]["build-tfrecords"] for spec in (here, there))
    assert {name: given["inputs"]["parameters"][name] for name in inputs} == task["inputs"]["parameters"]
    assert (given["cachingOptions"], given["retryPolicy"]) == (task["cachingOptions"], task["retryPolicy"])
    container = there["deploymentSpec"]["executors"]["exec-build-tfrecords"]["container"]
    assert container["image"] == image and container["resources"]["resourceCpuLimit"] == "4"
    assert "exec python3 -m" in container["command"][2], "a shell would keep SIGTERM from the step"
    for spec in (here, there):
        del spec["deploymentSpec"]["executors"]["exec-build-tfrecords"]
        del spec["components"]["comp-build-tfrecords"], spec["root"]["dag"]["tasks"]["build-tfrecords"]
    assert here == there


def test_the_command_of_the_page_compiles(command, tmp_path):
    (block,) = [text for text in documents.blocks(documents.read("docs/beam.md"), "bash") if "--build_runner" in text]
    words = shlex.split(block.replace("\\\n", " ").replace("pipeline.yaml", str(tmp_path / "pipeline.yaml")))
    done = command(*words[3:])
    assert done.returncode == 0, done.stderr
    (options,) = [build_runner.of_spec(yaml.safe_load((tmp_path / "pipeline.yaml").read_text()))]
    assert (options.max_workers, options.machine_type) == (50, "n2-standard-4")


def test_without_a_region_a_pipeline_is_for_vertex_ai_alone_where_it_is_that_of_the_run(command, tmp_path):
    path = tmp_path / "pipeline.yaml"
    assert command("compile", "--output", str(path), *_DATAFLOW, "--backend", "vertex").returncode == 0
    assert path.read_text().startswith(
        "# For Vertex AI alone: --build_runner dataflow needs --build_region on Kubeflow"
    )
    refused = command("compile", "--output", str(path), *_DATAFLOW, "--backend", "kubeflow")
    assert refused.returncode == 2 and "needs --build_region on Kubeflow" in refused.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--build_runner", "dataflw"), "Did you mean dataflow?"),
        (("--build_max_workers", "3"), "--build_max_workers has no effect without --build_runner dataflow"),
        ((*_DATAFLOW, "--build_max_workers", "-1"), "Invalid value for --build_max_workers"),
        ((*_DATAFLOW, "--build_region", "europe-west4-a"), "a region, as europe-west4"),
        ((*_DATAFLOW, "--build_machine_type", "4 cores"), "a machine type, as n2-standard-4"),
        ((*_DATAFLOW, "--build_service_account", "builder"), "an e-mail address"),
        ((*_DATAFLOW, "--build_subnetwork", "builders"), "regions/REGION/subnetworks/NAME"),
        ((*_DATAFLOW, "--build_temp_location", "/gcs/bucket/temp"), "gs://BUCKET/FOLDER"),
    ],
)
def test_what_is_invalid_or_without_effect_is_refused(command, tmp_path, words, message):
    done = command("compile", "--output", str(tmp_path / "pipeline.yaml"), *words)
    assert done.returncode == 2 and message in " ".join(done.stderr.split()), done.stderr


def test_a_run_whose_root_is_not_on_cloud_storage_is_refused(command, tmp_path):
    words = (*_DATAFLOW, "--build_region", "europe-west4", "--train_metadata", "gs://bucket/photos")
    kubeflow = ("--backend", "kubeflow", "--host", "http://127.0.0.1:1")
    done = command("submit", *kubeflow, *words, "--pipeline_root", "minio://mlpipeline/root")
    assert done.returncode == 2 and "--build_runner dataflow needs a --pipeline_root on gs://" in done.stderr


def test_a_run_on_this_machine_says_how_to_build_on_dataflow(command):
    done = command("run", *_DATAFLOW)
    assert done.returncode == 2
    assert "build_tfrecords --runner DataflowRunner` builds to gs://" in " ".join(done.stderr.split())


@pytest.mark.slow
def test_a_schedule_keeps_its_dataflow_job_until_it_builds_on_one_machine_again(pipelines, vertex):
    create = ("schedule", "create", "weekly", "--cron", "0 3 * * 1", *_ROOT)
    assert pipelines(*create, *_DATAFLOW, "--build_max_workers", "9").returncode == 0

    def updated(*words: str) -> DataflowOptions | None:
        done = pipelines("schedule", "update", "weekly", *words)
        assert done.returncode == 0, done.stderr
        (schedule,) = vertex.schedules.values()
        return build_runner.of_spec(to_json(schedule.create_pipeline_job_request.pipeline_job)["pipelineSpec"])

    options = updated("--build_machine_type", "n2-standard-8")
    assert options and "/beam:" in options.image
    assert options == DataflowOptions(options.image, max_workers=9, machine_type="n2-standard-8")
    assert updated("--retries", "2") == options
    assert updated("--build_runner", "local") is None
