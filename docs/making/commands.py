"""The reference of the command line, from Typer's own declarations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer

from hilum.cli import app

Option = tuple[str, str]
"""How an option is written, and its help."""


def commands() -> Iterator[tuple[str, Any, Any]]:
    """Every command with its words, itself and its context, groups before what is in them."""
    yield from _below("hilum", typer.main.get_group(app), None)


def _below(words: str, command: Any, parent: Any) -> Iterator[tuple[str, Any, Any]]:
    context = command.context_class(command, info_name=words.rpartition(" ")[2], parent=parent)
    yield words, command, context
    for name in command.list_commands(context) if hasattr(command, "list_commands") else ():
        yield from _below(f"{words} {name}", command.get_command(context, name), context)


def options(command: Any, context: Any) -> list[Option]:
    """Arguments and options of a command, without ``--help``."""
    found = (parameter.get_help_record(context) for parameter in command.get_params(context))
    return [one for one in found if one is not None and one[0] != "--help"]


def page() -> str:
    """All commands: usage, help, and a list of arguments and options."""
    known = list(commands())
    common = _common([options(c, x) for w, c, x in known if w.startswith("hilum run ")])
    parts: list[str] = []
    for words, command, context in known[1:]:
        own = options(command, context)
        if words.startswith("hilum run "):
            own = [one for one in own if one not in common]
        parts += [f"{'#' * (words.count(' ') + 1)} {words}", _usage(command, context)]
        parts += [_escaped(command.help or ""), _list(own)]
        if words == "hilum run":
            parts += ["Every system has these options; its own follow.", _list(common)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _common(sets: list[list[Option]]) -> list[Option]:
    """What all have, in the order of the first."""
    return [one for one in sets[0] if all(one in others for others in sets)]


def _usage(command: Any, context: Any) -> str:
    pieces = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    return f"```text\n{pieces}\n```"


def _list(found: list[Option]) -> str:
    return "\n\n".join(f"`{written}`\n:   {_escaped(text) or '–'}" for written, text in found)


def _escaped(text: str) -> str:
    """Help as Markdown: what is in backticks stays, the rest is text."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    special = re.compile(r"([\\*_<\[\]#|])")
    return "".join(p if p.startswith("`") else special.sub(r"\\\1", p) for p in parts)
