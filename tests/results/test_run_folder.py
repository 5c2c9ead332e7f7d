"""Folders of runs: what is refused, kept, removed, and what a result's key depends on."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hilum.catalog.errors import HilumError, InputError, OutputError
from hilum.results.atomic import whole_file
from hilum.results.folder import RunFolder, refuse_inputs
from hilum.results.key import content_hash, fits, result_options, study_key
from hilum.results.report import Report, entry_of, kept_entry, write_json
from hilum.results.summary import write_summary

WEIGHTS = [{"network": "lung", "source": "user file", "sha256": "ab", "precision": "fp32",
            "served_by": "onnxruntime"}]  # fmt: skip

FILES = ["mask.nii.gz", "dicom/enhanced/0001.dcm"]


class Found:
    """A result with a little of everything."""

    def report(self) -> dict[str, Any]:
        return {"status": "ok", "flags": ["gaps"], "score": 3, "volumes_ml": {"left": 1.5}}


def claim(
    path: Path, *, count: int = 3, resume: bool = False, overwrite: bool = False
) -> RunFolder:
    return RunFolder.claim(path, system="lungmask", count=count, resume=resume, overwrite=overwrite)


def write_run(path: Path, count: int = 3) -> None:
    """A finished run of `count` studies."""
    folder = claim(path, count=count)
    report = Report.begin(path, system="lungmask", mode="parity", device="cpu", weights=WEIGHTS,
                          server={}, total=count)  # fmt: skip
    for index in range(count):
        name = f"{index + 1:04d}"
        entry = entry_of(name, Path(f"in/{index}.nii"), Found(), None, 0.1)
        with folder.study(name) as place:
            (place / "mask.nii.gz").write_bytes(b"mask")
            (place / "dicom" / "enhanced").mkdir(parents=True)
            (place / "dicom" / "enhanced" / "0001.dcm").write_bytes(b"slice")
            write_json(place / "result.json", report.result_file(name, entry, FILES, {}))
        report.add(index, entry | {"files": [f"{name}/{file}" for file in FILES]})
    report.save()
    folder.close()


def test_a_folder_with_results_is_refused_and_nothing_is_touched(tmp_path: Path) -> None:
    write_run(tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(InputError, match=r"--resume goes on with it, --overwrite removes"):
        claim(tmp_path)
    with pytest.raises(InputError, match="give one"):
        claim(tmp_path, resume=True, overwrite=True)
    (tmp_path / "report.json").unlink()  # a result alone is one, too
    with pytest.raises(InputError, match="earlier run"):
        claim(tmp_path)
    assert all(p.read_bytes() == data for p, data in before.items() if p.name != "report.json")


def test_overwriting_removes_what_the_report_lists_and_nothing_else(tmp_path: Path) -> None:
    write_run(tmp_path / "out")
    (tmp_path / "kept.txt").write_text("mine")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    (tmp_path / "out" / "extra").mkdir()
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    report["results"][0]["files"] += ["../kept.txt", str(tmp_path / "kept.txt"), "notes.txt"]
    (tmp_path / "out" / "report.json").write_text(json.dumps(report))
    claim(tmp_path / "out", overwrite=True).close()
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"notes.txt", "extra"}
    assert (tmp_path / "kept.txt").read_text() == "mine"


def test_overwriting_removes_the_flat_files_of_older_reports(tmp_path: Path) -> None:
    old = {"hilum_version": "0.0.1", "system": "lungmask",
           "results": [{"name": "0001", "files": ["0001.png", "0001-windowed/"]}]}  # fmt: skip
    (tmp_path / "report.json").write_text(json.dumps(old))
    (tmp_path / "0001.png").write_bytes(b"")
    (tmp_path / "0001-windowed").mkdir()
    (tmp_path / "0001-windowed" / "0001.png").write_bytes(b"")
    (tmp_path / "0002.png").write_bytes(b"")
    claim(tmp_path, overwrite=True).close()
    assert [p.name for p in tmp_path.iterdir()] == ["0002.png"]


def test_links_in_a_folder_are_not_followed_when_results_are_removed(tmp_path: Path) -> None:
    write_run(tmp_path / "out")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mask.nii.gz").write_bytes(b"mine")
    shutil.rmtree(tmp_path / "out" / "0002")
    (tmp_path / "out" / "0002").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HilumError):
        claim(tmp_path / "out", overwrite=True)
    assert (tmp_path / "elsewhere" / "mask.nii.gz").exists()


def test_folders_inside_a_study_are_kept_and_removed_with_it(tmp_path: Path) -> None:
    write_run(tmp_path)
    claim(tmp_path, resume=True).close()
    (tmp_path / "0002" / "dicom" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"0002/dicom/mine\.txt"):
        claim(tmp_path, overwrite=True)
    (tmp_path / "0002" / "dicom" / "mine.txt").unlink()
    (tmp_path / "0003" / "result.json").unlink()  # what the report lists is known without it
    claim(tmp_path, overwrite=True).close()
    assert not list(tmp_path.iterdir())


def test_what_stands_in_the_place_of_a_study_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "0002").mkdir()
    (tmp_path / "0002" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"0002/notes\.txt"):
        claim(tmp_path)
    (tmp_path / "report.json").write_text('{"by": "somebody else"}')
    with pytest.raises(InputError, match="did not write"):
        claim(tmp_path, overwrite=True)


def test_a_run_with_fewer_or_other_studies_is_not_resumed(tmp_path: Path) -> None:
    write_run(tmp_path)
    with pytest.raises(InputError, match="these are only 2"):
        claim(tmp_path, count=2, resume=True)
    with pytest.raises(InputError, match="results of lungmask, not of dlpe"):
        RunFolder.claim(tmp_path, system="dlpe", count=3, resume=True, overwrite=False)


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    first = claim(tmp_path)
    with pytest.raises(OutputError, match="another run writes"):
        claim(tmp_path)
    first.close()
    claim(tmp_path).close()


def test_a_study_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = claim(tmp_path)
    with pytest.raises(RuntimeError), folder.study("0001") as place:
        (place / "half.png").write_bytes(b"half")
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with folder.study("0001") as place:
        (place / "whole.png").write_bytes(b"whole")
        assert not (tmp_path / "0001").exists()
    assert [p.name for p in (tmp_path / "0001").iterdir()] == ["whole.png"]
    folder.close()
    with pytest.raises(OutputError, match="has ended"), folder.study("0002"):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["0001"]


def test_files_are_on_the_disk_before_they_have_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noted(opened: int) -> None:
        done.append(str(Path(f"/proc/self/fd/{opened}").readlink()))
        fsync(opened)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("rename"), replace(a, b)))
    with whole_file(tmp_path / "mask.nii.gz") as partial:
        partial.write_bytes(b"mask")
    assert done == [str(partial), "rename", str(tmp_path)]


@pytest.mark.parametrize("where", [".", "..", "0001"])
def test_results_never_hit_an_input(tmp_path: Path, where: str) -> None:
    inputs = tmp_path / "in"
    (inputs / "0001").mkdir(parents=True)
    study = inputs / "0001" / "a.png"
    study.write_bytes(b"")
    out = {".": inputs, "..": inputs, "0001": inputs / "0001"}[where]
    given = [inputs] if where != ".." else [study]
    if where == "0001":
        refuse_inputs(out / "results", given, [study])  # inside is fine: results are no studies
        given = [out]
    with pytest.raises(InputError, match="holds the input"):
        refuse_inputs(out, given, [study])


def test_a_folder_above_an_input_is_taken_unless_they_meet(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    refuse_inputs(tmp_path, [tmp_path / "scans"], [tmp_path / "scans" / "a.png"])


def test_keys_follow_content_and_not_names(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.dcm").write_bytes(b"slice")
    assert content_hash(tmp_path / "a") == content_hash(tmp_path / "b")
    first = content_hash(tmp_path / "a")
    (tmp_path / "a" / "out").mkdir()
    assert content_hash(tmp_path / "a") == first
    (tmp_path / "a" / "out" / "x.nii").write_bytes(b"result")
    assert content_hash(tmp_path / "a", without=tmp_path / "a" / "out") == first
    assert content_hash(tmp_path / "a") != first
    (tmp_path / "b" / "2.dcm").write_bytes(b"slice")
    assert content_hash(tmp_path / "b") != first
    assert content_hash(b"slice") == content_hash(tmp_path / "b" / "2.dcm")
    array = np.arange(6, dtype=np.int16)
    hashes = {content_hash(a) for a in (array, array.reshape(2, 3), array.astype(np.int32), -array)}
    assert len(hashes) == 4


def test_links_that_go_round_do_not_hang_a_key(tmp_path: Path) -> None:
    (tmp_path / "1.dcm").write_bytes(b"slice")
    (tmp_path / "again").symlink_to(tmp_path)
    content_hash(tmp_path)


@dataclasses.dataclass
class Options:
    mode: str = "parity"
    at_once: int = dataclasses.field(default=4, metadata={"changes_result": False})
    device: str = dataclasses.field(default="cpu", metadata={"from": "device"})


def test_keys_follow_options_weights_and_files() -> None:
    assert result_options(Options()) == {"mode": "parity"}
    files = {"pictures": True, "arrays": False}
    key = study_key("c", Options(), WEIGHTS, files)
    stored = json.loads(json.dumps(key))
    assert fits(key, stored)
    others = [
        study_key("d", Options(), WEIGHTS, files),
        study_key("c", Options(mode="corrected"), WEIGHTS, files),
        study_key("c", Options(), [WEIGHTS[0] | {"sha256": "cd"}], files),
        study_key("c", Options(), [WEIGHTS[0] | {"precision": "fp16"}], files),
        study_key("c", Options(), WEIGHTS, files | {"arrays": True}),
    ]
    assert not any(fits(other, stored) for other in others)
    assert fits(study_key("c", Options(at_once=1, device="cuda:0"), WEIGHTS, files), stored)
    unknown = study_key("c", Options(), [WEIGHTS[0] | {"sha256": None}], files)
    assert not fits(unknown, unknown)


def test_a_result_with_missing_or_unwritten_files_is_not_kept(tmp_path: Path) -> None:
    write_run(tmp_path)
    folder = claim(tmp_path, resume=True)
    stored = folder.result("0001")
    assert stored is not None
    assert "input" not in stored  # the folder may be passed on
    report = json.loads((tmp_path / "report.json").read_text())
    assert kept_entry(stored, Path("in/0.nii")) == report["results"][0]
    (tmp_path / "0001" / "mask.nii.gz").unlink()
    assert folder.result("0001") is None
    result = json.loads((tmp_path / "0002" / "result.json").read_text())
    (tmp_path / "0002" / "result.json").write_text(json.dumps(result | {"unwritten": "x"}))
    assert folder.result("0002") is None
    folder.close()


def test_the_summary_is_a_table_that_calls_no_program(tmp_path: Path) -> None:
    evil = ["=cmd|'/C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1"]
    entries = [
        {"input": text, "name": f"{n:04d}", "status": "ok", "score": n - 2, "flags": ["a", "b"],
         "volumes_ml": {"left": 1.5}, "slices": [1, 2], "gated": None}
        for n, text in enumerate(evil)
    ]  # fmt: skip
    write_summary(
        tmp_path / "summary.csv", [*entries, {"input": "a\udcff\x1b[2J.png", "name": "9"}]
    )
    rows = list(csv.DictReader((tmp_path / "summary.csv").open(newline="")))
    assert [row["input"] for row in rows[:-2]] == [f"'{text}" for text in evil[:-1]]
    assert rows[-2]["input"] == r"'\t=1"
    assert rows[-1]["input"] == r"a\udcff\x1b[2J.png"
    assert rows[0]["score"] == "-2"  # a number stays one
    assert rows[0]["flags"] == "a b"
    assert rows[0]["volumes_ml.left"] == "1.5"
    assert "slices" not in rows[0]
    assert rows[-1]["score"] == ""


def test_a_circle_of_links_is_no_folder_and_said_so(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    refuse_inputs(tmp_path / "loop", [tmp_path / "other"], [])
    with pytest.raises(OutputError, match="loop could not be written"):
        RunFolder.claim(tmp_path / "loop", system="dlpe", count=1, resume=False, overwrite=False)
