"""What `hilum bench scale` tells: efficiency, the model's terms, its test, its predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..catalog.errors import InputError
from .instrument.record import Record
from .instrument.record import write as write_record
from .pages.page import write_page
from .pages.tables import markdown, number
from .scale_fleet import Balance
from .scale_model import Checked, Setting, check
from .scale_runs import LOADS, Run, per_second

Rows = tuple[dict[str, Any], ...]

_TERMS = {
    "compute_s": "in an instance that is alone on its server",
    "contention": "share of it by which each further instance of a server slows all of them",
    "shared_s": "one after the other: the client's own work, its link, the balancer",
    "parallel_s": "beside, keeping no other task waiting",
    "variability": "0 where times are fixed and tasks never meet, 1 where they are exponential",
}


def evaluate(
    runs: Sequence[Run], balances: Sequence[Balance], predict: Sequence[int], units: int
) -> tuple[dict[str, Rows], list[str]]:
    """Tables and notes: efficiency, the model, its test, and its predictions.

    Parameters
    ----------
    units
        Images, slices or studies of one task.
    """
    points = [run.point() for run in runs if run.fleet.balance == balances[0]]
    try:
        checked = check(points)
    except InputError as error:
        return efficiency(runs, balances, None, units), [f"No model is fitted: {error}."]
    tables = {
        **efficiency(runs, balances, checked, units),
        "model": model_rows(checked),
        "test_of_the_model": tests(checked, units),
        "predicted": predictions(checked, predict, LOADS[-1], units),
    }
    return {name: rows for name, rows in tables.items() if rows}, notes_of(checked, predict)


def efficiency(
    runs: Sequence[Run], balances: Sequence[Balance], checked: Checked | None, units: int
) -> dict[str, Rows]:
    """Tables ``efficiency`` (servers) and ``efficiency_of_instances``, where several were measured.

    Each deployment is told at its highest load. The efficiency is its throughput over that of the
    smallest in proportion: 1 is growth in proportion.
    """
    tables: dict[str, Rows] = {}
    least = min(run.fleet.instances for run in runs)
    for number_, balance in enumerate(balances):
        tops = _tops([run for run in runs if run.fleet.balance == balance])
        seen = checked if number_ == 0 else None
        suffix = "" if number_ == 0 else f"_through_{balance}"
        by_servers = [r for r in tops if r.fleet.instances == least]
        by_instances = [r for r in tops if r.fleet.servers == 1]
        if len(by_servers) > 1:
            rows = _growth("servers", by_servers, seen, units)
            tables[f"efficiency{suffix}"] = rows
        if len(by_instances) > 1 and number_ == 0:
            rows = _growth("instances", by_instances, seen, units)
            name = "efficiency_of_instances" if "efficiency" in tables else "efficiency"
            tables[name] = rows
    return tables


def model_rows(checked: Checked) -> Rows:
    """The terms of the model."""
    return tuple(
        {"term": name.removesuffix("_s").capitalize(), "value": _value(checked, name), "is": words}
        for name, words in _TERMS.items()
    )


def tests(checked: Checked, units: int) -> Rows:
    """The points held out: measured, predicted without them, and the error."""
    measured = {p.at: p.median for p in checked.points}
    return tuple(
        {
            "servers": at.servers,
            "instances": at.instances,
            "in_work": at.concurrency,
            "per_second": units * measured[at],
            "predicted": units * checked.tested.per_second(at),
            "error": f"{error:+.1%}",
        }
        for at, error in checked.errors.items()
    )


def predictions(checked: Checked, servers: Sequence[int], load: int, units: int) -> Rows:
    """Throughput of so many servers, with intervals."""
    instances = min(p.at.instances for p in checked.points)
    rows = []
    for count in servers:
        at = Setting(count, instances, load * count * instances)
        found = per_second(checked.predict(at), units)
        tasks = 3600 / units
        rows.append(
            {
                "servers": count,
                "instances": instances,
                "in_work": at.concurrency,
                "per_second": found.value,
                "studies_per_hour": tasks * found.value,
                "from": None if found.low is None else tasks * found.low,
                "to": None if found.high is None else tasks * found.high,
            }
        )
    return tuple(rows)


def notes_of(checked: Checked, servers: Sequence[int]) -> list[str]:
    """The model's error and what its predictions take for granted, in words."""
    instances = min(p.at.instances for p in checked.points)
    most = checked.fitted.best.most_servers(instances)
    found = [
        f"The model was fitted without {len(checked.errors)} of {len(checked.points)} points and "
        f"predicts them with a median error of {checked.median:.1%}, "
        f"at most {checked.largest:.1%}.",
        "Studies per hour are tasks: a study is what one task sends (see the inputs). Intervals "
        "are the range of all models that fit the points as well, widened by the largest error.",
    ]
    if servers:
        found.append(
            f"Predictions for {', '.join(map(str, servers))} servers assume machines like the "
            "measured ones, each with what a server had here to itself, "
            f"{LOADS[-1]} tasks in work for each instance, and this one client: more clients "
            "divide what is shared."
        )
    if checked.fitted.best.shared_s > 0 and most < 1000:
        found.append(
            f"From {number(max(most, 1.0), 2)} servers on, more of them bring next to nothing to "
            "this client: what is shared is busy then."
        )
    return found


def write(record: Record, folder: Path) -> str:
    """Write ``bench.json``, ``bench.md`` and the page with its figures; returns the Markdown."""
    write_record(record, folder / "bench.json")
    text = markdown(record)
    (folder / "bench.md").write_text(text, encoding="utf-8")
    write_page(record, folder)
    return text


def _tops(runs: Sequence[Run]) -> list[Run]:
    """Of each deployment, the run at its highest load."""
    found: dict[tuple[int, int], Run] = {}
    for run in sorted(runs, key=lambda r: r.concurrency):
        found[run.fleet.servers, run.fleet.instances] = run
    return [found[key] for key in sorted(found)]


def _growth(counted: str, runs: Sequence[Run], checked: Checked | None, units: int) -> Rows:
    first = runs[0]
    each = first.point().median / getattr(first.fleet, counted)
    rows = []
    for run in runs:
        point, count = run.point(), getattr(run.fleet, counted)
        rows.append(
            {
                counted: count,
                "in_work": run.concurrency,
                "per_second": units * point.median,
                "efficiency": point.median / (count * each),
                "predicted": None if checked is None else _told(checked, point.at, units),
                "held_out": checked is not None and point.at in checked.errors,
            }
        )
    return tuple(rows)


def _told(checked: Checked, at: Setting, units: int) -> float:
    """What the model says that was fitted without the points held out."""
    return units * checked.tested.per_second(at)


def _value(checked: Checked, name: str) -> str:
    value = getattr(checked.fitted.best, name)
    return f"{1e3 * value:.3g} ms" if name.endswith("_s") else f"{value:.0%}"
