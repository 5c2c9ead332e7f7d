"""The proof on a GPU, rehearsed on the processors: every stage runs to its end on a real server."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import HILUM, hilum
from proof_repository import assemble

from hilum.catalog.errors import InputError
from hilum.proof import runner
from hilum.proof.aims import AIMS, judge
from hilum.proof.report import REHEARSAL, report
from hilum.proof.setting import FULL, LIMIT_S, REDUCED, Setting
from hilum.proof.stages import STAGES
from hilum.proof.stages.arrays import compared
from hilum.proof.utilisation import EVERY_S, watched
from hilum.proof.work import work_of


@pytest.fixture(scope="module")
def setting(dlpe_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    """A proof of which nothing is done."""
    folder = tmp_path_factory.mktemp("proof")
    repository = assemble(folder, dlpe_repository)
    yield Setting(out=folder / "out", repository=repository, given=True, rehearse=True,
                  precision="fp32")  # fmt: skip


@pytest.fixture(scope="module")
def rehearsed(setting: Setting) -> subprocess.CompletedProcess[str]:
    return hilum("bench", "gpu-proof", "--rehearse", "--repository", setting.repository,
                 "--out", setting.out)  # fmt: skip


@pytest.mark.load
def test_every_stage_runs_to_its_end(
    rehearsed: subprocess.CompletedProcess[str], setting: Setting
) -> None:
    assert rehearsed.returncode == 0, rehearsed.stderr
    for name in runner.wanted(setting, ()):
        record = runner.read(setting, name)
        assert record is not None
        assert (record["status"], record["error"]) == ("done", "")
        assert record["seconds"] < LIMIT_S
        assert all(check["holds"] for check in record["checks"]), name
    assert {n for n, s in STAGES.items() if not s.exports} == set(runner.wanted(setting, ()))
    trace = json.loads((setting.out / "dlpe-trace.json").read_text())
    assert {"study", "wait", "add", "cut"} < {event["name"] for event in trace["traceEvents"]}


@pytest.mark.load
def test_a_rehearsal_passes_no_aim(
    rehearsed: subprocess.CompletedProcess[str], setting: Setting
) -> None:
    record = json.loads((setting.out / "bench.json").read_text())
    aims = record["tables"]["aims"]
    assert [row["verdict"] for row in aims] == ["rehearsed"] * len(AIMS)
    assert all(row["measured"] > 0 for row in aims)
    assert {row["verdict"] for row in record["tables"]["checks"]} == {"rehearsed"}
    assert "measured" not in record["tables"] and "documented" not in record["tables"]
    assert "REHEARSAL" in record["title"] and record["notes"][0] == REHEARSAL
    assert REHEARSAL in " ".join(rehearsed.stderr.split())
    for page in ("bench.md", "bench.html"):
        assert (setting.out / page).read_text().count("REHEARSAL") >= 2


@pytest.mark.load
def test_every_timed_figure_has_its_floor(
    rehearsed: subprocess.CompletedProcess[str], setting: Setting
) -> None:
    rows = report(setting).record.tables["figures_and_floors"]
    timed = [row for row in rows if "took_s" in row]
    assert len(timed) > 10
    for row in timed:
        assert row["floor_by_bytes_s"] > 0
        assert row["times_the_floor"] > 1, row["name"]


@pytest.mark.load
def test_what_is_done_is_not_done_again(
    rehearsed: subprocess.CompletedProcess[str], setting: Setting
) -> None:
    files = {f: f.stat().st_mtime_ns for f in (setting.out / "stages").iterdir()}
    said: list[str] = []
    runner.run(setting, (), said.append)
    assert said == [f"{name}: done before" for name in runner.wanted(setting, ())]
    assert files == {f: f.stat().st_mtime_ns for f in (setting.out / "stages").iterdir()}


@pytest.mark.load
def test_a_proof_of_other_options_is_refused(
    rehearsed: subprocess.CompletedProcess[str], setting: Setting
) -> None:
    with pytest.raises(InputError, match="holds a proof with other options"):
        runner.run(replace(setting, rehearse=False), (), print)
    with pytest.raises(InputError, match=r"no stage 'speed'; there are hardware, tests"):
        runner.run(setting, ("speed",), print)
    with pytest.raises(InputError, match="holds other files"):
        runner.run(replace(setting, out=setting.repository), (), print)


def test_a_stage_that_is_cut_off_is_run_again(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, said = replace(setting, out=tmp_path / "out"), []
    runner.run(own, ("hardware",), said.append, limit_s=0.05)
    record = runner.read(own, "hardware")
    assert record is not None and record["status"] == runner.CUT_OFF
    found = report(own)
    assert not found.holds and not found.complete
    runner.run(own, ("hardware",), said.append)
    assert runner.is_done(own, "hardware")
    assert report(own).holds and not report(own).complete


def test_a_stage_that_breaks_is_reported_and_the_others_go_on(
    setting: Setting, tmp_path: Path
) -> None:
    """And what it would have served waits for nothing that is not there."""
    own = replace(setting, out=tmp_path / "out", repository=tmp_path / "nothing")
    runner.run(own, ("hardware", "doctor", "networks"), print)
    broken = runner.read(own, "networks")
    assert broken is not None and broken["status"] == runner.FAILED
    assert "no model repository" in broken["error"]
    assert runner.is_done(own, "hardware")
    assert runner.is_done(own, "doctor")
    record = json.loads((own.out / "stages" / "doctor.json").read_text())
    record["checks"][0]["holds"] = False
    (own.out / "stages" / "doctor.json").write_text(json.dumps(record))
    assert not runner.is_done(own, "doctor")  # what was mended is looked at again


def test_stages_wait_for_the_export(tmp_path: Path) -> None:
    own = Setting(out=tmp_path / "out", repository=tmp_path / "r", given=False, rehearse=True)
    runner.run(own, ("engines", "doctor"), print)
    for name in ("engines", "doctor"):
        record = runner.read(own, name)
        assert record is not None and record["status"] == runner.WAITS


def test_a_gpu_is_needed_where_nothing_is_rehearsed(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    refused = hilum("bench", "gpu-proof", "--out", tmp_path / "out",
                    env={"CUDA_VISIBLE_DEVICES": ""})  # fmt: skip
    assert refused.returncode == 2
    assert "cuda:0 cannot be used" in refused.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "value", "rehearsed", "gpu", "verdict"),
    [
        ("dlpe", 9.9, False, "NVIDIA H100 80GB HBM3", "pass"),
        ("dlpe", 10.1, False, "NVIDIA H200", "fail"),
        ("dlpe", 10.1, False, "NVIDIA L4", "not comparable"),
        ("pspnet", 299.0, False, "NVIDIA H200", "fail"),
        ("pspnet", 301.0, False, "NVIDIA L4", "pass"),
        ("pspnet", 301.0, True, "NVIDIA H200", "rehearsed"),
        ("pspnet", 301.0, False, "", "rehearsed"),
        ("manet", None, True, "", "not measured"),
    ],
)
def test_verdicts(name: str, value: float, rehearsed: bool, gpu: str, verdict: str) -> None:
    gpus = (gpu,) if gpu else ()
    assert judge(AIMS[name], value, rehearsed=rehearsed, gpus=gpus) == verdict


def test_work_is_what_the_layers_do(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    layers = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1, bias=False), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.ConvTranspose2d(8, 4, 2, stride=2, bias=False),
    ).eval()  # fmt: skip
    x = torch.zeros(2, 3, 16, 16)
    torch.onnx.export(
        layers, (x,), tmp_path / "m.onnx", input_names=["x"], dynamo=True, external_data=False,
        dynamic_shapes=({0: torch.export.Dim("N")},), verbose=False,
    )  # fmt: skip
    found = work_of(tmp_path / "m.onnx", {"x": (5, 3, 16, 16)})
    first, second = 5 * 8 * 16 * 16 * 3 * 9, 5 * 8 * 8 * 8 * 4 * 4
    assert found.flops == 2 * (first + second)
    weights = 8 * 3 * 9 + 8 * 4 * 4
    assert found.moved_bytes >= 4 * (weights + 5 * 3 * 16 * 16 + 5 * 4 * 16 * 16)
    assert found.moved_bytes < 4 * (weights + 5 * 3 * 16 * 16 + 5 * 4 * 16 * 16) + 200


def test_one_pixel_is_seen() -> None:
    mask = np.zeros((4, 4), np.uint8)
    mask[1:3, 1:3] = 1
    other = mask.copy()
    other[0, 0] = 1
    (row,) = compared("a mask", {"m": mask}, {"m": other})
    assert (row["differing"], row["of"]) == (1, 16)
    assert row["dice"] == pytest.approx(8 / 9)


def test_sizes_of_a_proof_are_those_of_the_aims() -> None:
    assert FULL.grid == 512 and FULL.concurrencies == (1, 2, 4, 8, 16, 32)
    assert REDUCED.grid < FULL.grid
    held: Any = Setting.parse(Setting(
        out=Path("a"), repository=Path("b"), given=False, rehearse=False).text())  # fmt: skip
    assert held.device == "cuda:0" and held.memory == "cuda" and held.out == Path("a")


def test_the_process_of_a_stage_names_what_is_wrong(tmp_path: Path, setting: Setting) -> None:
    bad = setting.at("localhost:1")
    done = subprocess.run(
        [sys.executable, "-m", "hilum.proof.stage", "networks", str(tmp_path / "done")],
        input=bad.text(), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert "error: " in done.stderr and "localhost:1" in done.stderr
    assert not (tmp_path / "done").exists()


def test_use_of_a_gpu_is_read_from_nvml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recorded GPU that does not report its power: the rest is read all the same."""
    (tmp_path / "pynvml.py").write_text(
        "from types import SimpleNamespace as N\n"
        "class NVMLError(Exception): pass\n"
        "def nvmlInit(): pass\n"
        "def nvmlDeviceGetCount(): return 1\n"
        "def nvmlDeviceGetHandleByIndex(i): return i\n"
        "def nvmlDeviceGetUtilizationRates(h): return N(gpu=50, memory=25)\n"
        "def nvmlDeviceGetMemoryInfo(h): return N(used=3 << 30)\n"
        "def nvmlDeviceGetPowerUsage(h): raise NVMLError\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    kept: list[Any] = []
    with watched(True, kept):
        time.sleep(3 * EVERY_S)
    assert {row["what"]: row["most"] for row in kept} == {
        "GPU 0: use, share of 1": 0.5, "GPU 0: its memory busy, share of 1": 0.25,
        "GPU 0: memory in use, GiB": 3.0,
    }  # fmt: skip


def test_an_interrupt_ends_the_stage_too(setting: Setting, tmp_path: Path) -> None:
    own = tmp_path / "out"
    proof = subprocess.Popen(
        [*HILUM, "bench", "gpu-proof", "--rehearse", "--stage", "tests", "--repository",
         setting.repository, "--out", own], stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert proof.stderr is not None
    assert proof.stderr.readline().startswith("tests: ")
    deadline = time.monotonic() + 60
    while not (stages := [child for child in _children(proof.pid) if _children(child)]):
        assert time.monotonic() < deadline  # until it is at work: its pytest runs
        time.sleep(0.05)
    proof.terminate()
    assert proof.wait(timeout=30) == 128 + signal.SIGTERM
    assert not any(Path(f"/proc/{child}").exists() for child in stages)
    assert not (own / "stages" / "tests.json").exists()


def _children(pid: int) -> list[int]:
    try:
        return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []
