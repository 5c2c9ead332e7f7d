"""The record and the page of a proof, from the records of its stages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hilum.benchmarks.instrument.machine import machine
from hilum.benchmarks.instrument.record import Lane, Record, new_record, typed
from hilum.benchmarks.target_rows import Measured, rows, targets

from .aims import AIMS, judge
from .runner import CUT_OFF, DONE, FAILED, read, wanted
from .setting import Setting
from .stages import STAGES

REHEARSAL = (
    "REHEARSAL on the processors, with NumPy for CuPy and system for CUDA shared memory, in "
    "reduced sizes: it shows that the stages run. No figure here is one of a GPU, and none passes "
    "or fails an aim."
)

Stages = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Report:
    """A record, and how the proof stands.

    Attributes
    ----------
    complete
        Every stage was run to its end.
    holds
        So far nothing failed: no stage, and no check. A missed aim is no failure of the proof.
    """

    record: Record
    complete: bool
    holds: bool


def report(setting: Setting) -> Report:
    """Put the stages together."""
    found = {n: r for n in wanted(setting, ()) if (r := read(setting, n)) is not None}
    here, status = machine(), {n: found.get(n, {}).get("status") for n in wanted(setting, ())}
    gpus = () if setting.rehearse else here.gpus
    checks = list(_checks(found, setting))
    tables: dict[str, tuple[Any, ...]] = {
        "aims": tuple(_aims(found, setting, gpus)),
        "figures_and_floors": tuple(_figures(found)),
        "checks": tuple(checks),
        "stages": tuple(_stages(setting, found)),
        "use_of_the_machine": tuple(
            {"stage": n, **row} for n, r in found.items() for row in r.get("used", ())
        ),
        "documented": tuple(_documented(found)),
    }
    for record in found.values():
        tables |= {name: tuple(own) for name, own in record.get("tables", {}).items()}
    lanes = tuple(
        typed(Lane, lane, name) for name, r in found.items() for lane in r.get("lanes", ())
    )
    served = [r["server"] for r in found.values() if r.get("server")]
    title = "proof on a GPU" if not setting.rehearse else "REHEARSAL of the proof on a GPU"
    record = new_record(
        "gpu-proof", title, _command(setting), here, server=served[-1] if served else {},
        lanes=lanes, tables={name: own for name, own in tables.items() if own},
        notes=tuple(_notes(setting, found)),
    )  # fmt: skip
    failed = any(s in (FAILED, CUT_OFF) for s in status.values())
    holds = not failed and all(row["holds"] for row in checks)
    return Report(record, all(s == DONE for s in status.values()), holds)


def _command(setting: Setting) -> str:
    words = ["make gpu-proof:", "hilum bench gpu-proof", *(["--rehearse"] * setting.rehearse)]
    words.append(f"--weights {setting.weights} --precision {setting.precision}")
    return " ".join([*words, *(["--repository DIR"] * setting.given), "--out DIR"])


def _aims(found: Stages, setting: Setting, gpus: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    values = {f["aim"]: f["value"] for f in _all(found, "figures") if f["aim"]}
    for name, aim in AIMS.items():
        verdict = judge(aim, values.get(name), rehearsed=setting.rehearse, gpus=gpus)
        yield {
            "aim": aim.text, "wanted": f"{'≥' if aim.better == 'higher' else '≤'} {aim.limit:g}",
            "unit": aim.unit, "measured": values.get(name), "verdict": verdict,
        }  # fmt: skip


def _figures(found: Stages) -> Iterator[dict[str, Any]]:
    """Every figure, with the time that the hardware would need for its arithmetic and bytes."""
    peaks = {row["what"]: row["value"] for row in _tables(found, "peaks")}
    for figure in _all(found, "figures"):
        row = {k: figure[k] for k in ("name", "value", "unit", "how")}
        if figure["seconds"] is not None and peaks:
            arithmetic = figure["flops"] / peaks[figure["precision"]]
            moving = figure["moved_bytes"] / peaks["host" if figure["host"] else "copy"]
            row |= {
                "took_s": figure["seconds"], "floor_by_arithmetic_s": arithmetic,
                "floor_by_bytes_s": moving, "precision": figure["precision"],
                "times_the_floor": figure["seconds"] / max(arithmetic, moving),
            }  # fmt: skip
        yield row


def _checks(found: Stages, setting: Setting) -> Iterator[dict[str, Any]]:
    for check in _all(found, "checks"):
        said = "rehearsed" if setting.rehearse else "pass"
        yield {
            "check": check["name"], "holds": check["holds"], "found": check["found"],
            "verdict": said if check["holds"] else "fail",
        }  # fmt: skip


def _stages(setting: Setting, found: Stages) -> Iterator[dict[str, Any]]:
    for name in wanted(setting, ()):
        record = found.get(name, {})
        yield {
            "stage": name, "what": STAGES[name].title, "status": record.get("status", "not run"),
            "seconds": record.get("seconds"), "why": record.get("error", ""),
        }  # fmt: skip


def _documented(found: Stages) -> Iterator[dict[str, Any]]:
    """Published figures beside what was measured for them; a rehearsal measures none."""
    measured = [Measured(**row) for row in _tables(found, "measured")]
    if measured:
        wished = targets(sorted({m.system for m in measured}))
        yield from (row for row in rows(wished, measured, {}) if row["measured"] is not None)


def _notes(setting: Setting, found: Stages) -> Iterator[str]:
    if setting.rehearse:
        yield REHEARSAL
    yield (
        "Floors: the arithmetic of convolutions and matrix products over the measured rate of "
        "large matrix products in that precision (FP32 without TF32); bytes that must be read and "
        "written over the measured rate of copies."
    )
    yield from (note for record in found.values() for note in record.get("notes", ()))


def _all(found: Stages, kind: str) -> Iterator[Mapping[str, Any]]:
    return (one for record in found.values() for one in record.get(kind, ()))


def _tables(found: Stages, name: str) -> Iterator[Mapping[str, Any]]:
    return (row for record in found.values() for row in record.get("tables", {}).get(name, ()))
