"""The command line itself: its commands, their help, and wrong calls."""

from __future__ import annotations

import re
import subprocess
import sys
import time

import pytest
import yaml

from tests.standin.vertex_messages import to_json

COMMANDS = [
    *([name] for name in ("compile", "run", "check", "submit", "runs", "schedule")),
    *(["runs", verb] for verb in ("list", "show", "cancel", "rerun")),
    *(["schedule", verb] for verb in ("create", "list", "show", "update", "pause", "resume", "delete")),
]


@pytest.mark.parametrize("words", [[], *COMMANDS], ids=" ".join)
def test_every_command_has_a_help(command, words):
    done = command(*words, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: {' '.join(['python -m pipelines', *words])} ")


def test_help_is_quick_and_imports_no_library_that_only_the_work_needs():
    script = (
        "import sys; from pipelines.__main__ import run_command\n"
        "try: run_command(['schedule', 'create', '--help'])\n"
        "except SystemExit: print(*sys.modules)"
    )

    def timed() -> float:
        start = time.monotonic()
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        imported = set(done.stdout.splitlines()[-1].split())
        assert not imported & {"kfp", "kfp_server_api", "google.api_core", "tensorflow", "keras", "yaml", "tenacity"}
        return time.monotonic() - start

    # Half a second is promised; heavy libraries take several, so the margin is for a busy machine only.
    assert min(timed() for _ in range(3)) < 1.5


@pytest.mark.parametrize(
    "words", [["check"], ["submit"], ["runs", "rerun"], ["schedule", "create"], ["schedule", "update"]]
)
def test_the_help_of_a_command_that_takes_parameters_lists_the_pipelines_flags(command, words):
    shown = command(*words, "--help").stdout
    assert "--train_metadata" in shown and "--min_accuracy" in shown and "--pipeline_root" in shown


def test_help_marks_what_is_required(command):
    def required(*words: str) -> set[str]:
        entries = re.split(r"\n  (?=--)", command(*words, "--help").stdout)
        return {entry.split()[0] for entry in entries if "(required" in " ".join(entry.split())}

    service = {"--project", "--location"}
    assert required("compile") == {"--output"}
    assert required("submit") == service | {"--pipeline_root", "--train_metadata"}
    assert required("schedule", "create") == service | {"--cron", "--pipeline_root", "--train_metadata"}
    assert required("schedule", "update") == service


def test_a_call_without_a_command_shows_the_commands_and_fails(command):
    for words, verbs in (((), ("compile", "submit")), (("runs",), ("list", "rerun")), (("schedule",), ("create",))):
        done = command(*words)
        assert done.returncode == 2
        assert all(f"\n    {verb} " in done.stdout for verb in verbs)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["sumbit"], "Did you mean submit?"),
        (["schedule", "updat", "weekly"], "Did you mean update?"),
        (["runs", "list", "--limt", "3"], "Did you mean --limit?"),
        (["compile", "--output", "p.yaml", "--acelerator", "T4:1"], "Did you mean --accelerator?"),
        (["run", "--runner", "dokcer"], "Did you mean docker?"),
    ],
)
def test_a_misspelt_word_is_answered_with_the_nearest_that_the_command_knows(command, words, hint):
    done = command(*words)
    assert done.returncode == 2
    assert hint in " ".join(done.stderr.split())


def test_a_value_that_no_option_takes_is_refused(command):
    done = command("runs", "list", "yesterday")
    assert done.returncode == 2 and "yesterday" in done.stderr


def test_the_value_of_a_parameter_is_never_taken_for_the_name(pipelines, vertex):
    done = pipelines("schedule", "create", "--folder", "gs://bucket/words", "weekly", "--cron", "0 3 * * 1")
    assert done.returncode == 2
    assert "schedule create NAME" in " ".join(done.stderr.split())
    assert not vertex.requests


def test_a_parameter_that_an_option_shadows_is_set_in_the_file(pipelines, tiny_template, vertex, tmp_path):
    """The template has a parameter `network`, as the command has an option."""
    spec = yaml.safe_load(tiny_template.read_text())
    spec["root"]["inputDefinitions"]["parameters"]["network"] = {"parameterType": "STRING", "defaultValue": "lan"}
    template, parameters = tmp_path / "shadowed.yaml", tmp_path / "parameters.yaml"
    template.write_text(yaml.safe_dump(spec))
    parameters.write_text("network: wan\n")
    words = ["--template", str(template), "--pipeline_root", "gs://bucket/root", "--folder", "gs://bucket/words"]
    network = "projects/1/global/networks/n"
    done = pipelines("submit", *words, "--run_id", "first", "--network", network, "--params", str(parameters))
    assert done.returncode == 0, done.stderr
    job = vertex.jobs["first"]
    assert job.network == network
    assert job.runtime_config.parameter_values["network"] == "wan"


def test_a_new_template_of_a_schedule_may_lack_a_parameter_and_take_a_list(pipelines, tiny_template, vertex, tmp_path):
    root = ["--pipeline_root", "gs://bucket/root"]
    first = [*root, "--template", str(tiny_template), "--folder", "gs://bucket/words", "--verbose", "true"]
    assert pipelines("schedule", "create", "weekly", "--cron", "0 3 * * 1", *first).returncode == 0
    spec = yaml.safe_load(tiny_template.read_text())
    spec["pipelineInfo"]["name"] = "2nd"
    inputs = spec["root"]["inputDefinitions"]["parameters"]
    del inputs["verbose"]
    inputs["sizes"] = {"parameterType": "LIST"}
    template, parameters = tmp_path / "other.yaml", tmp_path / "parameters.yaml"
    template.write_text(yaml.safe_dump(spec))
    parameters.write_text("sizes: [96, 2.5, {name: large}]\n")
    words = ["--template", str(template), "--params", str(parameters)]
    done = pipelines("schedule", "update", "weekly", *words)
    assert done.returncode == 0, done.stderr
    assert "The pipeline has no --verbose: its value True is left out" in done.stderr
    (schedule,) = vertex.schedules.values()
    sent = to_json(schedule.create_pipeline_job_request.pipeline_job)["runtimeConfig"]["parameterValues"]
    assert sent == {"folder": "gs://bucket/words", "sizes": [96, 2.5, {"name": "large"}]}
    done = pipelines("submit", *root, *words, "--folder", "gs://bucket/words")
    assert done.returncode == 0 and "Run run-2nd-" in done.stdout, done.stderr
