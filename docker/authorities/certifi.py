"""The certificate authorities that this system trusts, for requests, which asks certifi for a list.

certifi's own list is under the MPL 2.0 and does not change with the system; the image holds neither
it nor a copy.
"""

from __future__ import annotations

from pathlib import Path

_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")


def where() -> str:
    """The file of the authorities."""
    return str(_AUTHORITIES)


def contents() -> str:
    """What is in it."""
    return _AUTHORITIES.read_text()
