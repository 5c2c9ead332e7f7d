"""The command line `hilum`. Each command is a module; what a command needs it imports itself."""

from __future__ import annotations

import typer

from ..memory import keep_large_buffers
from . import bench, doctor, engines, export, phantom, run, serve, systems, weights

app = typer.Typer(
    name="hilum",
    help="Published chest-imaging systems on Triton. Not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
app.command("systems")(systems.systems)
app.add_typer(weights.app, name="weights")
app.command("export")(export.export)
app.add_typer(engines.app, name="engines")
app.command("serve")(serve.serve)
app.add_typer(run.app, name="run")
app.add_typer(bench.app, name="bench")
app.command("doctor")(doctor.doctor)
app.add_typer(phantom.app, name="phantom")


def main() -> None:
    """Entry point of the `hilum` script."""
    keep_large_buffers()
    app()
