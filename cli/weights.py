"""`hilum weights`: published checkpoints into the store, and what is in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from .console import chosen_system, err, errors_to_exit_codes, out

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Published checkpoints and the weights store."
)

Store = Annotated[
    Path | None,
    typer.Option(help="Weights store (default: HILUM_STORE, else the user's data folder)."),
]


@app.command("import")
def import_weights(
    system: Annotated[str, typer.Argument(help="Name of the system.")],
    path: Annotated[Path, typer.Argument(help="Folder with the published checkpoints.")],
    store: Store = None,
    allow_unknown: Annotated[
        bool,
        typer.Option("--allow-unknown", help="Take files that are not the published ones."),
    ] = False,
) -> None:
    """Check the published checkpoints below a folder and put them into the store."""
    from hilum.export import store as weights

    with errors_to_exit_codes():
        chosen = chosen_system(system)
        cards = weights.import_weights(
            chosen,
            path,
            store,
            lambda network: err.print(f"reading {network}", markup=False),
            allow_unknown=allow_unknown,
        )
        for card in cards:
            out.print(f"{card.network}: {card.tensors} tensors from {card.source}", markup=False)
        out.print(f"in {weights.store_folder(store)}", markup=False)
        networks = [n.name for n in chosen.networks]
        missing = [n for n in networks if weights.find_card(system, n, store) is None]
        if missing:
            out.print(f"still without weights: {', '.join(missing)}", markup=False)


@app.command("list")
def list_weights(store: Store = None) -> None:
    """Show the weights in the store, and the reference weights that come with Hilum."""
    from hilum.export import store as weights
    from hilum.export.reference import list_reference

    with errors_to_exit_codes():
        cards = weights.list_store(store)
        if not cards:
            out.print(
                f"no weights in {weights.store_folder(store)}; `hilum fetch-weights SYSTEM` says "
                "where the authors' are, `hilum weights import SYSTEM DIR` takes them",
                markup=False,
            )
        table = Table("system", "network", "source", "sha256", "of", box=None)
        for card in (*cards, *list_reference()):
            table.add_row(card.system, card.network, card.source, card.sha256[:12], card.date)
        out.print(table)
