"""What stands before the API of a whole Kubeflow: a gateway with Dex's login page, and an API with several users.

As in the manifests of Kubeflow: the API is below /pipeline, and the gateway passes on who calls. It answers requests of
nobody itself, with a redirection to Dex (`login_page`) or as the API does, with 401. The API wants a namespace in which
the caller has rights, and experiments are found in theirs only (apiserver/server/experiment_server.go, run_server.go).
"""

from __future__ import annotations

import hmac
import html
import json
import secrets
import threading
import uuid
from typing import Any

import requests
from werkzeug.serving import make_server
from werkzeug.utils import redirect
from werkzeug.wrappers import Request, Response

from tests.standin.access import HOST, Access, AccessError
from tests.standin.kubeflow import Kubeflow
from tests.standin.service import QuietHandler

_API = "/pipeline/apis/v2beta1"
_COOKIE = "oauth2_proxy_kubeflow"
_FORM = '<form method="post"><input name="login"><input name="password" type="password"><button>Log in</button></form>'


class Gateway:
    """A gateway on 127.0.0.1 before a Kubeflow stand-in.

    Attributes:
        login_page: whether nobody is sent to Dex, or gets 401.
        button: whether oauth2-proxy shows a page with a button first, Dex one with its connectors, and one to approve.
        tokens: bearer token -> user.
        passwords: user of Dex -> password.
        members: namespace -> users who may use it.
        experiments: by id.
        requests: `METHOD path` of each.
        broken: a response for all requests to the API, as of a gateway whose upstream is gone.
    """

    def __init__(self, kubeflow: Kubeflow, *, login_page: bool = False, button: bool = False) -> None:
        self.login_page, self.button, self._kubeflow = login_page, button, kubeflow
        self.tokens: dict[str, str] = {}
        self.passwords: dict[str, str] = {}
        self.members: dict[str, set[str]] = {}
        self.experiments: dict[str, dict[str, Any]] = {}
        self.requests: list[str] = []
        self.broken: Response | None = None
        self._sessions: dict[str, str] = {}
        self._approvals: dict[str, str] = {}
        self._server = make_server(HOST, 0, self._respond, threaded=True, request_handler=QuietHandler)
        self._access = Access(self._server.server_port)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def host(self) -> str:
        """The value of --host."""
        return f"{self._access.url}/pipeline"

    def start(self) -> None:
        """Starts serving, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stops serving and closes the port."""
        self._server.shutdown()
        self._server.server_close()

    def expire(self) -> None:
        """Ends all sessions."""
        self._sessions.clear()

    def session(self, user: str) -> str:
        """The Cookie header of a new session, as a browser has it after a login."""
        value = secrets.token_urlsafe()
        self._sessions[value] = user
        return f"{_COOKIE}={value}"

    @Request.application
    def _respond(self, request: Request) -> Response:
        try:
            path = self._access.check("GET", request.path, request.headers)  # forms are posted too: to Dex only
        except AccessError as refused:
            return Response(str(refused), 403)
        self.requests.append(f"{request.method} {path}")
        if path.startswith(("/dex/", "/oauth2/")):
            return self._log_in(request, path)
        user = self._user(request)
        if user is None:
            return self._nobody(path)
        if not path.startswith(_API):
            return Response("<!doctype html><title>Kubeflow Central Dashboard</title>", mimetype="text/html")
        return self.broken or self._call(request, path.removeprefix(_API), user)

    def _user(self, request: Request) -> str | None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme == "Bearer":
            return next((user for known, user in self.tokens.items() if hmac.compare_digest(known, token)), None)
        return self._sessions.get(request.cookies.get(_COOKIE, ""))

    def _nobody(self, path: str) -> Response:
        if self.login_page:
            first = "/oauth2/sign_in" if self.button else "/dex/auth"
            return redirect(f"{self._access.url}{first}?state={secrets.token_urlsafe()}")
        return _error(401, 16, "Failed to check authorization. User identity is empty in the request header")

    def _log_in(self, request: Request, path: str) -> Response:
        state = f"state={html.escape(request.args.get('state', ''))}"
        dex = f"{self._access.url}/dex/auth"
        if path == "/oauth2/sign_in":
            return Response('<form action="start"><button>Sign in with Dex</button></form>', mimetype="text/html")
        if path == "/oauth2/start":
            return redirect(f"{dex}?{state}")
        if path == "/dex/auth" and self.button:
            links = (
                f'<a href="{dex}/github?{state}">GitHub</a><a href="{dex}/local?{state}&amp;x=1">Log in with Email</a>'
            )
            return Response(links, mimetype="text/html")
        if not path.endswith(("/login", "/approval")):
            return redirect(f"{dex}/local/login?{state}")
        if path == "/dex/approval":
            user = self._approvals.get(request.args.get("req", ""), "")
            if request.method == "POST" and user and request.form.get("approval") == "approve":
                return self._signed_in(user)
            return Response('<form method="post"><button>Grant Access</button></form>', mimetype="text/html")
        user, password = request.form.get("login", ""), request.form.get("password", "")
        if request.method != "POST" or not password or self.passwords.get(user) != password:
            return Response(_FORM, mimetype="text/html")
        if self.button:
            approval = secrets.token_urlsafe()
            self._approvals[approval] = user
            return redirect(f"{dex.removesuffix('auth')}approval?req={approval}", code=303)
        return self._signed_in(user)

    def _signed_in(self, user: str) -> Response:
        answer = redirect(f"{self._access.url}/pipeline", code=303)
        name, _, value = self.session(user).partition("=")
        answer.set_cookie(name, value, httponly=True)
        return answer

    def _call(self, request: Request, path: str, user: str) -> Response:
        """The API with several users; what is not about them is the stand-in's own."""
        if path == "/healthz":
            return _json({"multi_user": True})
        kind, body = path.split("/")[1].partition(":")[0], json.loads(request.data or b"{}")
        namespace, experiment = self._place(request, path, body)
        if experiment is not None and experiment not in self.experiments:
            return _error(404, 5, f"ResourceNotFoundError: Experiment {experiment} not found")
        if not namespace:
            kinds = {"experiments": "An experiment", "runs": "A run", "recurringruns": "Recurring run"}
            return _error(400, 3, f"{kinds[kind]} cannot have an empty namespace in multi-user mode")
        if user not in self.members.get(namespace, ()):
            verb = "create" if request.method == "POST" else "list"
            return _error(
                403,
                7,
                f"Failed to authorize with API: User '{user}' is not authorized with reason:  (request: "
                f"&ResourceAttributes{{Namespace:{namespace},Verb:{verb},Group:pipelines.kubeflow.org,Resource:{kind}}})",
            )
        if kind == "experiments":
            return self._experiments(request, body, namespace)
        return self._forward(request, path)

    def _place(self, request: Request, path: str, body: dict[str, Any]) -> tuple[str, str | None]:
        """The namespace of a request, and the id of its experiment; None where it has none."""
        _, kind, *name = path.split("/")
        if kind == "experiments":
            return request.args.get("namespace") or body.get("namespace", ""), None
        if name:
            known = self._kubeflow.runs if kind == "runs" else self._kubeflow.recurring
            experiment = known.get(name[0].partition(":")[0], {}).get("experiment_id", "")
        else:
            experiment = request.args.get("experiment_id") or body.get("experiment_id", "")
        found = self.experiments.get(experiment, {})
        return found.get("namespace", request.args.get("namespace", "")), experiment or None

    def _experiments(self, request: Request, body: dict[str, Any], namespace: str) -> Response:
        mine = [one for one in self.experiments.values() if one["namespace"] == namespace]
        if request.method == "POST":
            if any(one["display_name"] == body["display_name"] for one in mine):
                return _error(409, 6, f"Already exist error: name {body['display_name']}")
            made = body | {"experiment_id": str(uuid.uuid4())}
            self.experiments[made["experiment_id"]] = made
            return _json(made)
        predicates = json.loads(request.args.get("filter") or "{}").get("predicates", [])
        found = [one for one in mine if all(one.get(each["key"]) == each["stringValue"] for each in predicates)]
        return _json({"experiments": found, "total_size": len(found)} if found else {})

    def _forward(self, request: Request, path: str) -> Response:
        answer = requests.request(
            request.method,
            f"{self._kubeflow.url}/apis/v2beta1{path}",
            params=request.args,
            data=request.data,
            headers={"Content-Type": request.headers.get("Content-Type", "application/json")},
            timeout=60,
        )
        return Response(answer.content, answer.status_code, mimetype=answer.headers["Content-Type"])


def _json(content: dict[str, Any]) -> Response:
    return Response(json.dumps(content), mimetype="application/json")


def _error(status: int, code: int, message: str) -> Response:
    """An error as grpc-gateway writes it."""
    content = {"error": message, "code": code, "message": message, "details": []}
    return Response(json.dumps(content), status, mimetype="application/json")
