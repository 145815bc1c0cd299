"""Runs that people made in Kubeflow's UI, from uploaded pipelines, and clones of them."""

import pytest
import yaml
from kfp import compiler, dsl

from tf_image_classification import flags, training_run

DEFAULTS = {"folder": "gs://bucket/words", "steps": 2, "rate": 0.5, "verbose": False}


@pytest.fixture
def ui(kubeflow):
    """kfp.Client, which sends what the UI sends."""
    from kfp import client

    return client.Client(host=kubeflow.url)


@pytest.fixture
def version(kubeflow, tiny_template):
    """An uploaded pipeline: its id, and the id of its version."""
    return kubeflow.uploaded.upload("tiny pipeline", yaml.safe_load(tiny_template.read_text()))


def _last(kubeflow):
    return list(kubeflow.runs.values())[-1]


@pytest.mark.usefixtures("instant")
def test_a_run_of_an_uploaded_version_is_shown_with_its_steps_and_rerun(ui, version, call, kubeflow):
    (experiment,) = kubeflow.experiments
    ui.run_pipeline(
        experiment, "by hand", params=DEFAULTS | {"steps": 3}, pipeline_id=version[0], version_id=version[1]
    )
    assert "pipeline_spec" not in _last(kubeflow)
    assert call("runs", "list").stdout.splitlines()[1].startswith("by hand")
    shown = call("runs", "show", "by hand").stdout
    assert "steps                          3" in shown and "rate  " not in shown
    assert "scan   SKIPPED" in shown  # here, no step was reached
    rerun = call("runs", "rerun", "by hand", "--run_id", "again", "--rate", "0.25")
    assert rerun.returncode == 0, rerun.stderr
    assert _last(kubeflow)["runtime_config"]["parameters"] == DEFAULTS | {"steps": 3, "rate": 0.25}
    assert _last(kubeflow)["pipeline_spec"]["pipelineInfo"]["name"] == "tiny"


@pytest.mark.usefixtures("instant")
def test_a_recurring_run_of_an_uploaded_pipeline_is_updated_with_its_latest_version(ui, version, call, kubeflow):
    (experiment,) = kubeflow.experiments
    ui.create_recurring_run(
        experiment,
        "weekly",
        cron_expression="0 0 3 * * 1",
        params=DEFAULTS,
        pipeline_id=version[0],
        version_id=version[1],
    )
    (recurring,) = kubeflow.recurring.values()
    del recurring["pipeline_version_reference"]["pipeline_version_id"]
    assert call("schedule", "list").returncode == 0
    updated = call("schedule", "update", "weekly", "--steps", "7")
    assert updated.returncode == 0, updated.stderr
    (recurring,) = kubeflow.recurring.values()
    assert recurring["runtime_config"]["parameters"] == DEFAULTS | {"steps": 7}


@pytest.mark.usefixtures("instant")
def test_a_run_whose_version_was_deleted_is_shown_and_its_rerun_refused_with_the_way_out(ui, version, call, kubeflow):
    (experiment,) = kubeflow.experiments
    ui.run_pipeline(experiment, "by hand", None, DEFAULTS, *version)
    ui.delete_pipeline_version(*version)
    assert "by hand  SUCCEEDED" in call("runs", "show", "by hand").stdout
    refused = call("runs", "rerun", "by hand")
    assert refused.returncode == 2 and "--template PIPELINE.yaml" in " ".join(refused.stderr.split())


@pytest.mark.usefixtures("instant")
def test_runs_of_other_makers_and_in_other_states_are_listed_and_shown(submit, call, kubeflow):
    submit("--run_id", "mine")
    mine = _last(kubeflow)
    experiment, epoch = mine["experiment_id"], "1970-01-01T00:00:00Z"
    workflow = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "spec": {}}
    others = {
        "unreadable": {"error": {"message": "Failed to parse the pipeline source"}},
        "argo": {"display_name": "argo", "pipeline_spec": workflow, "state": "SUCCEEDED", "finished_at": epoch},
        "bare": {"display_name": "bare", "state": "FAILED"},
        "new": mine | {"display_name": "new", "state": "HIBERNATING", "finished_at": epoch},
        "ended": mine | {"display_name": "ended", "state": "RUNTIME_STATE_UNSPECIFIED"},
        "older": mine | {"created_at": "2020-01-01T00:00:00Z"},
    }
    for name, run in others.items():
        kubeflow.runs[name] = {"experiment_id": experiment, **run, "run_id": name}
    states = {line.split()[0]: line.split()[1] for line in call("runs", "list").stdout.splitlines()[1:]}
    assert states == {
        "mine": "SUCCEEDED",
        mine["run_id"]: "SUCCEEDED",
        "argo": "SUCCEEDED",
        "bare": "FAILED",
        "unreadable": "FAILED",
        "new": "PENDING",
        "ended": "FAILED",
    }
    kubeflow.runs["alone"] = {"run_id": "alone", "display_name": "of no experiment", "state": "SUCCEEDED"}
    for name in [*states, "alone"]:
        shown = call("runs", "show", name)
        assert shown.returncode == 0 and "1970" not in shown.stdout, shown.stderr


@pytest.mark.usefixtures("instant")
def test_every_parameter_is_sent_so_that_a_clone_in_the_ui_shows_it_and_a_rerun_still_tells_what_was_set(
    call, kubeflow
):
    data = ["--train_metadata", "gs://bucket/photos"]
    assert call("submit", "--run_id", "first", *data, "--recipe", "finetune", "--batch_size", "8").returncode == 0
    sent = _last(kubeflow)["runtime_config"]["parameters"]
    assert sent.keys() == {flag.name for flag in flags.of_pipeline()}
    assert (sent["recipe"], sent["batch_size"], sent["optimizer"], sent["model_dir"]) == ("", 8, "adamw", "")
    again = call("submit", "--run_id", "first", *data, "--recipe", "finetune", "--batch_size", "8")
    assert again.returncode == 0 and "was submitted before" in again.stdout
    assert call("runs", "rerun", "first", "--run_id", "second", "--recipe", "scratch").returncode == 0
    assert (_last(kubeflow)["runtime_config"]["parameters"]["train_steps"], len(kubeflow.runs)) == (2000, 2)
    assert "momentum" not in call("runs", "show", "first").stdout


def test_experiments_are_found_by_name_or_id_among_many(submit, kubeflow, instant):
    first = next(iter(kubeflow.experiments))
    for number in range(30):
        last = kubeflow.add_experiment(f"e{number}")
    assert submit("--run_id", "a", "--experiment", "e29").returncode == 0
    assert submit("--run_id", "b", "--experiment", last).returncode == 0
    assert submit("--run_id", "c").returncode == 0
    assert [run["experiment_id"] for run in kubeflow.runs.values()] == [last, last, first]
    missing = submit("--experiment", "none")
    assert missing.returncode == 2 and "--experiment is not found" in missing.stderr
    kubeflow.add_experiment("e3")
    assert "Several experiments" in submit("--experiment", "e3").stderr


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def look(root: str, name: str, data: dsl.Output[dsl.Dataset], seen: dsl.OutputPath(str)):
    for path, text in ((data.path, ""), (seen, " ".join([root, name or "-", data.uri]))):
        with open(path, "w") as file:
            file.write(text)


@dsl.pipeline(name="places")
def places():
    look(root=dsl.PIPELINE_ROOT_PLACEHOLDER, name=dsl.PIPELINE_JOB_NAME_PLACEHOLDER)


def test_a_scheduled_run_has_no_name_and_no_root_but_the_root_is_in_the_uris_of_its_outputs(ui, kubeflow, tmp_path):
    template = tmp_path / "places.yaml"
    compiler.Compiler().compile(places, str(template))
    (experiment,) = kubeflow.experiments
    ui.create_recurring_run(
        experiment,
        "nightly",
        cron_expression="0 0 3 * * *",
        start_time="2020-01-01T00:00:00Z",
        no_catchup=True,
        pipeline_package_path=str(template),
    )
    kubeflow.join()
    (run,) = kubeflow.runs
    assert kubeflow.runs[run]["state"] == "SUCCEEDED"
    (seen,) = (kubeflow.runner.folder / "buckets").rglob("seen")
    root, name, uri = seen.read_text().split()
    assert (root, name) == ("{{$.pipeline_root}}", "-")
    assert uri.startswith(f"minio://mlpipeline/v2/artifacts/places/{run}/look/")
    assert training_run.pipeline_root_of(uri) == "minio://mlpipeline/v2/artifacts"
