"""Kubeflow with several users, behind a check of tokens and behind a login page."""

from __future__ import annotations

import datetime as dt
import json
import threading

import pytest
from werkzeug.serving import make_server, make_ssl_devcert
from werkzeug.utils import redirect
from werkzeug.wrappers import Request, Response

from pipelines.backends import kubeflow_sign_in
from pipelines.commands import watch
from tests.standin.kubeflow import Kubeflow
from tests.standin.kubeflow_access import Gateway
from tests.standin.service import QuietHandler

TOKEN, PASSWORD, USER = "secret-of-the-test", "password-of-the-test", "ada@example.com"
VARIABLES = (
    kubeflow_sign_in.TOKEN_VARIABLE,
    kubeflow_sign_in.COOKIES_VARIABLE,
    kubeflow_sign_in.USER_VARIABLE,
    kubeflow_sign_in.PASSWORD_VARIABLE,
    kubeflow_sign_in.IAP_VARIABLE,
    kubeflow_sign_in.CA_VARIABLE,
)


@pytest.fixture
def gateway(tmp_path, storage_url, monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(kubeflow_sign_in, "_CONTEXT", tmp_path / "none.json")
    monkeypatch.setattr(kubeflow_sign_in.kfp_client.Client, "_LOCAL_KFP_CONTEXT", str(tmp_path / "none.json"))
    kubeflow = Kubeflow(tmp_path / "kubeflow", storage_url)
    kubeflow.start()
    gateway = Gateway(kubeflow)
    gateway.kubeflow = kubeflow
    gateway.tokens[TOKEN] = USER
    gateway.passwords[USER] = PASSWORD
    gateway.members["vision"] = {USER}
    gateway.start()
    yield gateway
    gateway.stop()
    kubeflow.stop()


@pytest.fixture
def call(gateway, command):
    def call(*words: str, namespace: str = "vision"):
        place = ["--namespace", namespace] if namespace else []
        done = command(*words, "--backend", "kubeflow", "--host", gateway.host, *place)
        assert "Traceback" not in done.stderr
        for secret in (TOKEN, PASSWORD, *gateway._sessions):
            assert secret not in done.stdout + done.stderr
        return done

    return call


def _printed(done) -> str:
    return " ".join(done.stderr.split())


def _whole_life(call, gateway, tiny_template, *sign_in: str) -> None:
    """Submits, follows, reruns and schedules."""
    root = ["--template", str(tiny_template), "--pipeline_root", "gs://bucket/root", "--folder", "gs://bucket/words"]
    done = call("submit", *root, "--run_id", "first", "--steps", "3", "--wait", *sign_in)
    assert done.returncode == 0, done.stderr
    assert "train            SUCCEEDED" in done.stdout
    again = call("runs", "rerun", "first", "--run_id", "second", *sign_in)
    assert again.returncode == 0, again.stderr
    planned = call("schedule", "create", "weekly", "--cron", "0 3 * * 1", *root, *sign_in)
    assert planned.returncode == 0, planned.stderr
    gateway.kubeflow.advance(dt.timedelta(weeks=1))
    listed = call("runs", "list", *sign_in).stdout
    assert listed.count("second") == 1 and listed.count("weekly-") == 1
    (experiment,) = gateway.experiments.values()
    assert (experiment["display_name"], experiment["namespace"]) == ("Default", "vision")
    stored = json.dumps([gateway.kubeflow.runs, gateway.kubeflow.recurring])
    assert TOKEN not in stored and PASSWORD not in stored


def test_a_token_in_a_file_signs_in_to_a_cluster_of_several_users(call, gateway, tiny_template, tmp_path):
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    _whole_life(call, gateway, tiny_template, "--token_file", str(file))


@pytest.mark.slow
def test_dexs_user_and_password_pass_its_login_page(call, gateway, tiny_template, monkeypatch):
    gateway.login_page = True
    monkeypatch.setenv(kubeflow_sign_in.USER_VARIABLE, USER)
    monkeypatch.setenv(kubeflow_sign_in.PASSWORD_VARIABLE, PASSWORD)
    _whole_life(call, gateway, tiny_template)


def test_other_ways_of_signing_in(call, gateway, monkeypatch, tmp_path):
    gateway.login_page = gateway.button = True
    file = tmp_path / "cookies"
    file.write_text(gateway.session(USER))
    assert call("runs", "list", "--cookie_file", str(file)).returncode == 0
    for values in (
        {kubeflow_sign_in.COOKIES_VARIABLE: gateway.session(USER)},
        {kubeflow_sign_in.TOKEN_VARIABLE: TOKEN},
        {kubeflow_sign_in.USER_VARIABLE: USER, kubeflow_sign_in.PASSWORD_VARIABLE: PASSWORD},
    ):
        with monkeypatch.context() as patch:
            for name, value in values.items():
                patch.setenv(name, value)
            done = call("runs", "list")
            assert done.returncode == 0, done.stderr
    both = call("runs", "list", "--cookie_file", str(file), "--token_file", str(file))
    assert both.returncode == 2 and "--token_file and --cookie_file" in _printed(both)


def test_a_pods_token_is_used_with_a_host_and_read_again_when_it_is_renewed(gateway, monkeypatch, tmp_path):
    from pipelines.backends.kubeflow import Kubeflow as Backend

    projected = tmp_path / "token"
    projected.write_text(TOKEN)
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(projected))
    service = Backend(gateway.host, "vision")
    assert service.list_runs(1) == []
    gateway.tokens = {"renewed": USER}
    projected.write_text("renewed")
    assert service.list_runs(1) == []


def test_the_namespace_is_that_of_kfps_context_file_or_of_the_pod(call, gateway, monkeypatch, tmp_path):
    monkeypatch.setenv(kubeflow_sign_in.TOKEN_VARIABLE, TOKEN)
    missing = call("runs", "list", namespace="")
    assert missing.returncode == 2 and "--namespace is required: this Kubeflow has several users" in _printed(missing)
    pod = tmp_path / "namespace"
    pod.write_text("vision")
    monkeypatch.setattr(kubeflow_sign_in, "_POD_NAMESPACE", pod)
    assert call("runs", "list", namespace="").returncode == 0
    context = tmp_path / "context.json"
    context.write_text('{"namespace": "speech"}')
    monkeypatch.setattr(kubeflow_sign_in, "_CONTEXT", context)
    other = call("runs", "list", namespace="")
    assert other.returncode == 1 and "Namespace:speech" in other.stderr
    context.write_text("{")
    assert "context file is damaged" in _printed(call("runs", "list", namespace=""))


def test_whom_kubeflow_does_not_let_in_is_told_why_and_what_to_do(call, gateway, monkeypatch):
    nobody = call("runs", "list")
    assert nobody.returncode == 1
    assert "no credentials were sent (401)" in _printed(nobody) and "--token_file" in _printed(nobody)
    monkeypatch.setenv(kubeflow_sign_in.TOKEN_VARIABLE, "secret-of-another")
    expired = call("runs", "list")
    assert "does not accept the token in $KFP_EXISTING_TOKEN (401)" in _printed(expired)
    assert "secret-of-another" not in expired.stderr
    monkeypatch.setenv(kubeflow_sign_in.TOKEN_VARIABLE, TOKEN)
    foreign = call("runs", "list", namespace="speech")
    assert "(403)" in _printed(foreign) and "Check --namespace" in _printed(foreign)
    unnamed = call("runs", "list", "--experiment", "pets")
    assert unnamed.returncode == 2 and "pets, in the namespace vision" in _printed(unnamed)
    gateway.broken = Response("no healthy upstream", 503, mimetype="text/plain")
    monkeypatch.setattr("pipelines.backends.kubeflow_errors._SECONDS", 0)
    gone = call("runs", "list")
    assert "not available (503)" in _printed(gone) and "503 SERVICE UNAVAILABLE: no healthy upstream" in _printed(gone)
    gateway.broken = Response("RBAC: access denied", 403, mimetype="text/plain")
    mesh = _printed(call("runs", "list"))
    assert "403 FORBIDDEN: RBAC: access denied" in mesh and "--host is the address of the gateway" in mesh
    gateway.broken = Response("<h1>404</h1>", 404, mimetype="text/html")
    assert "A web page answered instead of Kubeflow's API" in _printed(call("runs", "list"))


def test_a_page_instead_of_the_api_is_told_from_a_login_page(call, command, gateway, monkeypatch):
    gateway.login_page = True
    nobody = call("runs", "list")
    assert nobody.returncode == 1
    assert "login page answered instead of its API: it wants a sign-in, and got none" in _printed(nobody)
    assert "KF_PIPELINES" not in nobody.stdout and "docs/kubeflow.md#sign-in" in nobody.stderr
    monkeypatch.setenv(kubeflow_sign_in.COOKIES_VARIABLE, gateway.session(USER))
    gateway.expire()
    assert "does not accept the cookie of $KF_PIPELINES_COOKIES, or it has expired" in _printed(call("runs", "list"))
    monkeypatch.setenv(kubeflow_sign_in.COOKIES_VARIABLE, gateway.session(USER))
    for body in ("<title>Log in to dex</title>", '<input type="password">'):  # with 200, as some gateways answer
        gateway.broken = Response(body.encode("latin-1") + b"\xff", mimetype="text/html")
        assert "login page answered" in _printed(call("runs", "list"))
    gateway.broken = None
    host = gateway.host.removesuffix("/pipeline")
    page = command("runs", "list", "--backend", "kubeflow", "--host", host, "--namespace", "vision")
    assert "A web page answered" in _printed(page) and "--host https://ADDRESS/pipeline" in _printed(page)


def test_credentials_do_not_go_where_an_answer_leads(call, gateway, monkeypatch):
    monkeypatch.setenv(kubeflow_sign_in.TOKEN_VARIABLE, TOKEN)
    gateway.broken = redirect("http://127.0.0.1:1/login?state=s")  # nothing listens there: following it would fail
    led = call("runs", "list")
    assert "login page answered" in _printed(led) and "302 FOUND, to http://127.0.0.1:1/login." in _printed(led)
    encrypted = gateway.host.replace("http://", "https://")
    gateway.broken = redirect(f"{encrypted}/apis/v2beta1/experiments", code=301)
    assert "at another address" in _printed(call("runs", "list")) and "https://" in _printed(call("runs", "list"))


def test_a_password_that_dex_refuses(call, gateway, monkeypatch):
    gateway.login_page = True
    monkeypatch.setenv(kubeflow_sign_in.USER_VARIABLE, USER)
    assert "$KF_PIPELINES_PASSWORD is required" in _printed(call("runs", "list"))
    monkeypatch.setenv(kubeflow_sign_in.PASSWORD_VARIABLE, "wrong-password")
    refused = call("runs", "list")
    assert refused.returncode == 1 and "Dex refuses the user and password" in _printed(refused)
    assert "wrong-password" not in refused.stderr and "state=" not in refused.stderr


def test_a_session_that_expires_while_a_run_is_followed_is_renewed(call, gateway, monkeypatch):
    gateway.login_page = True
    monkeypatch.setenv(kubeflow_sign_in.USER_VARIABLE, USER)
    monkeypatch.setenv(kubeflow_sign_in.PASSWORD_VARIABLE, PASSWORD)
    assert call("runs", "list").returncode == 0
    run = {"run_id": "1", "display_name": "first", "state": "RUNNING", "created_at": "2030-01-01T00:00:00Z"}
    run |= {"finished_at": "2030-01-01T01:00:00Z", "experiment_id": next(iter(gateway.experiments))}
    gateway.kubeflow.runs["1"] = run
    changes = [gateway.expire, lambda: None, lambda: run.update(state="SUCCEEDED")]
    monkeypatch.setattr(watch, "_pause", lambda _: changes.pop(0)())
    done = call("runs", "show", "first", "--wait")
    assert done.returncode == 0, done.stderr
    assert gateway.requests.count("POST /dex/auth/local/login") == 3


def test_an_address_without_tls_is_not_taken_for_one_with_an_unknown_certificate(command, gateway):
    done = command("runs", "list", "--backend", "kubeflow", "--host", gateway.host.removeprefix("http://"))
    assert done.returncode == 1 and "give --host with http://" in _printed(done)
    assert "--ca_file" not in done.stderr


@pytest.mark.parametrize("content", ["two words", "a\nb", "", "token\x00"])
def test_what_is_no_token_is_refused_without_being_printed(call, tmp_path, content):
    file = tmp_path / "token"
    file.write_text(content)
    done = call("runs", "list", "--token_file", str(file))
    assert done.returncode == 2 and "--token_file holds no token" in _printed(done)
    assert content not in done.stderr or not content
    missing = call("runs", "list", "--token_file", str(tmp_path / "missing"))
    assert missing.returncode == 2 and "Cannot read --token_file" in _printed(missing)


def test_the_identity_aware_proxys_token_is_the_one_that_kfp_makes(call, gateway, monkeypatch, tmp_path):
    """kfp keeps the refresh token of a person in a file; here Google's token service is the test's."""
    from kfp.client import auth

    stored = tmp_path / "credentials.json"
    person = {"refresh_token": "r", "other_client_id": "o", "other_client_secret": "s"}
    stored.write_text(json.dumps({"client": person}))
    monkeypatch.setattr(auth, "LOCAL_KFP_CREDENTIAL", str(stored))
    monkeypatch.setattr(auth, "OAUTH_TOKEN_URI", "http://127.0.0.1:1/token")
    failed = call("runs", "list", "--iap_client_id", "client")
    assert failed.returncode == 1 and "Cannot get a token for the Identity-Aware Proxy" in _printed(failed)
    monkeypatch.setattr(auth, "id_token_from_refresh_token", lambda *_: TOKEN)
    assert call("runs", "list", "--iap_client_id", "client").returncode == 0


def test_options_of_the_other_service_are_refused(command, gateway):
    for words, option in (
        (["--project", "p", "--location", "l", "--host", "http://a"], "--host"),
        (["--project", "p", "--location", "l", "--token_file", "a"], "--token_file"),
        (["--backend", "kubeflow", "--host", gateway.host, "--api_endpoint", "http://a"], "--api_endpoint"),
        (["--backend", "kubeflow", "--host", "https://user:pw@a"], "--host has a user or a password"),
        (["--backend", "kubeflow", "--host", "ftp://a"], "Invalid value for --host"),
    ):
        done = command("runs", "list", *words)
        assert done.returncode == 2 and option in _printed(done)
    assert not gateway.requests


def test_the_proxy_of_the_environment_is_used_and_a_secret_over_http_is_warned_about(command, monkeypatch):
    monkeypatch.setenv(kubeflow_sign_in.TOKEN_VARIABLE, TOKEN)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    done = command(
        "runs", "list", "--backend", "kubeflow", "--host", "http://kubeflow.invalid", "--namespace", "vision"
    )
    assert done.returncode == 1 and "Unable to connect to proxy" in _printed(done)
    assert "sends the secret of $KFP_EXISTING_TOKEN unencrypted" in _printed(done) and TOKEN not in done.stderr


def test_a_certificate_of_ones_own_authority_needs_its_file(command, tmp_path, monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    certificate, key = make_ssl_devcert(str(tmp_path / "own"), host="localhost")

    @Request.application
    def answer(request: Request) -> Response:
        content = (
            {"multi_user": False} if request.path.endswith("healthz") else {"experiments": [{"experiment_id": "e"}]}
        )
        return Response(json.dumps({} if request.path.endswith("runs") else content), mimetype="application/json")

    server = make_server("localhost", 0, answer, ssl_context=(certificate, key), request_handler=QuietHandler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    words = ["runs", "list", "--backend", "kubeflow", "--host", f"localhost:{server.server_port}"]
    unknown = command(*words)
    assert unknown.returncode == 1 and "is not trusted" in _printed(unknown) and "--ca_file" in _printed(unknown)
    known = command(*words, "--ca_file", certificate)
    assert known.returncode == 0, known.stderr
    monkeypatch.setenv("SSL_CERT_FILE", certificate)
    assert command(*words).returncode == 0
    server.shutdown()
    server.server_close()
