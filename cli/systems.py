"""`hilum systems`: what there is, its networks, published figures, weights at hand."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from hilum.catalog import SYSTEMS, Figure, Network, System

from .console import errors_to_exit_codes, out


def systems(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    store: Annotated[Path | None, typer.Option(help="Weights store to look into.")] = None,
) -> None:
    """Show the systems, their networks, published figures and the weights at hand."""
    with errors_to_exit_codes():
        at_hand = _weights_at_hand(store)
        if as_json:
            out.print(
                json.dumps([_describe(s, at_hand) for s in SYSTEMS.values()], indent=2),
                markup=False,
            )
            return
        for system in SYSTEMS.values():
            _show(system, at_hand)


def _weights_at_hand(store: Path | None) -> set[tuple[str, str]]:
    from hilum.export.store import list_store

    return {(card.system, card.network) for card in list_store(store)}


def _describe(system: System, at_hand: set[tuple[str, str]]) -> dict[str, object]:
    return {
        "name": system.name,
        "title": system.title,
        "summary": system.summary,
        "paper": system.paper,
        "published": [dataclasses.asdict(f) for f in system.published],
        "networks": [
            {
                "name": n.name,
                "model": n.model,
                "title": n.title,
                "sizes": dict(n.sizes),
                "published": [dataclasses.asdict(f) for f in n.published],
                "weights": (system.name, n.name) in at_hand,
            }
            for n in system.networks
        ],
        "ensembles": [e.model for e in system.ensembles],
    }


def _figures(figures: tuple[Figure, ...]) -> str:
    return ", ".join(f"{f.quantity} {f.value:g} {f.unit}".strip() for f in figures)


def _side(network: Network) -> str:
    """Side of the square that the network itself sees, in pixels."""
    sizes = network.sizes
    return str(sizes.get("S", max(sizes.values(), default="any")))


def _show(system: System, at_hand: set[tuple[str, str]]) -> None:
    out.print(f"[bold]{system.name}[/]  {system.summary}\n{system.paper}")
    table = Table("network", "what", "input", "published", "weights", box=None, pad_edge=False)
    for network in system.networks:
        table.add_row(
            network.name,
            network.title,
            _side(network),
            _figures(network.published),
            "in the store" if (system.name, network.name) in at_hand else "none (random only)",
        )
    out.print(table)
    hardware = {f.hardware for n in system.networks for f in n.published if f.hardware}
    if hardware:
        out.print(f"Published on: {', '.join(sorted(hardware))}")
    origins: dict[str, list[Figure]] = {}
    for figure in system.published:
        where = ", ".join(part for part in (figure.hardware, figure.source) if part)
        origins.setdefault(where, []).append(figure)
    for where, figures in origins.items():
        out.print(f"Published ({where}): {_figures(tuple(figures))}", markup=False)
    out.print()
