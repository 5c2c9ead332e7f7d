"""`hilum summary`: lesions of every dlpe result of a folder, and what severity is worth."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from hilum.catalog.extras import require

from .console import errors_to_exit_codes, out

if TYPE_CHECKING:
    from hilum.postprocessing.dlpe.statistics import Relation


def summary(
    folder: Annotated[Path, typer.Argument(help="Results of one run of dlpe or several.")],
    table: Annotated[Path | None, typer.Option("--csv", help="Also write the table here.")] = None,
    relate: Annotated[
        tuple[str, str] | None,
        typer.Option(help="Two columns of numbers: their correlation over the studies."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Sum up severity and volume of lesions, and the noise ratio of absolute HU."""
    with errors_to_exit_codes():
        if relate is not None:
            require("--relate", "scipy")
        from hilum.postprocessing.dlpe.lesion_table import csv_text
        from hilum.results.atomic import whole_file
        from hilum.systems.dlpe.stored import columns, stored_below, summed_up

        rows, spread = summed_up(stored_below(folder))
        relation = None
        if relate is not None:
            from hilum.postprocessing.dlpe.statistics import related

            relation = related(*columns(rows, *relate))
        if table is not None:
            with whole_file(table) as partial:
                partial.write_text(csv_text(rows, rows[0]), encoding="utf-8")
        if as_json:
            report = {
                "studies": rows,
                "spread": None if spread is None else dataclasses.asdict(spread),
            }
            if relate is not None:
                report["relation"] = None if relation is None else dataclasses.asdict(relation)
            out.print(json.dumps(report, indent=2, allow_nan=False), markup=False)
            return
        _show(rows)
        if relate is not None:
            out.print(_relation_line(relation, *relate), markup=False)
        if spread is None:
            out.print("fewer than 3 studies with lesions: no spread", markup=False)
            return
        ratio = "–" if spread.noise_ratio is None else f"{spread.noise_ratio:.2f}"
        masking = "–" if spread.masking is None else f"{spread.masking:.2f}"
        out.print(
            f"{spread.scans} scans: baseline {spread.baseline_mean_hu:.1f} ± "
            f"{spread.baseline_std_hu:.1f} HU, median severity {spread.severity_mean_hu:.1f} ± "
            f"{spread.severity_std_hu:.1f} HU; noise ratio {ratio}, correlation of severity with "
            f"absolute HU {masking}",
            markup=False,
        )


def _relation_line(relation: Relation | None, x: str, y: str) -> str:
    if relation is None:
        return f"{y} over {x}: fewer than 3 studies with both, or one that never varies"
    low_high = relation.pearson_interval
    reach = "" if low_high is None else f" ({low_high[0]:.2f} to {low_high[1]:.2f})"
    return (
        f"{y} over {x}, {relation.scans} studies: {relation.slope:.4g} · x + "
        f"{relation.intercept:.4g}; Pearson {relation.pearson:.2f}{reach}, Spearman "
        f"{relation.spearman:.2f}, by chance with p = {relation.permutation_p:.3f}"
    )


def _show(rows: list[dict[str, Any]]) -> None:
    shown = Table(*rows[0], box=None, pad_edge=False)
    for row in rows:
        shown.add_row(*(_cell(value) for value in row.values()))
    out.print(shown)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
