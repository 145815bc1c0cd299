from __future__ import annotations

import pytest

from tests.standin.service import Fault


def _sent(vertex) -> list[str]:
    return [request for request in vertex.requests if request.startswith("POST")]


def test_a_run_is_followed_task_by_task_to_its_end(submit_tiny, vertex):
    done = submit_tiny(
        "--run_id", "first", "--steps", "3", "--labels", "team=vision", "--failure_policy", "fast", "--wait"
    )
    assert done.returncode == 0, done.stderr
    assert (
        "https://console.cloud.google.com/vertex-ai/locations/europe-west4/pipelines/runs/first?project=my-project"
        in done.stdout
    )
    words = [line.split()[1:3] for line in done.stdout.splitlines() if line[2:3] == ":"]
    assert [name for name, state in words if state == "SUCCEEDED"] == ["scan", "build", "train"]
    assert "train.Output" in done.stdout and "aaa" in done.stdout
    assert "gs://bucket/root/" in done.stdout  # where the data is
    job = vertex.jobs["first"]
    assert dict(job.labels) == {"team": "vision"}
    assert job.runtime_config.failure_policy.name == "PIPELINE_FAILURE_POLICY_FAIL_FAST"


def test_the_output_of_a_task_is_in_the_bucket(submit_tiny, vertex, storage_url, monkeypatch):
    from tests.standin import bucket as standin

    assert submit_tiny("--run_id", "first", "--wait").returncode == 0
    uri = vertex.jobs["first"].job_detail.task_details[1].outputs["data"].artifacts[0].uri
    client = standin.client(storage_url)
    assert client.bucket("bucket").blob(uri.removeprefix("gs://bucket/") + "/all.txt").download_as_bytes() == b"a"


def test_a_failed_run_fails_the_command_and_names_the_task(submit_tiny, vertex):
    vertex.runner.fail_once = ["train"]
    done = submit_tiny("--run_id", "first", "--wait")
    assert done.returncode == 1
    printed = " ".join(done.stderr.split())
    assert "The run first failed" in printed and "train:" in printed and "runs rerun first" in printed


def test_a_second_submit_with_the_same_run_id_starts_no_second_run(submit_tiny, vertex):
    assert submit_tiny("--run_id", "first").returncode == 0
    again = submit_tiny("--run_id", "first")
    assert again.returncode == 0, again.stderr
    assert "was submitted before" in again.stdout
    assert list(vertex.jobs) == ["first"]


def test_a_run_id_of_another_run_is_refused(submit_tiny, vertex):
    assert submit_tiny("--run_id", "first").returncode == 0
    other = submit_tiny("--run_id", "first", "--steps", "7")
    assert other.returncode == 2
    assert "is that of another run. Received: first, which differs in the parameters --steps" in " ".join(
        other.stderr.split()
    )


def test_a_run_of_the_same_id_with_another_pipeline_hardware_or_account_is_named(submit_tiny, tiny_template, vertex):
    first = ["--run_id", "first", "--labels", "team=vision", "--service_account", "trainer@p.iam.gserviceaccount.com"]
    assert submit_tiny(*first).returncode == 0
    assert "was submitted before" in submit_tiny(*first).stdout
    written = tiny_template.read_text()
    for change, difference in (
        (["--labels", "team=speech"], "--labels ({'team': 'vision'}, now {'team': 'speech'})"),
        (
            ["--service_account", "other@p.iam.gserviceaccount.com"],
            "--service_account (trainer@p.iam.gserviceaccount.com, now other@",
        ),
        (["--pipeline_root", "gs://bucket/elsewhere"], "--pipeline_root (gs://bucket/root, now gs://bucket/elsewhere)"),
        (["--failure_policy", "fast"], "--failure_policy (not set, now fast)"),
        (["--caching", "false"], "the caching or the retries of steps"),
        (("image: python:3.11", "image: python:3.12"), "the image of build, scan, train"),
        (("return file.read() * steps", "return file.read()"), "the code of train"),
        (("image: python:3.11", "image: python:3.11\n        resources: {cpuLimit: 4.0}"), "the hardware of"),
        (("name: tiny", "name: another"), "the pipeline"),
    ):
        words = change if isinstance(change, list) else []
        if not words:
            tiny_template = tiny_template.with_name("changed.yaml")
            tiny_template.write_text(written.replace(*change))
            words = ["--template", str(tiny_template)]
        other = submit_tiny(*first, *words)
        assert other.returncode == 2, change
        assert f"which differs in {difference}" in " ".join(other.stderr.split())
    assert list(vertex.jobs) == ["first"]


def test_a_lost_answer_starts_one_run(submit_tiny, vertex):
    vertex.faults.append(Fault(503, path="pipelineJobs", carried_out=True))
    done = submit_tiny("--run_id", "first")
    assert done.returncode == 0, done.stderr
    assert "Run first submitted" in done.stdout
    assert list(vertex.jobs) == ["first"]


def test_a_service_that_is_unavailable_twice_is_called_again(submit_tiny, vertex):
    vertex.faults.append(Fault(503, path="pipelineJobs", times=2))
    done = submit_tiny("--wait")
    assert done.returncode == 0, done.stderr
    assert len(vertex.jobs) == 1
    assert len(_sent(vertex)) == 3


def test_missing_permission_is_one_paragraph(submit_tiny, vertex):
    vertex.faults.append(Fault(403, path="pipelineJobs", message="Permission 'aiplatform.pipelineJobs.create' denied"))
    done = submit_tiny()
    assert done.returncode == 1
    printed = " ".join(done.stderr.split())
    assert printed.startswith(
        "error: Vertex AI does not let this account submit a run. Received: Permission 'aiplatform.pipelineJobs.create'"
    )
    assert "roles/aiplatform.user" in printed and "Traceback" not in printed


def test_an_exceeded_quota_is_one_paragraph_and_not_retried(submit_tiny, vertex):
    vertex.faults.append(Fault(429, path="pipelineJobs", message="Quota exceeded for custom_model_training_cpus"))
    done = submit_tiny()
    assert done.returncode == 1
    assert "A quota of Vertex AI is used up" in done.stderr and "custom_model_training_cpus" in done.stderr
    assert len(_sent(vertex)) == 1


def test_a_bucket_that_is_not_found_is_not_created(submit_tiny, vertex):
    done = submit_tiny("--pipeline_root", "gs://no-such-bucket/root")
    assert done.returncode == 2
    printed = " ".join(done.stderr.split())
    assert "is not found" in printed
    assert "gcloud storage buckets create gs://no-such-bucket --project my-project --location europe-west4" in printed
    assert not vertex.requests


def test_a_misspelt_flag_is_answered_by_the_nearest_one_before_anything_is_sent(pipelines, submit_tiny, vertex):
    for words, nearest in ((["--batchsize", "8"], "--batch_size"), (["--pipeline_rot", "gs://b"], "--pipeline_root")):
        done = pipelines("submit", *words)
        assert done.returncode == 2
        assert f"Did you mean {nearest}?" in done.stderr
    done = submit_tiny("--step", "3")
    assert done.returncode == 2
    assert "Did you mean --steps?" in done.stderr
    assert not vertex.requests


def test_a_wrong_value_is_named_before_anything_is_sent(pipelines, submit_tiny, vertex, tmp_path):
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text("batch_size: many\n")
    for done, flag in (
        (submit_tiny("--steps", "3.5"), "--steps"),
        (submit_tiny("--verbose", "maybe"), "--verbose"),
        (submit_tiny("--labels", "Team=Vision"), "--labels"),
        (submit_tiny("--run_id", "First Run"), "--run_id"),
        (submit_tiny("--encryption_key", "my-key"), "--encryption_key"),
        (pipelines("submit", "--params", str(parameters)), "--batch_size"),
        (pipelines("submit", "--train_metadata", "gs://bucket/photos", "--optimizer", "adm"), "Did you mean adam?"),
        (pipelines("submit", "--train_metadata", "photos"), "gcloud storage cp --recursive photos"),
        (pipelines("submit"), "--train_metadata is required"),
    ):
        assert done.returncode == 2, done.stderr
        assert flag in " ".join(done.stderr.split())
    assert not vertex.requests


@pytest.mark.parametrize("champion", ["service/pets", "Pets", "/gcs/bucket/service"])
def test_a_model_in_service_where_no_run_would_find_it_again_is_refused(pipelines, vertex, champion):
    words = ["--train_metadata", "gs://bucket/photos", "--pipeline_root", "gs://bucket/root"]
    done = pipelines("submit", *words, "--champion", champion)
    assert done.returncode == 2
    assert "--champion" in done.stderr
    assert not vertex.requests


def test_a_model_and_an_endpoint_may_be_named_by_their_ids(pipelines, vertex):
    vertex.runner.fail_once = ["resolve"]
    words = ["--train_metadata", "gs://bucket/photos", "--pipeline_root", "gs://bucket/root"]
    done = pipelines("submit", "--run_id", "first", *words, "--champion", "pets", "--endpoint", "42")
    assert done.returncode == 0, done.stderr
    given = dict(vertex.jobs["first"].runtime_config.parameter_values)
    assert given["champion"] == "projects/my-project/locations/europe-west4/models/pets"
    assert given["endpoint"] == "projects/my-project/locations/europe-west4/endpoints/42"


def test_parameters_come_from_a_file_and_the_command_line_wins(submit_tiny, vertex, tmp_path):
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text("steps: 4\nrate: 1e-3\nverbose: true\n")
    assert submit_tiny("--run_id", "first", "--params", str(parameters), "--steps", "5").returncode == 0
    given = dict(vertex.jobs["first"].runtime_config.parameter_values)
    assert given == {"folder": "gs://bucket/words", "steps": 5, "rate": 0.001, "verbose": True}


def test_caching_can_be_turned_off_and_tasks_that_are_never_cached_stay_so(submit_tiny, vertex):
    for run, words in (
        ("first", []),
        ("second", []),
        ("third", ["--caching", "true"]),
        ("fourth", ["--caching", "false"]),
    ):
        assert submit_tiny("--run_id", run, *words, "--wait").returncode == 0
    states = {name: [task.state.name for task in job.job_detail.task_details] for name, job in vertex.jobs.items()}
    assert states["second"] == states["third"] == ["SUCCEEDED", "SKIPPED", "SKIPPED"]
    assert states["fourth"] == ["SUCCEEDED", "SUCCEEDED", "SUCCEEDED"]


def test_a_template_may_be_in_the_bucket(pipelines, tiny_template, storage_url, vertex):
    from tests.standin import bucket as standin

    client = standin.client(storage_url)
    client.bucket("bucket").blob("tiny.yaml").upload_from_string(tiny_template.read_bytes())
    root = ["--pipeline_root", "gs://bucket/root"]
    done = pipelines("submit", "--template", "gs://bucket/tiny.yaml", *root, "--folder", "gs://bucket/words")
    assert done.returncode == 0, done.stderr
    missing = pipelines("submit", "--template", "gs://bucket/tny.yaml", *root)
    assert missing.returncode == 2 and "Cannot read --template" in missing.stderr


def test_options_of_the_compilation_do_not_go_with_a_template(submit_tiny, vertex):
    done = submit_tiny("--cpu", "8")
    assert done.returncode == 2 and "--cpu cannot be given with --template" in done.stderr
    assert not vertex.requests


def test_no_credentials_go_over_plain_http(submit_tiny, vertex, monkeypatch, tmp_path):
    account = tmp_path / "account.json"
    account.write_text(
        '{"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "hidden-token"}'
    )
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(account))
    done = submit_tiny("--run_id", "first", "--wait")
    assert done.returncode == 0, done.stderr
    assert not vertex.saw_credentials
    left = [path for path in vertex.runner.folder.rglob("*") if path.is_file() and b"hidden-token" in path.read_bytes()]
    assert not left and "hidden-token" not in done.stdout + done.stderr


def test_without_credentials_nothing_is_tried(tiny_template, capsys, monkeypatch):
    from pipelines.__main__ import run_command
    from tf_image_classification import command_line

    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/account.json")
    words = ["runs", "list", "--project", "my-project", "--location", "europe-west4"]
    with pytest.raises(SystemExit) as ended:
        command_line.main(run_command, words)
    assert ended.value.code == 1
    assert "no usable Google Cloud credentials" in " ".join(capsys.readouterr().err.split())


def test_an_unreachable_address_is_reported_at_once(capsys):
    from pipelines.__main__ import run_command
    from tf_image_classification import command_line

    service = ["--project", "my-project", "--location", "europe-west4", "--api_endpoint", "http://127.0.0.1:1"]
    words = ["runs", "list", *service]
    with pytest.raises(SystemExit) as ended:
        command_line.main(run_command, words)
    assert ended.value.code == 1
    printed = " ".join(capsys.readouterr().err.split())
    assert "Vertex AI cannot be reached" in printed and "http://127.0.0.1:1/" in printed


def test_faults_and_failures_can_be_ordered_with_curl(submit_tiny, vertex):
    """curl --json, as `python -m tests.standin` prints it."""
    import urllib.request

    for path, body in (
        ("faults", b'{"code": 403, "path": "pipelineJobs", "message": "denied"}'),
        ("fail_once", b'["train"]'),
    ):
        headers = {"Content-Type": "application/json"}
        urllib.request.urlopen(urllib.request.Request(f"{vertex.url}/standin/{path}", body, headers)).close()  # noqa: S310
    denied = submit_tiny("--run_id", "first")
    assert denied.returncode == 1 and "denied" in denied.stderr
    failed = submit_tiny("--run_id", "first", "--wait")
    assert failed.returncode == 1 and "train:" in failed.stderr


@pytest.mark.parametrize(
    ("values", "flag"),
    [
        ({"train_metadata": "gs://bucket/a,photos"}, "--train_metadata"),
        ({"labels_file": "labels.txt"}, "--labels_file"),
        ({"model_dir": "models"}, "--model_dir"),
        ({"checkpoint_path": "inception.ckpt"}, "--checkpoint_path"),
        ({"champion": "/gcs/bucket/service"}, "--champion"),
        ({"model_dir": "gs://bucket/{date}"}, "{date} is filled in in --train_metadata"),
    ],
)
def test_every_flag_that_is_a_path_must_be_one_that_the_cloud_sees(values, flag, monkeypatch, storage_url):
    from pipelines import template
    from tf_image_classification.errors import FlagError

    monkeypatch.setenv("STORAGE_EMULATOR_HOST", storage_url)
    with pytest.raises(FlagError, match=flag):
        template.check_paths(values)


@pytest.mark.parametrize("path", ["photos, all/cats.csv", "lists/dogs, cats-{date}.csv", "by {date}/dogs, cats/a.csv"])
def test_a_path_in_a_bucket_may_have_commas(monkeypatch, storage_url, path):
    from pipelines import template
    from tests.standin import bucket as standin

    monkeypatch.setenv("STORAGE_EMULATOR_HOST", storage_url)
    standin.client(storage_url).bucket("bucket").blob(path.replace("{date}", "2020-02-03")).upload_from_string("x")
    template.check_paths({"train_metadata": f"gs://bucket/other,gs://bucket/{path},gs://bucket/third"})


@pytest.mark.parametrize(
    "root",
    ["gs://bucket/a[1]", "gs://bucket/a*", "gs://bucket/a?", "gs://bucket//a", "gs://bucket/a/../b", "gs://bucket//"],
)
def test_a_root_that_a_later_step_cannot_take_is_refused_before_anything_is_sent(submit_tiny, vertex, root):
    done = submit_tiny("--pipeline_root", root)
    assert done.returncode == 2 and "--pipeline_root" in done.stderr
    assert not vertex.requests


def test_a_slash_at_the_end_of_a_root_and_a_bucket_alone_are_no_other_roots(submit_tiny, vertex):
    assert submit_tiny("--run_id", "first", "--pipeline_root", "gs://bucket/").returncode == 0
    again = submit_tiny("--run_id", "first", "--pipeline_root", "gs://bucket")
    assert again.returncode == 0 and "was submitted before" in again.stdout, again.stderr
    assert vertex.jobs["first"].runtime_config.gcs_output_directory == "gs://bucket"
    invalid = submit_tiny("--pipeline_root", "gs://")
    assert invalid.returncode == 2


def test_a_comma_separates_paths_only_in_a_flag_that_is_a_list():
    from pipelines import template

    template.check_paths({"labels_file": "gs://bucket/cats,dogs.txt", "train_metadata": "gs://bucket/a,/gcs/bucket/b"})
    template.check_paths({"checkpoint_path": "champion", "champion": "projects/p/locations/l/models/m"})
