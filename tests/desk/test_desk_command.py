"""`hilum desk` on the command line: what it refuses before it begins."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from hilum.catalog.errors import InputError
from hilum.cli import desk as command
from hilum.cli.desk import desk


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"host": "0.0.0.0"}, "--tls-cert"),  # noqa: S104 - it is refused
        ({"host": "desk.example"}, "--token-file"),
        ({"tls_cert": Path("cert.pem")}, "belong together"),
        ({"max_upload": "much"}, "--max-upload much"),
        ({"keep": "soon"}, "--keep soon"),
        ({"gateway": Path("gateway.toml"), "url": ["a:1"]}, "takes no servers"),
        ({"name": ["*"]}, "whole names"),
        ({"url": ["127.0.0.1:1"], "repository": Path("models")}, "give one"),
    ],
)
def test_wrong_use_is_refused_in_one_line(
    given: dict[str, object], says: str, tmp_path: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with pytest.raises(typer.Exit) as ended:
        desk(**{"host": "127.0.0.1", "max_upload": "4GiB", "keep": "24h"} | given)  # type: ignore[arg-type]
    assert ended.value.exit_code == 2
    assert says in capfd.readouterr().err


def test_a_token_must_be_long(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("short\n")
    with pytest.raises(InputError, match="32 letters"):
        command._read_token(tmp_path / "token")
    (tmp_path / "token").write_text("x" * 32 + "\n")
    assert command._read_token(tmp_path / "token") == "x" * 32


def test_sizes_and_times_are_read_as_people_write_them() -> None:
    assert command._bytes("600MB") == 600_000_000
    assert command._bytes("1.5 GiB") == 3 * 2**29
    assert (command._hours("24h"), command._hours("7d")) == (24, 168)
