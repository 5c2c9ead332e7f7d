"""`hilum bench covid-mtl` through a real server, on the smallest phantom."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import hilum

from hilum.benchmarks import covid_mtl as bench
from hilum.benchmarks.covid_mtl_published import Published, initial, read, refined, resample
from hilum.benchmarks.covid_mtl_study import CLIENT, SERVER, Outcome, write_phantom
from hilum.benchmarks.instrument.record import Record
from hilum.benchmarks.instrument.record import read as read_record
from hilum.benchmarks.pages.tables import markdown
from hilum.catalog.covid_mtl import CROP
from hilum.catalog.errors import InputError
from hilum.preprocessing.covid_mtl.intake import take_in
from hilum.preprocessing.reading.series import open_series

SCALE = bench.LEAST_SCALE

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}  # the machine may be busy


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(mtl_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The record, with what was printed."""
    out = tmp_path_factory.mktemp("bench")
    done = hilum(
        "bench", "covid-mtl", "--scale", SCALE, "--repository", mtl_repository, "--out", out,
        env=ENVIRONMENT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (out / "printed").write_text(done.stdout)
    return out


@pytest.fixture(scope="module")
def record(folder: Path) -> Record:
    return read_record(folder / "bench.json")


@pytest.mark.load
def test_stages_make_up_a_study(record: Record) -> None:
    *stages, total = record.tables["stages"]
    assert [row["stage"] for row in stages] == list(bench.TITLES)
    for column in (f"{CLIENT}_seconds", f"{SERVER}_seconds"):
        assert sum(row[column] for row in stages) <= total[column]
    assert all(row[f"{CLIENT}_seconds"] > 0 for row in stages)
    features = next(row for row in stages if row["stage"] == "features")
    assert features[f"{SERVER}_seconds"] == 0  # part of the request
    for row in (*stages, total):
        ratio = row["published_seconds"] / row[f"{CLIENT}_seconds"]
        assert row["times_faster"] == pytest.approx(ratio)
    assert sum(row["published_seconds"] for row in stages) == pytest.approx(
        total["published_seconds"]
    )
    assert all(row["bytes"] > 10**8 for row in record.tables["memory"])


@pytest.mark.load
def test_the_published_procedure_answers_the_same(record: Record) -> None:
    assert [row["features_by"] for row in record.tables["answers"]] == [CLIENT, SERVER]
    for row in record.tables["answers"]:
        assert row["mask_voxels"] > 1000
        assert row["mask_differing"] == 0
        assert row["features"] < 1e-9
        assert row["probabilities"] < 1e-4
    client, server, published = record.lanes
    assert (client.transport, published.transport) == ("shm", "in process")
    assert server.deviation is not None
    assert server.deviation.differing == 0


@pytest.mark.load
def test_what_is_written(folder: Path, record: Record) -> None:
    text = (folder / "bench.md").read_text()
    assert (folder / "printed").read_text().strip() == text.strip()
    assert text == markdown(record)
    assert "hilum bench covid-mtl --scale 0.15 --rounds 1 --weights random" in text
    assert any(note.startswith("Not the full size") for note in record.notes)
    assert not any(note.startswith("OTHER WEIGHTS") for note in record.notes)
    assert any("implausible_volume" in note for note in record.notes)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"scale": 0.1}, "a scale of 0.1"),
        ({"scale": 1.1}, "a scale of 1.1"),
    ],
)
def test_plans_that_make_no_sense(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        bench.Plan(**given)


# --- the published procedure ----------------------------------------------------------------------


def test_the_direct_implementation_gives_the_golden_masks(golden: Path) -> None:
    case = np.load(golden / "mtl" / "phantom_seg.npz")
    z, y, x = (float(mm) for mm in case["spacing_zyx"])
    stored = resample(case["ct"], (z, y, x))
    assert np.array_equal(stored, case["resampled"])

    def mask(name: str) -> np.ndarray:
        bits = np.unpackbits(case[name])[: stored.size]
        return bits.reshape(stored.shape).astype(bool)

    lung = initial(stored)
    assert np.array_equal(lung, mask("mask_init_bits"))
    some = slice(8, 17)  # each slice is refined by itself
    wanted = mask("mask_refined_uint16_bits")[some]
    assert np.array_equal(refined(stored[some], lung[some]), wanted)
    assert (wanted != lung[some]).any()


def test_the_phantom_shrinks_and_its_voxels_do_not(tmp_path: Path) -> None:
    assert write_phantom(tmp_path, 0.2, seed=2).startswith("60 slices of 102 × 102")
    series = open_series(tmp_path)
    assert series.geometry.spacing == pytest.approx((1.0, 360 / 512, 360 / 512))
    raw, spacing = read(tmp_path)
    taken = take_in(series, "parity")
    assert np.array_equal(raw, taken.stored)
    assert spacing == pytest.approx(taken.spacing)


def test_the_published_box_shrinks_likewise() -> None:
    assert bench.published_box(1) == CROP
    assert bench.published_box(0.5) == (170, 196, 196)


def test_differences_that_no_number_shows() -> None:
    some = np.array([1.0, np.nan, -4.0])
    assert bench.relative_difference(some, np.array([1.0, np.nan, -5.0])) == pytest.approx(0.2)
    assert bench.relative_difference(some, np.array([1.0, 2.0, -4.0])) == float("inf")


def test_differing_answers_are_counted() -> None:
    mask = np.zeros((2, 3, 4), np.uint8)
    answers = {"ct": np.array([0.25, 0.75], np.float32)}
    ours = Outcome(
        CLIENT, {}, mask, np.ones(375), {"ct": np.array([0.5, 0.5], np.float32)}, 0, 0, (), "", 0
    )
    other = mask.copy()
    other[0, 0, :2] = 1
    found = bench.compare(ours, Published({}, other, np.full(375, 2.0), answers))
    assert found == {
        "mask_voxels": 2, "mask_differing": 2, "features": 0.5, "probabilities": 0.25,
    }  # fmt: skip
