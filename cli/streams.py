"""Standard output and error that nothing can break: closed pipes, ASCII, escape sequences."""

from __future__ import annotations

import codecs
import errno
import os
import re
import sys
from io import TextIOWrapper
from typing import Any

from rich.console import Console

_SPELLED = {"–": "-", "−": "-", "—": "-", "×": "x", "…": "...", "≥": ">=", "≤": "<=", "→": "->",
            "·": "*", "±": "+-", "µ": "u", "³": "^3", "²": "^2", "°": " degrees"}  # fmt: skip
"""What characters become on a terminal that does not have them."""

_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Control characters, and those that turn the direction of text; not tab and newline."""

_GONE = (errno.EPIPE, errno.EBADF, errno.EIO)
"""Errors of an output that nobody reads any more."""


def make_safe() -> None:
    """Let any text be written to standard output and error, also where they are closed."""
    codecs.register_error("hilum", _respelled)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started the program
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123 - for as long as it runs
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="hilum")


def visible(text: str) -> str:
    """Text whose control characters are shown and not obeyed: names of files may hold any."""
    return _UNSEEN.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


class SafeConsole(Console):
    """A console that shows control characters, and goes silent when nobody listens any more."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print; see `rich.console.Console.print`."""
        super().print(*(visible(o) if isinstance(o, str) else o for o in objects), **options)

    def _check_buffer(self) -> None:
        try:
            super()._check_buffer()
        except OSError as failure:
            if failure.errno not in _GONE:
                raise
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        """Go on without output: what is computed is on the disk."""
        self.quiet = True
        del self._buffer[:]
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.file.fileno())
        os.close(nowhere)


def _respelled(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_SPELLED.get(character, "?") for character in text), error.end
