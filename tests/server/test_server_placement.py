"""Networks on GPUs: recorded machines with 1, 2 and 8 of them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import pytest
import small_repository
from typer.testing import CliRunner

from hilum.catalog.errors import ServerError
from hilum.cli import app
from hilum.server import gpus as reading
from hilum.server.binary import find_server
from hilum.server.doctor import facts as gathering
from hilum.server.doctor.engines import Fingerprint, PlanRecord, context_bytes
from hilum.server.environment import server_environment
from hilum.server.gpus import Device, choose, parse_devices, visible
from hilum.server.machine import gpus
from hilum.server.model_config import read_config
from hilum.server.placement import ESTIMATED, REPORTED, MiB, network_need, network_needs, place
from hilum.server.runtime_repository import Resources, stage

GiB = 1024 * MiB

RECORDED = """\
GPU-1f2e3d4c-0000-4444-8888-0123456789ab, NVIDIA H200, 9.0, 580.95.05, 143771, 143166
GPU-1f2e9999-0000-4444-8888-0123456789ab, NVIDIA H200, 9.0, 580.95.05, 143771, 90000
GPU-77777777-0000-4444-8888-0123456789ab, Tesla T4, 7.5, 535.183.01, 15360, 15097
"""
H200, BUSY, T4 = parse_devices(RECORDED)


def free(*gigabytes: float) -> list[int]:
    """Free bytes of GPUs."""
    return [int(g * GiB) for g in gigabytes]


@pytest.mark.parametrize("count", [1, 2, 8])
def test_where_all_fit_everywhere_all_are_everywhere(count: int) -> None:
    needs = {"lung": 2 * GiB, "airway": 2 * GiB, "vessel": GiB}
    everywhere = tuple(range(count))
    assert place(needs, free(*[6] * count)) == dict.fromkeys(needs, everywhere)


@pytest.mark.parametrize("count", [2, 8])
def test_where_not_all_fit_on_one_each_has_a_place_before_any_has_two(count: int) -> None:
    needs = {f"network{n}": 3 * GiB for n in range(count)} | {"small": GiB}
    found = place(needs, free(*[4] * count))
    alone = [found[f"network{n}"] for n in range(count)]
    assert sorted(alone) == [(n,) for n in range(count)]
    assert found["small"] == tuple(range(count))


@pytest.mark.parametrize("gigabytes", [[5], [3, 2.5], [1, 1, 1, 1, 2, 1, 1, 1]])
def test_no_gpu_is_given_more_than_it_has(gigabytes: list[float]) -> None:
    needs = {"a": 2 * GiB, "b": GiB, "c": GiB // 2, "d": GiB // 2}
    found = place(needs, free(*gigabytes))
    assert set(found) == set(needs)
    assert all(found.values())
    for gpu, most in enumerate(gigabytes):
        assert sum(needs[n] for n, where in found.items() if gpu in where) <= most * GiB + 1


def test_the_largest_goes_where_most_is_free() -> None:
    assert place({"large": 3 * GiB, "small": 2 * GiB}, free(2, 3)) == {"large": (1,), "small": (0,)}


@pytest.mark.parametrize(
    ("gigabytes", "name", "told"),
    [
        ([1.0], "large", "2048 .*, and the emptiest, GPU 0, has 1024 MiB left .of 1024 MiB free"),
        ([2.5], "small", "1024 .*, and the emptiest, GPU 0, has 512 MiB left .of 2560 MiB free"),
        ([2.0, 0.5], "small", "1024 .*, and the emptiest, GPU 1, has 512 MiB left .of 512 MiB"),
        ([1.5] * 8, "large", "2048 .*, and the emptiest, GPU 0, has 1536 MiB left"),
    ],
)
def test_what_does_not_fit_is_named(gigabytes: list[float], name: str, told: str) -> None:
    with pytest.raises(ServerError, match=f"{name} fits no GPU: {told}.*--model.*--gpus"):
        place({"small": GiB, "large": 2 * GiB}, free(*gigabytes))


def exported(folder: Path) -> Path:
    """Two networks, one of them a slab's, and a step."""
    for name, head in (
        ("cxr_lung", "max_batch_size: 8\ninput { name: 'x' data_type: TYPE_FP32 dims: 3 }\n"),
        (
            "dlpe_lung_x",
            "max_batch_size: 0\n"
            "input { name: 'slab' data_type: TYPE_FP16 dims: [ -1, -1, -1 ] }\n"
            "output { name: 'mask' data_type: TYPE_UINT8 dims: [ -1, -1, -1 ] }\n",
        ),
    ):
        config = f'backend: "onnxruntime"\n{head}'
        small_repository.write_onnx(folder, name, config)
    small_repository.write_python(folder, "step", "", 'backend: "python"\nmax_batch_size: 8\n')
    return folder


def test_the_need_is_weights_and_tensors_of_the_largest_batch(tmp_path: Path) -> None:
    folder = exported(tmp_path)
    batched, slab = (read_config(folder / n / "config.pbtxt") for n in ("cxr_lung", "dlpe_lung_x"))
    assert network_need(batched, 1000, 1) * ESTIMATED == 1000 + 8 * 3 * 4
    assert network_need(batched, 1000, 3) * ESTIMATED == 3 * (1000 + 8 * 3 * 4)
    assert network_need(slab, 0, 1) * ESTIMATED == 40 * 512 * 512 * (2 + 1)


def with_engine(repository: Path, name: str, *contexts: int) -> Path:
    """A network that an engine serves, with the record of its builder."""
    version = repository / name / "1"
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text(
        "platform: 'tensorrt_plan'\nmax_batch_size: 8\n"
        "input { name: 'x' data_type: TYPE_FP32 dims: 3 }\n"
    )
    plan = b"plan" * 250
    (version / "model.plan").write_bytes(plan)
    built = Fingerprint("ab" * 32, "10.13.3.9", "NVIDIA H200", "9.0", "580.95.05", ())
    digest = hashlib.sha256(plan).hexdigest()
    record = PlanRecord(built, digest, len(plan), "0.1.0", contexts or None)
    (version / "plan.json").write_text(record.as_json())
    return version


BORDER = 8 * 3 * 4
"""Bytes of the tensors of `with_engine`."""


@pytest.mark.parametrize("contexts", [(2 * GiB,), (GiB // 8, GiB // 2, 2 * GiB)])
def test_what_an_engine_reports_counts_for_every_context(
    tmp_path: Path, contexts: tuple[int, ...]
) -> None:
    with_engine(tmp_path, "cxr_manet", *contexts)
    config = read_config(tmp_path / "cxr_manet" / "config.pbtxt")
    needs = network_needs(tmp_path, [(config, 2)])
    known = 2 * (1000 + BORDER + sum(contexts))
    assert needs == {"cxr_manet": pytest.approx(known / REPORTED, abs=1)}


def test_engines_that_do_not_report_are_estimated(tmp_path: Path) -> None:
    with_engine(tmp_path, "silent")
    old = with_engine(tmp_path, "old") / "plan.json"
    told = json.loads(old.read_text())
    del told["context_bytes"]  # as records were before it was told
    old.write_text(json.dumps(told))
    (with_engine(tmp_path, "damaged", 2 * GiB) / "model.plan").write_bytes(b"plan" * 251)
    unread = with_engine(tmp_path, "unread") / "plan.json"
    unread.write_text(json.dumps(told | {"context_bytes": ["much"]}))
    with_engine(tmp_path, "replaced", 2 * GiB).parent.joinpath("config.pbtxt").write_text(
        "backend: 'onnxruntime'\nmax_batch_size: 8\n"
        "input { name: 'x' data_type: TYPE_FP32 dims: 3 }\n"
    )
    (tmp_path / "replaced" / "1" / "model.onnx").write_bytes(b"onnx" * 250)
    with_engine(tmp_path, "told", 2 * GiB)
    assert context_bytes(tmp_path) == {"told": 2 * GiB}
    configs = [read_config(file) for file in sorted(tmp_path.glob("*/config.pbtxt"))]
    needs = network_needs(tmp_path, [(config, 1) for config in configs])
    assert needs.pop("told") > 2 * GiB
    assert needs.pop("damaged") * ESTIMATED == 1004 + BORDER
    assert set(needs) == {"old", "replaced", "silent", "unread"}
    assert {need * ESTIMATED for need in needs.values()} == {1000 + BORDER}


def test_engines_are_placed_by_what_they_report(tmp_path: Path) -> None:
    source = tmp_path / "built"
    for name in ("large", "small"):
        with_engine(source, name, GiB if name == "large" else GiB // 4)
    resources = Resources(True, 1, 1, 1, 1, 4, gpu_free=tuple(free(1.2, 0.5)))
    staged = stage(source, tmp_path / "run", resources)
    assert groups(staged.folder, "large")[2] == [0]
    assert groups(staged.folder, "small")[2] == [1]
    with pytest.raises(ServerError, match="large fits no GPU: 1138 MiB"):
        stage(source, tmp_path / "tight", dataclasses.replace(resources, gpu_free=(GiB,)))


def test_a_server_numbers_gpus_as_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(reading.ORDER[0], raising=False)
    binary = find_server().binary
    assert server_environment(binary)[reading.ORDER[0]] == "PCI_BUS_ID"
    monkeypatch.setenv(reading.ORDER[0], "FASTEST_FIRST")
    assert server_environment(binary)[reading.ORDER[0]] == "FASTEST_FIRST"


def groups(folder: Path, name: str) -> tuple[int, int, list[int]]:
    (group,) = read_config(folder / name / "config.pbtxt").instance_group
    return group.kind, group.count, list(group.gpus)


def test_staged_networks_are_given_their_gpus_and_steps_are_not(tmp_path: Path) -> None:
    folder = exported(tmp_path / "exported")
    resources = Resources(True, 2, 1, 2, 1, 4, gpu_free=tuple(free(1, 0.01, 1)))
    staged = stage(folder, tmp_path / "run", resources)
    auto, gpu, cpu = 0, 1, 2
    assert groups(staged.folder, "cxr_lung") == (gpu, 2, [0, 1, 2])
    assert groups(staged.folder, "dlpe_lung_x") == (gpu, 2, [0, 2])
    assert groups(staged.folder, "step") == (cpu, 4, [])
    assert staged.instances == {"onnxruntime": 2 * 3 + 2 * 2, "python": 4}
    untold = stage(folder, tmp_path / "untold", Resources(True, 2, 1, 2, 1, 4))
    assert groups(untold.folder, "cxr_lung") == (auto, 2, [])
    with pytest.raises(ServerError, match="dlpe_lung_x fits no GPU"):
        tight = dataclasses.replace(resources, gpu_free=tuple(free(0.01)))
        stage(folder, tmp_path / "tight", tight)
    assert not (tmp_path / "tight").exists()


def test_gpus_are_read_from_what_nvidia_smi_prints() -> None:
    assert Device("GPU-77777777-0000-4444-8888-0123456789ab", "Tesla T4", "7.5", "535.183.01",
                  15360, 15097) == T4  # fmt: skip
    failed = "NVIDIA-SMI has failed because it couldn't communicate with the driver\n"
    assert parse_devices(failed) == ()


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (None, (H200, BUSY, T4)),
        ("", ()),
        ("-1", ()),
        ("2,0", (T4, H200)),
        ("1, 7, 0", (BUSY,)),  # as CUDA does: nothing after one that is not there
        ("GPU-777", (T4,)),
        ("GPU-1f2e", ()),  # two begin so
        ("MIG-1f2e", ()),
    ],
)
def test_servers_see_the_gpus_that_cuda_shows(
    wanted: str | None, expected: tuple[Device, ...]
) -> None:
    assert visible((H200, BUSY, T4), wanted) == expected


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with the recorded GPUs."""
    monkeypatch.setattr(reading, "_all", lambda: (H200, BUSY, T4))
    monkeypatch.setattr(reading.machine, "gpus", lambda: 3)
    for name in (reading.VISIBLE, reading.ORDER[0]):
        monkeypatch.setenv(name, "0")


@pytest.mark.usefixtures("three")
def test_chosen_gpus_are_all_that_doctor_staging_and_server_see(tmp_path: Path) -> None:
    choose("0,1")
    assert (os.environ[reading.VISIBLE], os.environ[reading.ORDER[0]]) == ("0,1", "PCI_BUS_ID")
    facts = gathering.gather_machine()
    assert [g.name for g in facts.gpus] == ["NVIDIA H200", "NVIDIA H200"]
    assert not facts.gpus_unread
    resources = Resources.of_machine(gpu=True)
    assert resources.gpu_free == (143166 * MiB, 90000 * MiB)
    staged = stage(exported(tmp_path / "exported"), tmp_path / "run", resources)
    assert groups(staged.folder, "dlpe_lung_x")[2] == [0, 1]


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize("wanted", ["3", "0,3", "a", "0,", "1,1", "-1", "01,1"])
def test_gpus_that_are_not_there_are_refused(wanted: str) -> None:
    with pytest.raises(ServerError, match="no GPU 3 .* GPUs 0 to 2" if "3" in wanted else "--gpus"):
        choose(wanted)
    assert os.environ[reading.VISIBLE] == "0"


@pytest.mark.skipif(gpus() > 0, reason="this machine has a GPU")
def test_serve_refuses_gpus_that_this_machine_lacks(repository: Path) -> None:
    done = CliRunner().invoke(app, ["serve", "--repository", str(repository), "--gpus", "0"])
    assert done.exit_code == 3
    assert "there is no GPU 0 on this machine; it has no NVIDIA GPU" in done.stderr
