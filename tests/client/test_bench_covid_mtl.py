"""`hilum bench covid-mtl` through a real server, on the smallest phantom."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import hilum
from hilum.benchmarks import covid_mtl as bench
from hilum.benchmarks.covid_mtl_published import Published, initial, read, refined, resample
from hilum.benchmarks.covid_mtl_study import CLIENT, SERVER, Measured, write_phantom
from hilum.benchmarks.covid_mtl_table import markdown
from hilum.catalog.covid_mtl import CROP
from hilum.catalog.errors import InputError
from hilum.preprocessing.covid_mtl_intake import take_in
from hilum.preprocessing.series import open_series

SCALE = bench.LEAST_SCALE

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}  # the machine may be busy


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(mtl_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All parts but the last, with `bench.json`, `bench.md` and what was printed."""
    out = tmp_path_factory.mktemp("bench")
    done = hilum(
        "bench", "covid-mtl", "--scale", SCALE, "--no-radiomics", "--repository", mtl_repository,
        "--out", out, env=ENVIRONMENT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (out / "printed").write_text(done.stdout)
    return out


@pytest.fixture(scope="module")
def report(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "bench.json").read_text())


def test_stages_make_up_a_study(report: dict[str, Any]) -> None:
    study = report["study"]
    assert set(study["placements"]) == {CLIENT, SERVER}
    for row in study["placements"].values():
        assert tuple(row["stages"]) == bench.STAGES
        assert row["total"] == pytest.approx(sum(row["stages"].values()) + row["rest"])
        assert row["rest"] >= -1e-6
    client, server = study["placements"][CLIENT], study["placements"][SERVER]
    assert all(s > 0 for s in client["stages"].values())
    assert server["stages"]["features"] == 0 < server["stages"]["network"]
    assert study["server_to_client"] == server["total"] / client["total"]
    assert study["shape"] == [45, 54, 54]
    assert 1000 < study["lung_voxels"] < np.prod(study["shape"])
    assert "implausible volume" in study["flags"]
    assert study["replaced"] == 0
    assert study["transport"] == "shm"
    assert study["client_peak_bytes"] > 10**8
    memory = study["server_memory"]
    assert memory["upper_bound_bytes"] > memory["sampled_peak_bytes"] > 10**8


def test_the_published_procedure_answers_the_same(report: dict[str, Any]) -> None:
    found, study = report["published"], report["study"]
    for check in found["checks"].values():
        assert check["mask_voxels"] == study["lung_voxels"]
        assert check["mask_differing"] == 0
        assert check["features"] < 1e-9
        assert check["probabilities"] < 1e-4
    (seconds,) = found["seconds"]
    assert seconds == pytest.approx(sum(s["seconds"] for s in found["stages"].values()))
    for placement, ratio in found["ratio"].items():
        assert ratio == seconds / study["placements"][placement]["total"]
    client = study["placements"][CLIENT]["stages"]
    for name, stage in found["stages"].items():
        assert stage["ratio"] == pytest.approx(stage["seconds"] / client[name])
    assert found["threads"] == 1
    assert found["peak_bytes"] > 10**8


def test_studies_at_once(report: dict[str, Any]) -> None:
    rows = report["several"]["rows"]
    assert [r["in_flight"] for r in rows] == [1, 2]
    for row in rows:
        assert row["per_second"] == report["several"]["studies"] / row["seconds"]
        assert row["gain"] == row["per_second"] / rows[0]["per_second"]


def test_what_is_written(folder: Path, report: dict[str, Any]) -> None:
    report = copy.deepcopy(report)
    text = (folder / "bench.md").read_text()
    assert (folder / "printed").read_text().strip() == text.strip()
    assert text == markdown(report)
    assert report["radiomics"] is None
    assert text.count("\n## ") == 3
    assert "**Not the full size**" in text
    assert report["command"] in text
    assert "--scale 0.15 --rounds 1 --studies 2 --no-radiomics --weights random" in text
    total = report["study"]["placements"][CLIENT]["total"]
    assert f"| **total** | **{total:.2f}** |" in text
    assert f"0 of {report['study']['lung_voxels']}" in text
    assert "Other weights" not in text
    report["published"]["checks"][SERVER]["probabilities"] = 0.2
    assert "**Other weights**" in markdown(report)


def test_radiomics_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "cores", lambda: 1)
    told: list[str] = []
    report = bench.measure(bench.Plan(scale=SCALE, study=False, published=False), told.append)
    assert report["study"] is None
    published, *ours = report["radiomics"]["rows"]
    assert [row["procedure"] for row in ours] == ["Hilum, 1 process(es)"]
    assert all(row["difference"] < 1e-9 for row in ours)
    text = markdown(report)
    assert text.count("\n## ") == 1
    slowest = min(row["ratio"] for row in ours)
    by_cpu = min(published["cpu_seconds"] / row["cpu_seconds"] for row in ours)
    assert f"At least {slowest:.1f} times faster (aim: 3), by CPU seconds {by_cpu:.1f}" in text
    assert f"| published | {published['seconds']:.1f} |" in text
    assert "--scale 0.15 --no-study --weights random" in text
    assert told


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"scale": 0.1}, "a scale of 0.1"),
        ({"scale": 1.1}, "a scale of 1.1"),
        ({"study": False, "radiomics": False}, "nothing is left"),
        ({"studies": 1}, "nothing to overlap"),
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


def test_differences_that_no_number_tells() -> None:
    some = np.array([1.0, np.nan, -4.0])
    assert bench.relative_difference(some, np.array([1.0, np.nan, -5.0])) == pytest.approx(0.2)
    assert bench.relative_difference(some, np.array([1.0, 2.0, -4.0])) == float("inf")


def test_differing_answers_are_counted() -> None:
    mask = np.zeros((2, 3, 4), np.uint8)
    answers = {"ct": np.array([0.25, 0.75], np.float32)}
    ours = Measured(
        CLIENT, {}, mask, np.ones(375), {"ct": np.array([0.5, 0.5], np.float32)}, 0, 0, (), "", 0
    )
    other = mask.copy()
    other[0, 0, :2] = 1
    found = bench.compare(ours, Published({}, other, np.full(375, 2.0), answers))
    assert found == {
        "mask_voxels": 2, "mask_differing": 2, "features": 0.5, "probabilities": 0.25,
    }  # fmt: skip
