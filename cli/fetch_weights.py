"""`hilum fetch-weights`: where the authors' checkpoints are, and those that can be had, fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hilum.catalog.errors import WeightsError
from hilum.catalog.sources import SOURCES, Source

from .console import chosen_system, err, errors_to_exit_codes, out


def fetch_weights(
    system: Annotated[str, typer.Argument(help="Name of the system.")],
    folder: Annotated[
        Path | None,
        typer.Option("--out", help="Download to this folder; without it, only say where they are."),
    ] = None,
    store: Annotated[Path | None, typer.Option(help="Weights store to import into.")] = None,
    mirror: Annotated[
        str | None,
        typer.Option(help="Address of a copy: https://HOST/PATH is asked for as MIRROR/HOST/PATH."),
    ] = None,
) -> None:
    """Say where the authors' checkpoints are; with --out download and import them."""
    with errors_to_exit_codes():
        chosen = chosen_system(system)
        source = SOURCES[chosen.name]
        _show(source)
        if folder is None:
            return
        if not source.fetched:
            raise WeightsError(_by_hand(system, source))
        from hilum.export.fetch import fetch
        from hilum.export.store import import_weights

        shown = dict[str, int]()

        def say(name: str, done: int, whole: int | None) -> None:
            tenth = 10 * done // whole if whole else done >> 24
            if shown.get(name) != tenth:
                shown[name] = tenth
                of = f" of {whole / 1e6:.1f}" if whole else ""
                err.print(f"{name}: {done / 1e6:.1f}{of} MB", markup=False)

        for path in fetch(source, folder, mirror=mirror, progress=say):
            out.print(f"{path}", markup=False)
        for card in import_weights(chosen, folder, store):
            out.print(f"{card.network}: {card.tensors} tensors from {card.source}", markup=False)


def _show(source: Source) -> None:
    out.print(f"where: {source.where}", markup=False)
    out.print(f"licence: {source.licence}", markup=False)
    for file in source.files:
        size = "size not published" if file.bytes is None else f"{file.bytes / 1e6:.1f} MB"
        out.print(f"file: {file.name}, {size}, sha256 {file.sha256}", markup=False)
        out.print(f"  {file.url}", markup=False)
    if source.zenodo is not None:
        out.print("files: as the record lists them, with sizes and checksums", markup=False)
    for title, text in (("by hand", source.by_hand), ("missing", source.missing)):
        if text:
            out.print(f"{title}: {text}", markup=False)


def _by_hand(system: str, source: Source) -> str:
    if source.by_hand:
        return (
            f"nothing of {system} can be downloaded by a program: {source.by_hand}; then "
            f"`hilum weights import {system} FOLDER`"
        )
    return f"there is nothing to download for {system}: {source.missing}"
