"""`hilum serve`: Triton in the foreground."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import Exit, default_repository, err, errors_to_exit_codes, out


def serve(
    repository: Annotated[
        Path | None, typer.Option(help="Model repository (default: the checkout's).")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Only these Triton models and what they call; may be repeated."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to bind. Triton asks nobody who they are.")
    ] = "127.0.0.1",
    grpc_port: Annotated[int, typer.Option(help="Port of gRPC.")] = 8001,
    metrics_port: Annotated[int, typer.Option(help="Port of the Prometheus metrics.")] = 8002,
    http_port: Annotated[int | None, typer.Option(help="Port of HTTP (default: off).")] = None,
    instances: Annotated[
        int | None, typer.Option(min=1, help="Copies of each network (default: by cores).")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of each copy (default: by cores).")
    ] = None,
    print_args: Annotated[
        bool, typer.Option("--print-args", help="Print the server's command line and stop.")
    ] = False,
) -> None:
    """Serve a model repository until Ctrl-C."""
    from ...server.arguments import Ports
    from ...server.foreground import serve_foreground
    from ...server.launcher import TritonServer

    with errors_to_exit_codes():
        server = TritonServer(
            repository or default_repository(),
            models=model or None,
            host=host,
            ports=Ports(grpc_port, metrics_port, http_port),
            instances=instances,
            threads=threads,
        )
        if print_args:
            for argument in server.command():
                out.print(argument, markup=False)
            return
        code = serve_foreground(server, _ready, lambda line: err.print(line, markup=False))
        if code:
            err.print(f"the server ended by itself (exit code {code}); its log: {server.log}",
                      markup=False)  # fmt: skip
            raise typer.Exit(Exit.NO_SERVER)


def _ready(server: object) -> None:
    out.print(f"ready: gRPC {server.grpc_url}", markup=False)  # type: ignore[attr-defined]
