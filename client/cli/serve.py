"""`hilum serve`: Triton in the foreground."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import Exit, default_repository, err, errors_to_exit_codes, out
from .doctor import refuse_broken

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
    queue_delay: Annotated[
        float | None,
        typer.Option(
            min=0, help="Milliseconds that networks wait to batch (default: as exported)."
        ),
    ] = None,
    http_host: Annotated[
        str | None, typer.Option(help="Address of HTTP (default: that of --host).")
    ] = None,
    grace: Annotated[
        float, typer.Option(min=0, help="Seconds for requests in flight when it is stopped.")
    ] = 10.0,
    drain: Annotated[
        float,
        typer.Option(
            min=0,
            help="Seconds between being told to stop and stopping; meanwhile the "
            "file `draining` in the state folder fails the container's health check.",
        ),
    ] = 0.0,
    gpus: Annotated[
        str | None,
        typer.Option(metavar="N,N", help="GPUs by nvidia-smi's numbers (default: all)."),
    ] = None,
    ignore_doctor: Annotated[
        bool, typer.Option("--ignore-doctor", help="Serve what `hilum doctor` calls broken.")
    ] = False,
    print_args: Annotated[
        bool, typer.Option("--print-args", help="Print the server's command line and stop.")
    ] = False,
) -> None:
    """Serve a model repository until Ctrl-C."""
    from ...server.arguments import Ports
    from ...server.foreground import draining, serve_foreground
    from ...server.gpus import choose
    from ...server.launcher import TritonServer

    with errors_to_exit_codes():
        folder = repository or default_repository()
        ports = Ports(grpc_port, metrics_port, http_port)
        if print_args:
            _print_args(folder, host, ports, http_host)
            return
        if gpus is not None:
            choose(gpus)
        if not ignore_doctor:
            refuse_broken(folder, host, model or None)
        server = TritonServer(
            folder, models=model or None, host=host, ports=ports,
            instances=instances, threads=threads, queue_delay_ms=queue_delay,
            http_host=http_host, grace=grace, drain=draining(drain),
        )  # fmt: skip
        code = serve_foreground(server, _ready, lambda line: err.print(line, markup=False))
        if code:
            err.print(f"the server ended by itself (exit code {code}); its log: {server.log}",
                      markup=False)  # fmt: skip
            raise typer.Exit(Exit.NO_SERVER)


def _print_args(repository: Path, host: str, ports: Ports, http_host: str | None) -> None:
    from ...server.arguments import Settings, print_args
    from ...server.find import find_server

    found = find_server()
    settings = Settings(repository.resolve(), "hilum", host, ports, http_host=http_host)
    out.print(print_args(found, settings), markup=False)
    if found.needs_backends:
        err.print("This server has no onnxruntime backend; `hilum serve` also gives it Hilum's.")


def _ready(server: TritonServer) -> None:
    out.print(f"ready: gRPC {server.grpc_url}, metrics {server.metrics_url}", markup=False)
    if server.staged is not None and server.staged.left_out:
        for name, reason in server.staged.left_out.items():
            out.print(f"not served: {name} ({reason})", markup=False)
