"""Connections to a PACS, with the entry and the certificates of the settings."""

from __future__ import annotations

from typing import Any

import requests
from requests.adapters import HTTPAdapter

from .config import Web, secret


class _Adapter(HTTPAdapter):
    """Asks again at once when a connection ended: a PACS closes those that rested for a second.

    It may do so just when a request sets out. Each of ours may come twice.
    """

    def send(self, request: requests.PreparedRequest, **given: Any) -> requests.Response:  # type: ignore[override]
        try:
            return super().send(request, **given)
        except (requests.Timeout, requests.exceptions.SSLError):
            raise
        except requests.ConnectionError:
            return super().send(request, **given)


def session_of(web: Web) -> requests.Session:
    """A session with the entry and certificates of the settings.

    Raises
    ------
    InputError
        When a secret is not there.
    """
    session = requests.Session()
    for start in ("http://", "https://"):
        session.mount(start, _Adapter())
    session.trust_env = False  # the environment's proxies, passwords and authorities are not ours
    # A PACS that packs images for each answer (Orthanc does) takes ten times as long for them.
    session.headers["Accept-Encoding"] = "identity"
    if web.token:
        session.headers["Authorization"] = f"Bearer {secret(web.token)}"
    elif web.user:
        session.auth = (web.user, secret(web.password))
    if web.tls_ca:
        session.verify = web.tls_ca
    if web.tls_cert:
        session.cert = (web.tls_cert, web.tls_key or web.tls_cert)
    return session
