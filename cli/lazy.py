"""Groups of commands that are imported when they are called: the command line starts at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import typer
from typer.core import TyperGroup

Command = Any
"""A command of Click, which Typer may bring along itself."""


def lazy(names: Iterable[str], load: Callable[[str], Command], text: str) -> typer.Typer:
    """A group whose commands are made when they are asked for.

    Parameters
    ----------
    names
        Of the commands, in the order of the help.
    load
        Makes the command of a name.
    text
        What the help says about the group.
    """
    known = tuple(names)

    class Group(TyperGroup):
        def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
            return list(known)

        def get_command(self, ctx: Any, cmd_name: str) -> Command | None:  # noqa: ARG002
            return load(cmd_name) if cmd_name in known else None

    group = typer.Typer(
        cls=Group, help=text, no_args_is_help=True, add_completion=False, rich_markup_mode=None
    )
    group.callback()(lambda: None)  # a group without commands of its own needs one
    return group


def single(name: str, function: Callable[..., object]) -> Command:
    """A function as a command by itself."""
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    alone.command(name)(function)
    return typer.main.get_command(alone)
