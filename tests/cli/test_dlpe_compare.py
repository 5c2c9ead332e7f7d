"""`hilum compare` and `hilum summary` on results that were written, and on what is none."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from dlpe_study import make_study
from PIL import Image
from typer.testing import CliRunner

from hilum.cli import app
from hilum.results.report import Report, entry_of
from hilum.systems.dlpe.files import write_files
from hilum.systems.dlpe.quantities import measure


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """Three results of one patient: as it was, one lesion gone, and all gone."""
    study = make_study(side=96, mode="corrected")
    folder = tmp_path_factory.mktemp("results")
    report = Report.begin(
        folder, system="dlpe", mode="corrected", device="cpu", weights=[], server={}, total=3
    )
    lesions = study.result.masks["in_patient"]
    half = lesions.copy()
    half[:, lesions.shape[1] // 2 :] = 0
    for index, mask in enumerate((lesions, half, np.zeros_like(lesions))):
        masks = {**study.result.masks, "in_patient": mask, "visible": mask}
        quantities = measure(
            study.result.normalised, masks, study.result.enhancement, branching=False
        )
        result = replace(study.result, masks=masks, quantities=quantities)
        name = f"{index + 1:04d}"
        (folder / name).mkdir()
        files = [f"{name}/{file}" for file in write_files(result, folder / name)]
        entry = entry_of(name, f"study-{index}", result, None, 1.0)
        report.add(index, entry | {"files": files})
    report.save()
    return folder


def run(*arguments) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    return done.exit_code, done.output


def test_branching_levels_begin_at_the_earlier_scans_widest_vessel(results, tmp_path) -> None:
    thin = tmp_path / "thin"
    shutil.copytree(results, thin)
    path = thin / "0002/vessel.nii.gz"
    image = nibabel.load(path)
    inside = np.asarray(image.dataobj) > 0
    kept = inside.copy()
    kept[..., : int(np.argwhere(inside)[:, 2].mean())] = False
    nibabel.save(nibabel.Nifti1Image(kept.astype(np.uint8), image.affine), path)
    for later, compared in (("0001", 0), ("0002", 1)):
        code, said = run("compare", thin / "0001", thin / later, "--out", tmp_path / later)
        assert code == 0, said
        found = json.loads((tmp_path / later / "comparison.json").read_text())["branching"]
        shares = found["share_level_above_9"]
        assert found["flag"] == "ok"
        assert found["r1_mm"] > 0
        assert found["share_change"] == pytest.approx(shares["later"] - shares["earlier"], abs=1e-6)
        assert (found["share_change"] != 0) == bool(compared)
    for path in (thin / "0002").glob("vessel*"):
        path.unlink()
    run("compare", thin / "0001", thin / "0002", "--out", tmp_path / "none")
    found = json.loads((tmp_path / "none/comparison.json").read_text())["branching"]
    assert (found["flag"], found["share_change"]) == ("no_vessel", None)


def test_a_lesion_that_went_is_resolved(results, tmp_path) -> None:
    code, said = run("compare", results / "0001", results / "0002", "--out", tmp_path)
    assert code == 0, said
    report = json.loads((tmp_path / "comparison.json").read_text())
    found = report["sets"]["all"]
    assert found["resolved_lesions"] >= 1
    assert found["persisting_lesions"] >= 1
    assert found["new_lesions"] == 0
    assert 0 < found["lesion_ratio_remaining"] < 1
    assert found["baseline_shift_hu"] == 0
    assert found["zones"]["left_middle"]["lesion_ml_change"] < 0
    assert found["zones"]["right_middle"]["lesion_ml_change"] == 0
    assert report["flags"] == []
    with (tmp_path / "comparison.csv").open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["set"] == "all"]
    assert {row["fate"] for row in rows} == {"resolved", "persisting"}
    picture = np.asarray(Image.open(tmp_path / "comparison.png").convert("RGB")).astype(int)
    reds = (picture[..., 0] > 180) & (picture[..., 1:].max(axis=-1) < 110)
    left, right = np.array_split(reds, 2, axis=1)
    assert left.sum() > right.sum() > 0


def test_a_result_against_itself_and_without_lesions(results, tmp_path) -> None:
    code, said = run("compare", results / "0001", results / "0001", "--out", tmp_path, "--json")
    assert code == 0, said
    found = json.loads(said)["sets"]["all"]
    assert found["lesion_ratio_remaining"] == 1
    assert (found["new_lesions"], found["resolved_lesions"]) == (0, 0)
    code, said = run("compare", results / "0003", results / "0001", "--out", tmp_path)
    assert code == 0, said
    assert "all: none before" in said
    code, said = run("compare", results / "0001", results / "0003", "--out", tmp_path)
    assert code == 0, said
    assert "0% of the volume remain" in said


def test_what_is_no_result_is_one_clear_error(results, tmp_path) -> None:
    for wrong in (tmp_path, tmp_path / "missing", results):
        code, said = run("compare", wrong, results / "0001", "--out", tmp_path / "out")
        assert code == 2
        assert "error:" in said
    assert "3 studies" in said
    (tmp_path / "report.json").write_text("{")
    code, said = run("summary", tmp_path)
    assert code == 2
    assert "cannot be read" in said


def test_a_summary_lists_the_studies_of_a_folder(results, tmp_path) -> None:
    code, said = run("summary", results, "--csv", tmp_path / "table.csv")
    assert code == 0, said
    assert "fewer than 3 studies with lesions" in said
    with (tmp_path / "table.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["study"] for row in rows] == ["0001", "0002", "0003"]
    assert float(rows[0]["lesion_ml"]) > float(rows[1]["lesion_ml"]) > float(rows[2]["lesion_ml"])
    assert rows[2]["median_severity_hu"] == ""
    code, said = run("summary", results, "--json")
    assert json.loads(said)["spread"] is None


def test_two_columns_of_a_summary_are_related(results) -> None:
    code, said = run("summary", results, "--relate", "lesion_count", "lesion_ml")
    assert code == 0, said
    assert "lesion_ml over lesion_count, 3 studies: " in said
    code, said = run("summary", results, "--relate", "lesion_count", "lesion_ml", "--json")
    found = json.loads(said)
    counts, volumes = (
        [row[name] for row in found["studies"]] for name in ("lesion_count", "lesion_ml")
    )
    assert found["relation"]["scans"] == 3
    expected = np.corrcoef(counts, volumes)[0, 1]
    assert found["relation"]["pearson"] == pytest.approx(expected, abs=1e-9)
    assert found["relation"]["dependence_p"] is None
    code, said = run("summary", results, "--relate", "lesion_ml", "lung_ml")
    assert "or one that never varies" in said
    code, said = run("summary", results, "--relate", "lesion_ml", "status")
    assert code == 2
    assert "no column 'status' of numbers; there are baseline_hu" in said
