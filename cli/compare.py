"""`hilum compare`: two results of one patient: lesions that went, stayed, came."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .console import errors_to_exit_codes, out


def compare(
    earlier: Annotated[Path, typer.Argument(help="A study's folder of an earlier dlpe run.")],
    later: Annotated[Path, typer.Argument(help="A study's folder of a later one.")],
    out_dir: Annotated[
        Path, typer.Option("--out", help="Folder for comparison.json, .csv and .png.")
    ] = Path("comparison"),
    pictures: Annotated[bool, typer.Option(help="Draw both scans side by side.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> None:
    """Compare two results of one patient; the scans are not registered."""
    with errors_to_exit_codes():
        from hilum.postprocessing.dlpe.lesion_table import csv_text
        from hilum.results.atomic import make_folder, whole_file
        from hilum.systems.dlpe.stored import compare as compared
        from hilum.systems.dlpe.stored import fate_rows, one_stored

        found = compared(one_stored(earlier), one_stored(later))
        make_folder(out_dir)
        text = json.dumps(found.report, indent=2, allow_nan=False)
        rows = [
            {"set": name, **row} for name, fates in found.fates.items() for row in fate_rows(fates)
        ]
        columns = ("set", "scan", "lesion_id", "voxels", "fate", "distance_mm")
        for name, content in (
            ("comparison.json", text),
            ("comparison.csv", csv_text(rows, columns)),
        ):
            with whole_file(out_dir / name) as partial:
                partial.write_text(content, encoding="utf-8")
        if pictures:
            from hilum.systems.dlpe.comparison_picture import draw_comparison

            sheet = draw_comparison(found, str(found.later.head.get("weights_note") or ""))
            with whole_file(out_dir / "comparison.png") as partial:
                sheet.save(partial)
        if as_json:
            out.print(text, markup=False)
            return
        for name, one in found.report["sets"].items():
            ratio = one["lesion_ratio_remaining"]
            left = "none before" if ratio is None else f"{ratio:.0%} of the volume remain"
            out.print(
                f"{name}: {left}; {one['resolved_lesions']} resolved, "
                f"{one['persisting_lesions']} persisting, {one['new_lesions']} new",
                markup=False,
            )
        if found.report["flags"]:
            out.print(f"flags: {', '.join(found.report['flags'])}", markup=False)
