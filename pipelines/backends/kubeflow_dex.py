"""The login page of Dex, which Kubeflow's manifests put before the cluster: a user and password for a session's cookie.

A browser's way: the gateway (oauth2-proxy, or oidc-authservice before Kubeflow 1.9) redirects to Dex, Dex's form takes
the user and password and redirects back, and the gateway sets the cookie of the session.
"""

from __future__ import annotations

import re
import urllib.parse

import requests

from pipelines.backends.base import SignInError
from tf_image_classification.errors import FlagError, UnavailableError

_SECONDS = 30


def log_in(host: str, user: str, password: str, ca_file: str = "") -> str:
    """The Cookie header of a new session.

    Args:
        host: address of Kubeflow's API.
        user: of Dex's password database or LDAP, mostly an e-mail address.
        ca_file: certificates of authorities; '' for the usual ones.

    Raises:
        FlagError: there is no password.
        SignInError: the user and password are refused, or the login page is not Dex's.
        UnavailableError: an address cannot be reached.
    """
    if not password:
        raise FlagError("$KF_PIPELINES_PASSWORD is required", hint="It is that of $KF_PIPELINES_USERNAME.")
    with requests.Session() as session:
        session.verify = ca_file or True
        try:
            form = _login_form(session, host)
            answer = session.post(form, data={"login": user, "password": password}, timeout=_SECONDS)
            if urllib.parse.urlsplit(answer.url).path.endswith("/approval"):  # of the gateway's access, where Dex asks
                answer = session.post(answer.url, data={"approval": "approve"}, timeout=_SECONDS)
        except requests.RequestException as error:
            raise UnavailableError(
                "Dex's login page cannot be reached; cannot sign in",
                received=_without_query(error.request.url if error.request else host, type(error).__name__),
                hint="Check --host, --ca_file and the network.",
            ) from None
        if answer.status_code >= 400 or urllib.parse.urlsplit(answer.url).path.endswith("/login"):
            raise SignInError(
                "Dex refuses the user and password",
                received=f"{answer.status_code} from {_without_query(answer.url)}",
                hint="Check $KF_PIPELINES_USERNAME and $KF_PIPELINES_PASSWORD.",
            )
        cookies = requests.cookies.get_cookie_header(session.cookies, requests.Request("GET", host).prepare())
    if not cookies:
        raise SignInError("Dex's login set no cookie for --host", received=_without_query(answer.url))
    return cookies


def _login_form(session: requests.Session, host: str) -> str:
    """The address of Dex's form for a user and password."""
    page = session.get(host, timeout=_SECONDS)
    if page.url.partition("?")[0].endswith("/oauth2/sign_in"):  # a page with a button
        start = urllib.parse.urljoin(page.url, "start")
        page = session.get(start, params={"rd": urllib.parse.urlsplit(host).path or "/"}, timeout=_SECONDS)
    parts = urllib.parse.urlsplit(page.url)
    if parts.path.endswith("/auth"):  # a page with a button for each connector
        connectors = re.findall(r'href="([^"]*/auth/(?:local|ldap)\b[^"]*)"', page.text)
        if connectors:
            target = urllib.parse.urljoin(page.url, connectors[0].replace("&amp;", "&"))
            page = session.get(target, timeout=_SECONDS)
            parts = urllib.parse.urlsplit(page.url)
    if not re.search(r"/auth/[^/]+/login$", parts.path):
        raise SignInError(
            "The login page before Kubeflow is not Dex's form for a user and password",
            received=f"{page.status_code} from {_without_query(page.url)}",
            hint="Sign in with a browser and give the cookie of its session: --cookie_file FILE.",
        )
    return page.url


def _without_query(url: str | None, more: str = "") -> str:
    """An address for a message: queries of a login hold its state."""
    return " ".join(filter(None, [str(url).partition("?")[0], more]))
