"""Kubernetes' API on 127.0.0.1, over TLS: Argo workflows, TFJobs and pods, for a pod of a run."""

from __future__ import annotations

import datetime as dt
import http.server
import ipaddress
import json
import re
import ssl
import threading
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.standin.tfjobs import NAMESPACE, StatusError, TFJobs

HOST = "127.0.0.1"
_PATH = re.compile(r"/apis/argoproj\.io/v1alpha1/namespaces/([^/]+)/workflows/([^/]+)")
_TOKEN = "token-of-the-pod"  # noqa: S105 - of this stand-in alone


class KubernetesApi:
    """Serves workflows, TFJobs and their pods to whoever has the token of the pod's service account.

    Attributes:
        account: the folder that a pod sees at /var/run/secrets/kubernetes.io/serviceaccount.
        environment: the variables of a pod's containers that lead here.
        workflows: by name, of the namespace `team`.
        may_read: whether the account may get workflows.
        forbidden: what the account may not do, such as `create tfjobs`.
        faults: HTTP status of the next responses, each instead of the request; 0 resets the connection.
        tfjobs: the training operator.
        requests: how many were answered.
    """

    def __init__(self, folder: Path) -> None:
        self.account, self.may_read, self.requests = folder, True, 0
        self.forbidden: set[str] = set()
        self.faults: list[int] = []
        self.workflows: dict[str, dict[str, Any]] = {}
        self.tfjobs = TFJobs()
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                given = json.loads(content) if content else {}
                code, body = api._answer(self.command, self.path, self.headers.get("Authorization"), given)
                if not code:
                    self.close_connection = True
                    return
                self.send_response(code)
                self.end_headers()
                self.wfile.write((body if isinstance(body, str) else json.dumps(body)).encode())

            do_POST = do_DELETE = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer((HOST, 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(_write_certificate(folder))
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        (folder / "token").write_text(_TOKEN)
        (folder / "namespace").write_text(NAMESPACE)
        self.environment = {
            "KUBERNETES_SERVICE_HOST": HOST,
            "KUBERNETES_SERVICE_PORT": str(self._server.server_port),
            "KFP_POD_NAME": self.tfjobs.launching_pod["metadata"]["name"],
        }
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Ends the pods, stops serving and closes the port."""
        self.tfjobs.stop()
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, method: str, path: str, authorization: str | None, given: dict[str, Any]) -> tuple[int, Any]:
        self.requests += 1
        if self.faults:
            return (code := self.faults.pop(0)), {"kind": "Status", "message": f"injected {code}"}
        if authorization != f"Bearer {_TOKEN}":
            return 401, {"kind": "Status", "reason": "Unauthorized", "message": "Unauthorized"}
        if not (asked := _PATH.fullmatch(path)):
            return self._answer_operator(method, path, given)
        if not self.may_read or asked[1] != NAMESPACE:
            return 403, {"kind": "Status", "reason": "Forbidden"}
        if asked[2] not in self.workflows:
            return 404, {"kind": "Status", "reason": "NotFound"}
        return 200, self.workflows[asked[2]]

    def _answer_operator(self, method: str, path: str, given: dict[str, Any]) -> tuple[int, Any]:
        url = urllib.parse.urlsplit(path)
        query = dict(urllib.parse.parse_qsl(url.query))
        try:
            verb, resource, name = self.tfjobs.asked(method, url.path)
            if f"{verb} {resource}" in self.forbidden or f"/namespaces/{NAMESPACE}/" not in url.path:
                message = f'{resource} is forbidden: User "system:serviceaccount:team:default-editor" cannot {verb} it'
                return 403, {"kind": "Status", "reason": "Forbidden", "message": message}
            return 200, self.tfjobs.answer(verb, resource, name, query, given)
        except StatusError as error:
            return error.code, error.body


def workflow(
    name: str, steps: Mapping[str, Sequence[str]], *, run: str = "", phase: str = "", group: str = "exit-handler-1"
) -> dict[str, Any]:
    """A workflow as Argo leaves it when the exit handler starts, with the nodes that KFP's compiler makes.

    Args:
        name: of the workflow.
        steps: by name, the attempts: each a message of Argo's if it failed, or '' if it succeeded.
        run: display name of the run; scheduled runs have none.
        phase: of the group of tasks; by default what follows from the last attempts.
        group: the exit handler's group of tasks.
    """
    root = f"{name}.root.{group}"
    failed = any(attempts[-1] for attempts in steps.values())
    nodes = [
        {"name": root, "displayName": group, "type": "DAG", "phase": phase or ("Failed" if failed else "Succeeded")}
    ]
    for step, attempts in steps.items():
        ended = "Failed" if attempts[-1] else "Succeeded"
        nodes.append(
            {"name": f"{root}.{step}-driver", "displayName": f"{step}-driver", "type": "Pod", "phase": "Succeeded"}
        )
        nodes.append({"name": f"{root}.{step}", "displayName": step, "type": "DAG", "phase": ended})
        nodes.append({"name": f"{root}.{step}.executor", "displayName": "executor", "type": "Retry", "phase": ended})
        for number, message in enumerate(attempts):
            one = {"name": f"{root}.{step}.executor({number})", "displayName": f"executor({number})", "type": "Pod"}
            nodes.append(one | ({"phase": "Failed", "message": message} if message else {"phase": "Succeeded"}))
    for number, node in enumerate(nodes):
        node["startedAt"] = f"2026-11-01T00:00:{number:02}Z"
    annotations = {"pipelines.kubeflow.org/run_name": run} if run else {}
    return {
        "metadata": {"name": name, "annotations": annotations},
        "status": {"phase": "Running", "nodes": {f"{name}-{number}": node for number, node in enumerate(nodes)}},
    }


def _write_certificate(folder: Path) -> Path:
    """Writes the server's certificate, which is its own authority, to ca.crt; returns the file with its key too."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "ca.crt").write_bytes(pem)
    (folder / "server.pem").write_bytes(private + pem)
    return folder / "server.pem"
