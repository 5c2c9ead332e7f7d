"""Messages of errors."""

from __future__ import annotations

import hilum
from hilum.catalog import errors
from hilum.catalog.errors import MAX_CHARACTERS, MAX_LINES, InputError, WeightsError


def test_no_message_is_longer_than_a_screen() -> None:
    long = str(InputError("begin " + "x" * 100_000 + " end"))
    assert len(long) <= MAX_CHARACTERS
    assert long.startswith("begin")
    assert long.endswith("end")
    many = str(WeightsError("\n".join(f"line {i}" for i in range(500))))
    assert len(many.splitlines()) <= MAX_LINES
    assert "more lines" in many
    assert many.endswith("line 499")


def test_a_program_finds_every_error_where_it_finds_the_client() -> None:
    raised = {n for n, one in vars(errors).items() if isinstance(one, type)}
    assert {"HilumError", "OutOfMemory"} < raised
    assert raised <= set(hilum.__all__)
    assert all(getattr(hilum, name) is getattr(errors, name) for name in raised)


def test_short_messages_are_kept() -> None:
    assert str(InputError("the file is empty; transfer it again")) == (
        "the file is empty; transfer it again"
    )
