"""`hilum bench scale` and `hilum bench perf-analyzer`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from ...catalog.errors import InputError
from .console import err, errors_to_exit_codes, out

Out = Annotated[Path, typer.Option("--out", help="Folder for record, tables and page.")]
Repository = Annotated[
    Path | None, typer.Option(help="Exported repository (default: exported for the run).")
]
Weights = Annotated[str, typer.Option(help="random or store.")]


def scale(
    system: Annotated[str, typer.Argument(help="System whose studies are sent.")],
    out_dir: Out,
    instances: Annotated[
        str, typer.Option(help="Copies of each network on one server, with commas.")
    ] = "1,2,4",
    servers: Annotated[str, typer.Option(help="Numbers of servers, with commas.")] = "1,2",
    balance: Annotated[
        list[str] | None,
        typer.Option(help="round-robin (by the client) or haproxy; may be repeated."),
    ] = None,
    predict: Annotated[str, typer.Option(help="Numbers of servers to predict, with commas.")] = "8",
    transport: Annotated[str, typer.Option(help="grpc, as between machines, auto or shm.")] = (
        "grpc"
    ),
    seconds: Annotated[
        float | None, typer.Option(min=0, help="Of one round (default: 10, quick 4).")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Interleaved rounds (default: 5, quick 3).")
    ] = None,
    repository: Repository = None,
    weights: Weights = "random",
    quick: Annotated[bool, typer.Option("--quick", help="Short rounds, small studies.")] = False,
) -> None:
    """Throughput against instances and servers, and a model that predicts more servers."""
    from ...benchmarks import scale as bench
    from ...benchmarks.instrument.deployment import Choice
    from ...benchmarks.scale_fleet import Balance
    from ...benchmarks.scale_tables import write
    from ..options import TransportChoice

    with errors_to_exit_codes():
        usual = (4.0, 3, 10.0) if quick else (10.0, 5, 30.0)
        plan = bench.Plan(
            system=system, instances=_counts(instances), servers=_counts(servers),
            balances=cast("list[Balance]", balance or ["round-robin"]), predict=_counts(predict),
            seconds=seconds or usual[0], rounds=rounds or usual[1], warm_up_seconds=usual[2],
            quick=quick,
            choice=Choice(
                repository=repository, weights=weights,
                transport=cast("TransportChoice", transport),
            ),
        )  # fmt: skip
        out.print(write(bench.measure(plan, _say), out_dir), markup=False)


def perf_analyzer(
    system: Annotated[str, typer.Argument(help="System, or identity: what is sent comes back.")],
    out_dir: Out,
    tool: Annotated[
        Path | None, typer.Option("--perf-analyzer", help="The program (default: in PATH).")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Triton model of the system (default: that moves most).")
    ] = None,
    size: Annotated[int, typer.Option(min=1, help="Bytes, of identity.")] = 1024,
    concurrency: Annotated[
        list[int] | None, typer.Option(min=1, help="Requests in work (default: 1, 4).")
    ] = None,
    transport: Annotated[str, typer.Option(help="grpc or shm, of both.")] = "grpc",
    seconds: Annotated[
        float | None, typer.Option(min=0, help="Of one round (default: 10, quick 3).")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Interleaved rounds (default: 5, quick 3).")
    ] = None,
    repository: Repository = None,
    weights: Weights = "random",
    url: Annotated[
        str | None, typer.Option(help="HOST:PORT of a Triton's gRPC; without it one is started.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Short rounds, small studies.")] = False,
) -> None:
    """NVIDIA's perf_analyzer and our client on the same model, and what makes the difference."""
    from ...benchmarks import perf_analyzer as bench
    from ...benchmarks.instrument.deployment import Choice
    from ...benchmarks.scale_tables import write
    from ..options import TransportChoice

    with errors_to_exit_codes():
        usual = (3.0, 3) if quick else (10.0, 5)
        plan = bench.Plan(
            system=system, model=model, size=size, concurrencies=concurrency or (1, 4),
            seconds=seconds or usual[0], rounds=rounds or usual[1], quick=quick, tool=tool,
            choice=Choice(url, repository, weights, cast("TransportChoice", transport)),
        )  # fmt: skip
        out.print(write(bench.measure(plan, _say), out_dir), markup=False)


def _counts(text: str) -> list[int]:
    """Numbers from ``1,2,4``."""
    try:
        return sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise InputError(f"{text!r} are no numbers; write 1,2,4") from None


def _say(text: str) -> None:
    err.print(text, markup=False)
