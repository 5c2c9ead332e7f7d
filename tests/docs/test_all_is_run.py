"""Every block of code and every whole command of the manual is run by a test, or made by one."""

from __future__ import annotations

import pytest
from manual import MANUAL, RECORDS, blocks, commands, taken

BELOW, WHOLE, INLINE = taken()
GENERATED = "docs/reference/commands.md"


@pytest.mark.parametrize("page", [page for page in MANUAL if page not in WHOLE])
def test_a_test_takes_every_block(page: str) -> None:
    left = {(block.heading, block.kind) for block in blocks(page)}
    left -= {(heading, kind) for where, heading, kind in BELOW if where == page}
    assert not left


@pytest.mark.parametrize("page", [page for page in MANUAL if not RECORDS.fullmatch(page)])
def test_a_test_takes_every_command_of_the_sentences(page: str) -> None:
    left = {code for code in commands(page) if not code.startswith("docker ")}
    assert not left - {code for where, code in INLINE if where == page}


def test_what_tests_take_is_there() -> None:
    assert {page for page, *_ in BELOW} | WHOLE | {page for page, _ in INLINE} <= set(MANUAL)
