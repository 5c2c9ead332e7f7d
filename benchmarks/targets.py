"""`hilum bench targets`: the paper table, one row for each documented figure of the systems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..catalog import SYSTEMS
from ..catalog.errors import RepositoryError
from ..client.pictures.canvas import DISCLAIMER
from .instrument.machine import described, machine
from .instrument.record import Lane, Record
from .instrument.record import write as write_record
from .pages.page import write_page
from .pages.tables import RANDOM, number
from .runs import Progress
from .target_files import measured_in
from .target_measures import MEASURES, REMEDIES, Setting, measurable
from .target_rows import (
    EXTRAPOLATED,
    FAIL,
    LABELS,
    NOT_COMPARABLE,
    PASS,
    PROPERTY,
    WEIGHTS_AND_DATA,
    Measured,
    as_row,
    rows,
    targets,
)

Row = Mapping[str, Any]

SHORT_MIN = 0.5
"""Shorter times are told in seconds."""

QUICK = (3, 4.0)
USUAL = (5, 20.0)
"""Rounds, and seconds of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured.

    Attributes
    ----------
    systems
        None: all.
    earlier
        Records to take measured figures from, instead of measuring.
    """

    systems: tuple[str, ...] = ()
    quick: bool = False
    repository: Path | None = None
    weights: str = "random"
    earlier: tuple[Path, ...] = ()

    @property
    def command(self) -> str:
        """The command line that measures the same."""
        words = ["hilum bench targets", *self.systems, "--quick" * self.quick]
        words += [f"--from {p.name if p.is_absolute() else p}" for p in self.earlier]
        words.append("" if self.earlier else f"--weights {self.weights}")
        return " ".join(filter(None, words))


def measure(plan: Plan, progress: Progress) -> Record:
    """Measure what can be measured here, and set it beside every documented figure.

    Raises
    ------
    InputError
        For a system that there is not, or an earlier record that cannot be read.
    """
    wanted, before = list(targets(plan.systems)), machine()
    found: list[Measured] = []
    lanes: list[Lane] = []
    notes = _notes(plan)
    if plan.earlier:
        known = plan.systems or tuple(SYSTEMS)
        found += [m for m in measured_in(plan.earlier) if m.system in known]
    else:
        rounds, seconds = QUICK if plan.quick else USUAL
        setting = Setting(
            plan.quick, rounds, seconds, plan.repository, plan.weights, before, plan.command
        )
        for system in measurable(plan.systems, plan.quick):
            try:
                own = MEASURES[system](setting, progress)
            except RepositoryError as missing:  # of a repository that holds other systems
                notes.append(f"{system} was not measured: {missing}")
                continue
            found += own.measured
            lanes += own.lanes
    return Record(
        kind="targets",
        title="Documented figures and what was measured",
        command=plan.command,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        hilum_version=version("hilum"),
        machine=before,
        lanes=tuple(lanes),
        tables={
            "targets": tuple(rows(wanted, found, REMEDIES)),
            "measured": tuple(as_row(m) for m in found),
        },
        notes=tuple(notes),
    )


def _notes(plan: Plan) -> list[str]:
    notes = [
        "A documented figure is the authors', on their hardware, with their weights and data. A "
        "speed that is met here is a pass whatever the hardware; one that is not met is a failure "
        "only on a GPU, else it is not comparable.",
        "Accuracy cannot be measured without the authors' weights and data.",
    ]
    if plan.earlier:
        notes.append("Nothing was measured for this table: it is put together from earlier runs.")
    return notes


def write(record: Record, folder: Path) -> str:
    """Write ``bench.json``, ``bench.md``, ``bench.html`` and figures; returns the Markdown."""
    write_record(record, folder / "bench.json")
    text = markdown(record)
    (folder / "bench.md").write_text(text)
    write_page(record, folder)
    return text


def markdown(record: Record) -> str:
    """The table, by system: first what was measured, then accuracy, which was not."""
    found: Sequence[Row] = record.tables["targets"]
    counts = Counter(row["verdict"] for row in found)
    load = record.machine.load_before
    busy = "" if load is None else f", load average {load:.1f} before"
    lines = [
        f"# {record.title}",
        "",
        f"{described(record.machine)}{busy}. `{record.command}`",
        "",
        f"{len(found)} documented figures: {counts[PASS]} pass, {counts[FAIL]} fail, "
        f"{counts[NOT_COMPARABLE]} not comparable.",
        "",
        *(f"- {note}" for note in record.notes),
    ]
    for name in dict.fromkeys(row["system"] for row in found):
        lines += ["", f"## {name}", "", *_system([r for r in found if r["system"] == name])]
    lines += ["", *_also(record)]
    random = any(row["weights"].startswith("random") for row in record.tables["measured"])
    return "\n".join([*lines, *([f"{RANDOM}  "] if random else []), DISCLAIMER]) + "\n"


def _system(found: Sequence[Row]) -> Iterator[str]:
    beyond = (WEIGHTS_AND_DATA, LABELS, PROPERTY)
    speed = [r for r in found if r["reason"] not in beyond]
    speed.sort(key=lambda r: r["measured"] is None)
    if speed:
        yield "| figure | documented | on | source | measured here | how | verdict |"
        yield "|---" * 7 + "|"
    for r in speed:
        weights = r["weights"] and f"weights {r['weights'].partition(';')[0]}"
        how = "; ".join(filter(None, (r["how"], weights, r["precision"])))
        measured = "–" if r["measured"] is None else _value(r["measured"], r["unit"])
        if r["reason"].startswith(EXTRAPOLATED):
            measured += f" {EXTRAPOLATED}"
        verdict = f"**{r['verdict']}**: {r['reason']}"
        yield _line(*_documented(r), measured, how or "–", verdict)
    for reason in beyond:
        rest = [r for r in found if r["reason"] == reason]
        if rest:
            yield ""
            yield f"**{NOT_COMPARABLE}**: {reason}"
            yield ""
            yield "| figure | documented | on | source |"
            yield "|---" * 4 + "|"
            yield from (_line(*_documented(r)) for r in rest)


def _documented(row: Row) -> tuple[str, ...]:
    figure = ": ".join(filter(None, (row["network"], row["figure"])))
    value = f"{row['documented']:g} {row['unit']}".strip()
    return figure, value, row["documented_on"] or "–", row["source"] or "–"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _also(record: Record) -> Iterator[str]:
    """What was measured and no publication documents."""
    documented = {(t.system, t.network, t.figure.quantity) for t in targets()}
    more = [
        row
        for row in record.tables["measured"]
        if (row["system"], row["network"], row["quantity"]) not in documented
    ]
    if not more:
        return
    yield "## Measured, but documented nowhere"
    yield ""
    yield "| system | figure | measured here | how |"
    yield "|---|---|---|---|"
    for row in more:
        yield (
            f"| {row['system']} | {row['quantity']} | {_value(row['value'], row['unit'])} "
            f"| {row['how']} |"
        )
    yield ""


def _value(value: float, unit: str) -> str:
    if unit == "min" and value < SHORT_MIN:
        value, unit = 60 * value, "s"
    return f"{number(value)} {unit}".strip()
