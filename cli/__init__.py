"""The command line `hilum`. Each command is a module; what a command needs it imports itself."""

from __future__ import annotations

import signal
import sys
from importlib import import_module
from typing import Annotated

import typer
from typer.exceptions import TyperException

import hilum
from hilum.client.malloc import keep_large_buffers

from .lazy import Command, lazy, single
from .streams import make_safe

COMMANDS = (
    "systems", "weights", "fetch-weights", "export", "engines", "serve", "status", "run", "bench",
    "doctor", "phantom", "compare", "summary", "gateway", "desk", "batch", "train",
)  # fmt: skip


def _load(name: str) -> Command:
    function = name.replace("-", "_")
    module = import_module(f".{function}", __name__)
    if hasattr(module, "app"):
        return typer.main.get_group(module.app)
    return single(name, getattr(module, function))


app = lazy(COMMANDS, _load, "Published chest-imaging systems on Triton. Not a medical device.")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hilum {hilum.__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Published chest-imaging systems on Triton. Not a medical device."""


def main() -> None:
    """Entry point of the `hilum` script."""
    make_safe()
    keep_large_buffers()
    try:
        sys.exit(app(standalone_mode=False))
    except TyperException as wrong:
        _say_what_is_wrong(wrong)
    except typer.Abort:
        sys.exit(128 + signal.SIGINT)
    except ModuleNotFoundError as missing:
        _say_what_to_install(missing)


def _say_what_is_wrong(wrong: TyperException) -> None:
    """End with one line for arguments that the command line does not take."""
    from .console import err

    text, context = wrong.format_message(), getattr(wrong, "ctx", None)
    if "\n" not in text:  # a group without a command has its help as text
        helps = f"; see {context.command_path} --help" if context is not None else ""
        text = f"error: {text.rstrip('.')}{helps}"
    err.print(text, markup=False, soft_wrap=True)
    sys.exit(wrong.exit_code)


def _say_what_to_install(missing: ModuleNotFoundError) -> None:
    """End with one line for a library of an extra; anything else that is missing is a fault."""
    from hilum.catalog.extras import remedy

    from .console import Exit, err

    wanted = remedy(missing.name or "")
    if wanted is None:
        raise missing
    err.print(f"error: this command needs {missing.name}, which is not installed: {wanted}",
              markup=False)  # fmt: skip
    sys.exit(Exit.WRONG_USE)
