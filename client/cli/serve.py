"""`hilum serve`: Triton in the foreground."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import Exit, default_repository, err, errors_to_exit_codes, out

if TYPE_CHECKING:
    from ...server.arguments import Ports
    from ...server.launcher import TritonServer


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
        folder = repository or default_repository()
        ports = Ports(grpc_port, metrics_port, http_port)
        if print_args:
            _print_args(folder, host, ports)
            return
        server = TritonServer(
            folder, models=model or None, host=host, ports=ports,
            instances=instances, threads=threads,
        )  # fmt: skip
        code = serve_foreground(server, _ready, lambda line: err.print(line, markup=False))
        if code:
            err.print(f"the server ended by itself (exit code {code}); its log: {server.log}",
                      markup=False)  # fmt: skip
            raise typer.Exit(Exit.NO_SERVER)


def _print_args(repository: Path, host: str, ports: Ports) -> None:
    from ...server.arguments import Settings, print_args
    from ...server.find import find_server

    found = find_server()
    out.print(print_args(found, Settings(repository.resolve(), "hilum", host, ports)), markup=False)
    if found.needs_backends:
        err.print("This server has no onnxruntime backend; `hilum serve` also gives it Hilum's.")


def _ready(server: TritonServer) -> None:
    out.print(f"ready: gRPC {server.grpc_url}, metrics {server.metrics_url}", markup=False)
    if server.staged is not None and server.staged.left_out:
        for name, reason in server.staged.left_out.items():
            out.print(f"not served: {name} ({reason})", markup=False)
