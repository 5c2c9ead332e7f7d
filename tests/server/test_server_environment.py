"""The environment of a server that is started."""

from __future__ import annotations

import pytest

from hilum.server.binary import find_server
from hilum.server.environment import MALLOC, server_environment


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, "glibc.malloc.hugetlb=1"),
        ("glibc.malloc.check=1", "glibc.malloc.check=1:glibc.malloc.hugetlb=1"),
        ("glibc.malloc.hugetlb=0", "glibc.malloc.hugetlb=0"),
    ],
)
def test_tunables_of_the_user_are_kept(
    monkeypatch: pytest.MonkeyPatch, given: str | None, expected: str
) -> None:
    if given is None:
        monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    else:
        monkeypatch.setenv("GLIBC_TUNABLES", given)
    environment = server_environment(find_server().binary)
    assert environment["GLIBC_TUNABLES"] == expected
    assert environment.items() >= MALLOC.items()
