"""Images are looked for in their registry, with the credentials that are meant for it, before a run is sent."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest
from werkzeug.wrappers import Response

from images import catalog
from pipelines import image_check, registry
from pipelines.registry import Reference, look_up, parse
from tests.standin.registry import Registry
from tf_image_classification.errors import FlagError

NOTHING = dict.fromkeys(("tag", "base", "user", "platform"), "")


@pytest.fixture
def images() -> Iterator[Registry]:
    """A registry on this machine, without any image."""
    with Registry() as service:
        yield service


@pytest.fixture
def docker_login(tmp_path, monkeypatch):
    """Signs in to registries as `docker login` does."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))

    def login(host: str, user: str, password: str) -> None:
        stored = base64.b64encode(f"{user}:{password}".encode()).decode()
        (tmp_path / "config.json").write_text(json.dumps({"auths": {host: {"auth": stored}}}))

    return login


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("python", ("docker.io", "library/python", "latest")),
        ("python:3.11", ("docker.io", "library/python", "3.11")),
        ("team/train:1", ("docker.io", "team/train", "1")),
        ("localhost:5000/train:1", ("localhost:5000", "train", "1")),
        ("eu-docker.pkg.dev/p/r/train:1@sha256:ab", ("eu-docker.pkg.dev", "p/r/train", "sha256:ab")),
    ],
)
def test_a_name_is_read_as_docker_reads_it(reference, parts):
    assert parse(reference) == Reference(*parts)


@pytest.mark.parametrize("index", [True, False])
def test_an_image_is_found_with_its_platform_in_an_index_or_in_its_own_configuration(images, index):
    images.add("team/train", "1", "linux/arm64", index=index)
    found = look_up(f"{images.host}/team/train:1")
    assert (found.exists, found.platforms) == (True, {"linux/arm64"})
    assert look_up(f"{images.host}/team/train:2").exists is False


def test_the_password_of_docker_login_is_sent_to_the_registry_that_it_is_for(images, docker_login):
    images.add("train", "1", "linux/amd64")
    images.accounts["ann"] = "password"
    reference = f"{images.host}/train:1"
    docker_login("elsewhere.test", "ann", "password")
    refused = look_up(reference)
    assert refused.exists is None
    assert "401" in refused.reason
    docker_login(images.host, "ann", "password")
    assert look_up(reference).exists


def test_a_google_token_goes_to_googles_registries_and_their_own_token_services_alone(monkeypatch, docker_login):
    monkeypatch.setattr(registry, "_google_token", lambda: "oauth2accesstoken:secret")
    for host in ("europe-west4-docker.pkg.dev", "gcr.io", "eu.gcr.io"):
        assert registry._credentials(host, host) == "oauth2accesstoken:secret"
        assert registry._credentials(host, "token.attacker.test") is None
    for host in ("docker.io", "gcr.io.attacker.test", "attackergcr.io", "127.0.0.1:5000"):
        assert registry._credentials(host, host) is None


def test_a_password_in_netrc_is_not_sent(images, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login ann password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    images.add("train", "1", "linux/amd64")
    images.accounts["ann"] = "secret"
    assert look_up(f"{images.host}/train:1").exists is None


def test_vertex_gets_no_run_whose_image_is_missing_or_for_another_platform(images):
    images.add("team/vertex", "1", "linux/arm64")
    train = f"{images.host}/team/train-gpu:1"
    built_with = {**NOTHING, "user": "0:0", "platform": "linux/arm64"}
    with pytest.raises(FlagError) as refused:
        image_check.check([train, f"{images.host}/team/vertex:1"], "vertex", built_with)
    text = str(refused.value)
    assert f"{train}: not found" in text
    push = f"make images PUSH=1 REGISTRY={images.host}/team RUN_AS=0:0"
    other = ", and give no --image_platform linux/arm64"
    assert f"{push} IMAGES=train-gpu{other}; " in text  # not for a platform that is refused in its turn
    assert "vertex:1: for linux/arm64, not for linux/amd64" in text
    assert text.endswith(f"{push}{other}.")


def test_a_name_of_this_machines_docker_is_refused_for_vertex_and_warned_about_for_kubeflow(caplog):
    local = f"{catalog.REGISTRY}/train:1"
    with pytest.raises(FlagError, match="--image_registry"):
        image_check.check([local], "vertex", NOTHING)
    image_check.check([local], "kubeflow", NOTHING)
    assert f"kind load docker-image {local}" in caplog.text


def test_what_a_registry_does_not_say_is_a_warning(images, caplog):
    closed = "127.0.0.1:9/team/train:1"
    image_check.check([closed], "vertex", NOTHING)
    assert f"Images {closed}: not checked: 127.0.0.1:9 cannot be reached: Failed to establish" in caplog.text


def test_a_registry_that_refuses_for_now_is_not_called_unreachable(images, monkeypatch):
    monkeypatch.setattr(images, "_denied", lambda request, name: Response(status=429))
    assert look_up(f"{images.host}/team/train:1").reason == f"{images.host} answers with HTTP 429"


def test_on_kubeflow_a_missing_image_is_a_warning_because_nodes_may_have_it(images, caplog):
    image_check.check([f"{images.host}/team/train:1"], "kubeflow", NOTHING)
    assert "train:1: not found" in caplog.text


def test_a_missing_image_is_found_before_a_run_is_submitted_rerun_or_scheduled(
    submit_tiny, pipelines, vertex, tiny_template, registry, monkeypatch
):
    submit_tiny("--run_id", "earlier")
    pipelines("runs", "cancel", "earlier")
    run = ["--template", str(tiny_template), "--pipeline_root", "gs://bucket/root", "--folder", "gs://bucket/words"]
    assert pipelines("schedule", "create", "weekly", "--cron", "0 3 * * 1", *run).returncode == 0
    monkeypatch.setattr(registry, "has_all", False)
    vertex.requests.clear()
    for answer in (
        submit_tiny(),
        pipelines("schedule", "create", "nightly", "--cron", "0 3 * * *", *run),
        pipelines("schedule", "update", "weekly", "--steps", "3"),
        pipelines("runs", "rerun", "earlier"),
    ):
        assert answer.returncode == 2
        assert "Vertex AI cannot pull the images" in answer.stderr
    assert not [request for request in vertex.requests if not request.startswith("GET")]
