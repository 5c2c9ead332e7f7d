"""Measured figures out of earlier records, for a paper table that measures nothing itself."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..catalog import cxr_severity, dlpe
from ..catalog.errors import InputError
from .instrument.machine import described
from .instrument.record import SCHEMA, Lane, Record, read
from .target_measures import CPU_MEMORY, REFINEMENT, SCAN_TIME, THROUGHPUT
from .target_rows import EXTRAPOLATED, Measured, from_row

GB = 1e9

Report = Mapping[str, Any]


def measured_in(paths: Sequence[Path]) -> list[Measured]:
    """What earlier runs measured; of one figure in several files, the last one counts.

    Takes records of `hilum bench targets` and `load`, and the bench.json of `hilum bench
    cxr-severity` and `dlpe`.

    Raises
    ------
    InputError
        For a file that is none of these, or holds no figure of the table.
    """
    found: dict[tuple[str, str, str], Measured] = {}
    for path in paths:
        own = list(_measured(path))
        if not own:
            raise InputError(
                f"{path} holds no figure that a publication documents; give records of `hilum "
                "bench targets`, `load`, `cxr-severity` or `dlpe`"
            )
        found.update({(m.system, m.network, m.quantity): m for m in own})
    return list(found.values())


def _measured(path: Path) -> Iterator[Measured]:
    content = _content(path)
    if content.get("schema") == SCHEMA:
        record = read(path)
        for row in record.tables.get("measured", ()):
            yield from_row(row, path.name)
        if record.kind == "load":
            for lane in record.lanes:
                yield from _of_lane(lane, record)
        return
    try:
        yield from _of_report(content)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is no benchmark's record as this version writes it ({error!r}); measure again"
        ) from None


def _content(path: Path) -> Report:
    try:
        content = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is no benchmark's record: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} is no benchmark's record: it holds no object")
    return content


def _of_lane(lane: Lane, record: Record) -> Iterator[Measured]:
    """Images per second of a lane of `hilum bench load cxr-severity`, of its default network."""
    if list(lane.systems) != [cxr_severity.SYSTEM.name] or lane.loop != "closed":
        return
    yield Measured(
        system=cxr_severity.SYSTEM.name,
        network=cxr_severity.DEFAULT_NETWORK,
        quantity=THROUGHPUT,
        value=lane.summary.per_second.value,
        unit="images/s",
        hardware=described(record.machine),
        gpu=bool(record.machine.gpus),
        weights=lane.weights,
        precision=lane.precision,
        how=f"{lane.name}, {lane.transport}",
        command=record.command,
    )


def _of_report(report: Report) -> Iterator[Measured]:
    titles = {
        cxr_severity.SYSTEM.name: "X-ray severity scoring",
        dlpe.SYSTEM.name: dlpe.SYSTEM.title,
    }
    if report.get("title") == titles["cxr-severity"]:
        yield from _of_xrays(report)
    elif report.get("title") == titles["dlpe"]:
        if report["study"] is not None:
            yield from _of_scans(report)
        if report["steps"] is not None:
            yield from _of_steps(report)


def _common(report: Report) -> dict[str, Any]:
    return {
        "hardware": report["hardware"],
        "gpu": "no GPU" not in report["hardware"],
        "weights": report["weights"],
        "precision": "fp32",
        "command": report["command"],
    }


def _of_xrays(report: Report) -> Iterator[Measured]:
    names = {facts.title: name for name, facts in cxr_severity.DISEASE.items()}
    for part in report["parts"]:
        best = max(
            (row for row in part["rows"] if row["lane"].startswith("Triton")),
            key=lambda row: row["per_second"],
        )
        yield Measured(
            system=cxr_severity.SYSTEM.name,
            network=names[part["title"]],
            quantity=THROUGHPUT,
            value=best["per_second"],
            unit="images/s",
            how=f"{best['lane']}, {best['concurrency']} in flight",
            **_common(report),
        )


def _of_scans(report: Report) -> Iterator[Measured]:
    study, grid = report["study"], report["grid"]
    small = grid < dlpe.SIDE
    limits = f"{EXTRAPOLATED} from a grid of {grid}³ to {dlpe.SIDE}³" if small else ""
    seconds = study["seconds_at_512"] if small else study["seconds"]
    how = f"{study['series']}; a grid of {grid}³"
    own = {"system": dlpe.SYSTEM.name, "network": "", "how": how, **_common(report)}
    yield Measured(quantity=SCAN_TIME, value=seconds / 60, unit="min", limits=limits, **own)
    held = study["client_peak_bytes"] + study["server_memory"]["sampled_peak_bytes"]
    limits = f"measured on a grid of {grid}³, documented for {dlpe.SIDE}³" if small else ""
    yield Measured(quantity=CPU_MEMORY, value=held / GB, unit="GB", limits=limits, **own)


def _of_steps(report: Report) -> Iterator[Measured]:
    """Connectivity refinement, in the client."""
    side = report["steps"]["side"]
    limits = "" if side == dlpe.SIDE else f"measured on {side}³ voxels, documented for {dlpe.SIDE}³"
    for row in report["steps"]["rows"]:
        for figure in dlpe.SYSTEM.published:
            named = figure.quantity.partition(",")[0]
            if named.startswith(REFINEMENT) and named == row["step"]:
                yield Measured(
                    system=dlpe.SYSTEM.name,
                    network="",
                    quantity=figure.quantity,
                    value=row["seconds"],
                    unit="s",
                    limits=limits,
                    how=f"the step alone, {side}³ voxels",
                    **_common(report),
                )
