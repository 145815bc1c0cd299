"""Kubernetes' API on 127.0.0.1, over TLS: Argo workflows, for a pod that reads its own run's."""

from __future__ import annotations

import datetime as dt
import http.server
import ipaddress
import json
import re
import ssl
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOST = "127.0.0.1"
_PATH = re.compile(r"/apis/argoproj\.io/v1alpha1/namespaces/([^/]+)/workflows/([^/]+)")
_TOKEN = "token-of-the-pod"  # noqa: S105 - of this stand-in alone


class KubernetesApi:
    """Serves workflows to whoever has the token of the pod's service account.

    Attributes:
        account: the folder that a pod sees at /var/run/secrets/kubernetes.io/serviceaccount.
        environment: the variables of a pod's containers that lead here.
        workflows: by name, of the namespace `team`.
        may_read: whether the account may get workflows.
        requests: how many were answered.
    """

    def __init__(self, folder: Path) -> None:
        self.account, self.may_read, self.requests = folder, True, 0
        self.workflows: dict[str, dict[str, Any]] = {}
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                code, body = api._answer(self.path, self.headers.get("Authorization"))
                self.send_response(code)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer((HOST, 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(_write_certificate(folder))
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        (folder / "token").write_text(_TOKEN)
        (folder / "namespace").write_text("team")
        self.environment = {
            "KUBERNETES_SERVICE_HOST": HOST,
            "KUBERNETES_SERVICE_PORT": str(self._server.server_port),
        }
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Stops serving and closes the port."""
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, path: str, authorization: str | None) -> tuple[int, dict[str, Any]]:
        self.requests += 1
        if authorization != f"Bearer {_TOKEN}":
            return 401, {"kind": "Status", "reason": "Unauthorized"}
        asked = _PATH.fullmatch(path)
        if not self.may_read or not asked or asked[1] != "team":
            return 403, {"kind": "Status", "reason": "Forbidden"}
        if asked[2] not in self.workflows:
            return 404, {"kind": "Status", "reason": "NotFound"}
        return 200, self.workflows[asked[2]]


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
