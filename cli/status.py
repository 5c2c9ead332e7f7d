"""`hilum status`: which servers run, what they serve, how many requests they had."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import Exit, errors_to_exit_codes, out

if TYPE_CHECKING:
    from hilum.client.client import Client


def status(
    url: Annotated[
        list[str] | None,
        typer.Option(help="gRPC address of a server; may be repeated (default: your own here)."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show servers, their models, and their requests. Exit code 3: one of them does not answer."""
    from hilum.server.records import running

    with errors_to_exit_codes():
        records = {record["grpc"]: record for record in running()}
        urls = [one for given in url or () for one in given.split(",")] or list(records)
        servers = [_server(one, records.get(one, {})) for one in urls]
    if as_json:
        out.print(json.dumps({"servers": servers}, indent=2), markup=False)
    elif not servers:
        out.print("no server of yours runs on this machine; start one with `hilum serve`")
    for server in servers if not as_json else ():
        _show(server)
    if not servers or any(not server["ready"] for server in servers):
        raise typer.Exit(Exit.NO_SERVER)


def _server(url: str, record: dict[str, Any]) -> dict[str, Any]:
    """What one server says; `problem` holds why it does not."""
    from hilum.catalog.errors import ConnectionFailed, InferenceFailed
    from hilum.client.client import Client

    server: dict[str, Any] = {"url": url, "ready": False, **record}
    server.pop("grpc", None)
    server.pop("models", None)
    with Client(url, connect_window_s=1.0, retry_window_s=1.0, transport="grpc") as client:
        try:
            described = client.describe()
            server |= {"name": described["name"], "version": described["version"]}
            server["models"] = _models(client)
            server["ready"] = client.ready()
        except (ConnectionFailed, InferenceFailed) as error:
            server["problem"] = str(error)
    return server


def _models(client: Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for state in client.repository():
        entry: dict[str, Any] = {"name": state.name, "state": state.state}
        if state.state == "READY":
            counted = client.statistics(state.name)
            mean = 1e3 * counted.success_s / counted.successes if counted.successes else None
            entry |= {
                "requests": counted.successes,
                "failed": counted.failures,
                "mean_ms": None if mean is None else round(mean, 3),
            }
        else:
            entry["reason"] = state.reason
        found.append(entry)
    return found


def _show(server: dict[str, Any]) -> None:
    if "problem" in server:
        out.print(f"{server['url']}: {server['problem']}", markup=False)
        return
    state = "ready" if server["ready"] else "not ready"
    out.print(f"{server['url']}: {state}, Triton {server['version']}", markup=False)
    width = max((len(model["name"]) for model in server["models"]), default=0)
    for model in server["models"]:
        line = f"  {model['name']:{width}}  {model['state'].lower()}"
        if "requests" in model:
            line += f", {model['requests']} requests, {model['failed']} failed"
            if model["mean_ms"] is not None:
                line += f", {model['mean_ms']:.3g} ms each"
        out.print(line, markup=False)
