"""The command line `hilum`. Each command is a module; what a command needs it imports itself."""

from __future__ import annotations

from importlib import import_module

import typer

from ..memory import keep_large_buffers
from .lazy import Command, lazy, single

COMMANDS = (
    "systems", "weights", "export", "engines", "serve", "run", "bench", "doctor", "phantom",
)  # fmt: skip


def _load(name: str) -> Command:
    module = import_module(f".{name}", __name__)
    if hasattr(module, "app"):
        return typer.main.get_group(module.app)
    return single(name, getattr(module, name))


app = lazy(COMMANDS, _load, "Published chest-imaging systems on Triton. Not a medical device.")


def main() -> None:
    """Entry point of the `hilum` script."""
    keep_large_buffers()
    app()
