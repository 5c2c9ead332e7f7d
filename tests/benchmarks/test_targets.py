"""The paper table: every documented figure once, judged by what may be compared."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hilum.benchmarks import targets
from hilum.benchmarks.instrument.machine import machine
from hilum.benchmarks.instrument.record import new_record, read
from hilum.benchmarks.instrument.record import write as write_record
from hilum.benchmarks.pages.page import write
from hilum.benchmarks.systems import cxr_severity, described, workload
from hilum.benchmarks.target_rows import Measured, better, convert, judge, measured_in, rows
from hilum.benchmarks.target_rows import targets as documented
from hilum.catalog import SYSTEMS, Figure
from hilum.catalog.errors import InputError
from hilum.cli import app

CPU, H200, TI = "EPYC, 2 cores, no GPU", "GPU: NVIDIA H200", "RTX 2080 Ti 11 GB, PyTorch"


def _measured(value: float, unit: str, *, gpu: bool = False, limits: str = "") -> Measured:
    return Measured(
        system="cxr-severity", network="pspnet", quantity="throughput", value=value, unit=unit,
        hardware=H200 if gpu else CPU, gpu=gpu, weights="random", precision="fp32",
        how="8 X-rays", limits=limits, command="hilum bench targets",
    )  # fmt: skip


def test_every_documented_figure_has_one_row() -> None:
    every = Counter()
    for system in SYSTEMS.values():
        every.update((system.name, "", f) for f in system.published)
        every.update((system.name, n.name, f) for n in system.networks for f in n.published)
    made = rows(documented(), [], targets.remedies())
    assert len(made) == every.total() > 80
    told = Counter(
        (
            row["system"],
            row["network"],
            Figure(
                row["figure"], row["documented"], row["unit"], row["documented_on"], row["source"]
            ),
        )
        for row in made
    )
    assert told == every
    assert {row["verdict"] for row in made} == {"not comparable"}
    assert all(row["reason"] for row in made)
    some = [row for row in made if row["system"] == "dlpe"]
    assert len(list(documented(("dlpe",)))) == len(some)


def test_what_can_be_measured_is_documented_somewhere() -> None:
    names = {(t.system, t.figure.quantity) for t in documented()}
    assert set(targets.remedies()) <= names


@pytest.mark.parametrize(
    ("figure", "measured", "outcome", "reason"),
    [
        (Figure("throughput", 12.5, "images/s", TI), _measured(13, "images/s"), "pass", "met"),
        (Figure("throughput", 12.5, "images/s", TI), _measured(12.5, "images/s"), "pass", CPU),
        (
            Figure("throughput", 12.5, "images/s", TI),
            _measured(5, "images/s"),
            "not comparable",
            "run it on a GPU server",
        ),
        (
            Figure("throughput", 12.5, "images/s", TI),
            _measured(5, "images/s", gpu=True),
            "fail",
            f"measured on {H200}; documented on {TI}",
        ),
        (Figure("time", 2, "min", "one V100"), _measured(100, "s", gpu=True), "pass", "V100"),
        (Figure("time", 2, "min", "one V100"), _measured(121, "s", gpu=True), "fail", "V100"),
        (Figure("time", 2, "min", "one V100"), _measured(121, "s"), "not comparable", "V100"),
        (
            Figure("time", 2, "min", "one V100"),
            _measured(1, "s", limits="measured on a grid of 32³"),
            "not comparable",
            "a grid of 32³",
        ),
        (Figure("time", 1, "s"), _measured(2, "s"), "not comparable", "is not documented"),
        (Figure("CPU memory", 24, "GB"), _measured(9000, "MB"), "pass", "met"),
        (Figure("CPU memory", 24, "GB"), _measured(25, "GB"), "fail", "not met"),
        (Figure("AUC", 0.939, ""), _measured(0.94, ""), "fail", "differs by 0.001"),
        (Figure("accuracy", 90.2, "%"), None, "not comparable", "weights and data"),
        (Figure("parameters", 11.5, "M"), None, "not comparable", "weights and data"),
        (Figure("time", 2, "min", TI), None, "not comparable", "not measured; look"),
    ],
)
def test_verdicts(figure: Figure, measured: Measured | None, outcome: str, reason: str) -> None:
    verdict = judge(figure, measured, "look" if better(figure) else "")
    assert verdict.outcome == outcome
    assert reason in verdict.reason


def test_units_of_other_kinds_are_refused() -> None:
    assert convert(90, "s", "min") == 1.5
    with pytest.raises(InputError, match="images/s cannot be compared with a documented one in s"):
        convert(1, "images/s", "s")


def test_measured_here_and_taken_from_the_record(
    standin_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cxr_severity, "QUICK_NETWORKS", ("manet", "fpn"))
    monkeypatch.setattr(targets, "QUICK", (3, 0.5))
    monkeypatch.setattr(cxr_severity, "IMAGES", 2)
    plan = targets.Plan(systems=("cxr-severity",), quick=True, repository=standin_repository)
    record = targets.measure(plan, lambda _text: None)
    text = write(record, tmp_path / "first")
    found = {(r["network"], r["figure"]): r for r in record.tables["targets"]}
    for name, value in (("manet", 7.9), ("fpn", 9.4)):
        row = found[name, "throughput"]
        assert row["documented"] == value
        assert row["measured"] > 0
        assert row["verdict"] == ("pass" if row["measured"] >= value else "not comparable")
        assert "X-rays of 800 × 900" in row["how"]
    assert found["pspnet", "throughput"]["measured"] is None
    assert "leave out --quick" in found["pspnet", "throughput"]["reason"]
    assert [lane.systems for lane in record.lanes] == [{"cxr-severity": 1.0}] * 2
    assert "| cxr-severity | manet | throughput | 7.9 | images/s |" in text
    assert "RANDOM" not in text  # the stand-ins are a user's files
    again = read(tmp_path / "first" / "bench.json")
    assert [dict(r) for r in again.tables["targets"]] == [dict(r) for r in record.tables["targets"]]

    done = CliRunner().invoke(
        app,
        ["bench", "targets", "cxr-severity", "--from", str(tmp_path / "first" / "bench.json"),
         "--out", str(tmp_path / "second")],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    second = read(tmp_path / "second" / "bench.json")
    assert second.tables["targets"] == again.tables["targets"]
    assert not second.lanes
    assert (tmp_path / "second" / "bench.html").is_file()


def test_every_system_is_described_and_can_be_loaded() -> None:
    for name in SYSTEMS:
        assert described(name) is not None
        assert workload(name, quick=True).networks
    assert described("nobody") is None
    with pytest.raises(InputError, match="no workload of 'nobody'; there are cxr-severity"):
        workload("nobody")
    assert set(targets.measurable((), quick=True)) == {
        "cxr-severity", "ct-classifier", "dlpe", "covid-mtl"
    }  # fmt: skip
    assert "ct-angel" in targets.measurable((), quick=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "has the schema None"),
        ("no JSON", "is no benchmark's record"),
        ("{}", "has the schema None"),
        (json.dumps({"schema": "hilum-bench/0"}), "measure again"),
    ],
)
def test_files_that_are_no_records_are_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        measured_in([path])
    done = CliRunner().invoke(
        app, ["bench", "targets", "--from", str(path), "--out", str(tmp_path / "out")]
    )
    assert done.exit_code == 2
    assert "count the networks" not in done.output  # refused before anything is computed
    assert not (tmp_path / "out").exists()


def test_a_system_that_is_none_is_reported(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["bench", "targets", "nobody", "--out", str(tmp_path)])
    assert done.exit_code == 2
    assert "there is no system 'nobody'" in done.output


def test_the_last_file_counts(tmp_path: Path) -> None:
    paths = []
    for number, value in enumerate((5.0, 6.0)):
        tables = {"measured": (asdict(_measured(value, "images/s")),)}
        record = new_record("targets", "t", "c", machine(), tables=tables)
        paths.append(write_record(record, tmp_path / f"{number}.json"))
    (found,) = measured_in(paths)
    assert found.value == 6.0
    without = write_record(new_record("load", "t", "c", machine()), tmp_path / "without.json")
    with pytest.raises(InputError, match="holds no figure that a publication documents"):
        measured_in([without])
