"""`hilum serve`: Triton in the foreground."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import default_repository, err, errors_to_exit_codes, out
from .doctor import refuse_broken

if TYPE_CHECKING:
    from hilum.server.arguments import Settings
    from hilum.server.launcher import TritonServer


def serve(
    repository: Annotated[
        Path | None, typer.Option(help="Model repository (default: the checkout's).")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Only these Triton models and what they call; may be repeated."),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            help="Address to bind. On the loopback only your own processes are let in; elsewhere "
            "nobody is asked who they are."
        ),
    ] = "127.0.0.1",
    group: Annotated[
        str | None,
        typer.Option(
            help="Let members of this group in as well, on the loopback. Triton would open shared "
            "memory of others for them, so it is closed then."
        ),
    ] = None,
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
            help="Seconds between the request to stop and stopping; meanwhile the "
            "file `draining` in the state folder fails the container's health check.",
        ),
    ] = 0.0,
    connection_age: Annotated[
        float | None,
        typer.Option(
            min=1,
            help="Seconds after which a client has to connect again, and so finds servers that "
            "were added behind its name (default: never).",
        ),
    ] = None,
    gpus: Annotated[
        str | None,
        typer.Option(metavar="N,N", help="GPUs by nvidia-smi's numbers (default: all)."),
    ] = None,
    ignore_doctor: Annotated[
        bool, typer.Option("--ignore-doctor", help="Serve what `hilum doctor` calls broken.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Show Triton's log (it is in a file in any case).")
    ] = False,
    print_args: Annotated[
        bool, typer.Option("--print-args", help="Print the server's command line and stop.")
    ] = False,
) -> None:
    """Serve a model repository until Ctrl-C; start Triton again when a part of it dies."""
    from hilum.server.arguments import Ports, Settings, bare, exit_timeout
    from hilum.server.foreground import draining, serve_foreground
    from hilum.server.gpus import choose
    from hilum.server.launcher import TritonServer

    with errors_to_exit_codes():
        folder = repository or default_repository()
        ports = Ports(grpc_port, metrics_port, http_port)
        if print_args:
            settings = Settings(
                folder.resolve(), "hilum", bare(host), ports, http_host=http_host,
                exit_timeout=exit_timeout(grace), connection_age=connection_age,
            )  # fmt: skip
            _print_args(settings)
            return
        if gpus is not None:
            choose(gpus)
        server = TritonServer(
            folder, models=model or None, host=host, group=group, ports=ports,
            instances=instances, threads=threads, queue_delay_ms=queue_delay,
            http_host=http_host, grace=grace, drain=draining(drain),
            connection_age=connection_age,
        )  # fmt: skip
        server.check_ports()
        if not ignore_doctor:
            refuse_broken(folder, host, model or None)
        serve_foreground(server, _ready, _say if verbose else None, _say)


def _say(line: str) -> None:
    err.print(line, markup=False)


def _print_args(settings: Settings) -> None:
    from hilum.server.arguments import print_args
    from hilum.server.binary import find_server

    found = find_server()
    out.print(print_args(found, settings), markup=False)
    if found.needs_backends:
        err.print("This server has no onnxruntime backend; `hilum serve` also gives it Hilum's.")


def _ready(server: TritonServer) -> None:
    addresses = [f"gRPC {server.grpc_url}", f"metrics {server.metrics_url}"]
    if server.http_url is not None:
        addresses.insert(1, f"HTTP {server.http_url}")
    out.print(f"ready: {', '.join(addresses)}", markup=False)
    if server.staged is not None and server.staged.left_out:
        for name, reason in server.staged.left_out.items():
            out.print(f"not served: {name} ({reason})", markup=False)
