"""The compatibility gate: recorded machines in, findings out; and this machine."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from recorded_plans import BUILT, RECORD, write_plan

from hilum.catalog import SYSTEMS
from hilum.catalog.errors import ExportError, ServerError
from hilum.server.binary import VARIABLE
from hilum.server.doctor import facts as gathering
from hilum.server.doctor.buildable import check_build, refuse_build
from hilum.server.doctor.checks import Facts, Finding, Gpu, Level, check, number, refuse, table
from hilum.server.doctor.engines import Engine, Fingerprint, PlanRecord, differences, find_engines
from hilum.server.doctor.facts import gather, repository_models, tensorrt_version
from hilum.server.doctor.gpu_memory import MiB, Need, shared_memory_need
from hilum.server.runtime_repository import Resources

H200 = Gpu("NVIDIA H200", "9.0", "580.95.05", 143771)
T4 = Gpu("Tesla T4", "7.5", "535.183.01", 15360)
V100 = Gpu("Tesla V100-SXM2-32GB", "7.0", "580.95.05", 32768)

CONTAINER = Facts(
    server="tritonserver 2.71.0 (installation) at /opt/tritonserver/bin/tritonserver",
    triton="2.71.0",
    tensorrt="10.13.3",
    host="127.0.0.1",
    gpus=(H200,),
    shm_free=4096 * MiB,
    shm_need=Need(64 * MiB, 1024 * MiB),
    engines=(Engine("cxr_manet", RECORD, BUILT.onnx_sha256),),
    rebuild="hilum engines build --repository /models",
)
WHEEL = Facts(
    server="tritonserver 2.51.0 (nvidia-pytriton wheel)",
    triton="2.51.0",
    embedded=True,
    shm_free=4096 * MiB,
)


def with_(facts: Facts, **changes: object) -> Facts:
    return dataclasses.replace(facts, **changes)


def levels(facts: Facts) -> list[Level]:
    return [finding.level for finding in check(facts)]


def only(facts: Facts, level: Level) -> Finding:
    """The one finding of a level."""
    (found,) = [finding for finding in check(facts) if finding.level is level]
    return found


def test_a_container_that_fits_has_nothing_to_say() -> None:
    assert set(levels(CONTAINER)) == {Level.OK}
    refuse(check(CONTAINER))


def test_the_embedded_server_is_for_the_loopback_and_says_why() -> None:
    notes = [finding for finding in check(WHEEL) if finding.level is Level.NOTE]
    assert [n.what for n in notes] == [
        "Triton 2.51.0 is older than 2.71 (26.07)",
        "no NVIDIA GPU found",
    ]
    assert "remote code execution" in notes[0].why
    assert "loopback only" in notes[0].remedy
    assert "nvcr.io/nvidia/tritonserver:26.07-py3" in notes[0].remedy
    refuse(check(WHEEL))


def test_a_server_below_the_floor_must_not_listen_to_others() -> None:
    problem = only(with_(WHEEL, host="0.0.0.0"), Level.PROBLEM)  # noqa: S104
    assert "listen on 0.0.0.0" in problem.what
    assert "bind 127.0.0.1" in problem.remedy
    with pytest.raises(ServerError, match=r"(?s)older than 2\.71.*--ignore-doctor"):
        refuse(check(with_(WHEEL, host="10.1.2.3")))


@pytest.mark.parametrize(
    ("triton", "host", "level"),
    [
        ("2.71.0", "10.1.2.3", Level.NOTE),
        ("2.75.0", "10.1.2.3", Level.NOTE),
        ("2.70.9", "10.1.2.3", Level.PROBLEM),
        (None, "10.1.2.3", Level.PROBLEM),
        (None, "::1", Level.NOTE),
    ],
)
def test_the_floor_is_a_number_and_not_a_text(triton: str | None, host: str, level: Level) -> None:
    found = only(with_(CONTAINER, triton=triton, host=host), level)
    assert found.why
    assert found.remedy


def test_without_a_server_nothing_can_be_served() -> None:
    facts = Facts(server=None, triton=None, server_missing="install one", shm_free=4096 * MiB)
    assert only(facts, Level.PROBLEM).remedy == "install one"


@pytest.mark.parametrize(
    ("triton", "gpu", "fits"),
    [
        ("2.71.0", T4, True),
        ("2.71.0", V100, False),
        ("2.52.0", V100, False),
        ("2.50.0", V100, True),
    ],
)
def test_gpus_need_the_compute_capability_of_the_server(triton: str, gpu: Gpu, fits: bool) -> None:
    gpu = dataclasses.replace(gpu, driver="580.95.05")
    facts = with_(CONTAINER, triton=triton, gpus=(gpu,), engines=())
    if fits:
        refuse(check(facts))
        return
    problem = only(facts, Level.PROBLEM)
    assert "needs 7.5" in problem.why
    assert "24.09" in problem.remedy


def test_one_old_gpu_among_new_ones_is_found() -> None:
    assert "V100" in only(with_(CONTAINER, gpus=(H200, V100), engines=()), Level.PROBLEM).what


@pytest.mark.parametrize(
    ("triton", "driver", "fits"),
    [
        ("2.71.0", "580.95.05", True),
        ("2.71.0", "615.61", True),
        ("2.71.0", "575.57.08", False),
        ("2.58.0", "575.57.08", True),
        ("2.58.0", "470.57", False),
    ],
)
def test_the_driver_must_run_the_cuda_of_the_server(triton: str, driver: str, fits: bool) -> None:
    gpu = dataclasses.replace(H200, driver=driver)
    facts = with_(CONTAINER, triton=triton, gpus=(gpu,), engines=())
    if fits:
        refuse(check(facts))
    else:
        assert "needs 5" in only(facts, Level.PROBLEM).why


@pytest.mark.parametrize(
    ("changes", "engine_changes", "told"),
    [
        ({"gpus": (dataclasses.replace(H200, name="NVIDIA H100 PCIe"),)}, {}, "GPU NVIDIA H200"),
        ({"gpus": (dataclasses.replace(H200, capability="10.0"),)}, {}, "compute capability 9.0"),
        ({"tensorrt": "10.14.1"}, {}, "TensorRT 10.13.3.9, here is 10.14.1"),
        ({}, {"onnx_sha256": "2e" * 32}, "ONNX file 1f1f"),
        (
            {},
            {"flags": ("--stronglyTyped", "--optShapes=image:4x3x512x512")},
            "flags --optShapes=image:8x3x512x512, here is --optShapes=image:4x3x512x512",
        ),
        ({}, {"flags": ("--stronglyTyped",)}, "=image:8x3x512x512, here is none"),
        ({}, {"flags": (*BUILT.flags, "level 5")}, "flags none, here is level 5"),
        (
            {},
            {"flags": tuple(reversed(BUILT.flags))},
            "flags --stronglyTyped, --optShapes=image:8x3x512x512, here is --optShapes",
        ),
    ],
)
def test_a_plan_for_something_else_is_refused_with_the_command_that_builds_it(
    changes: dict[str, object], engine_changes: dict[str, object], told: str
) -> None:
    engine = dataclasses.replace(CONTAINER.engines[0], **engine_changes)
    facts = with_(CONTAINER, engines=(engine,), **changes)
    problem = only(facts, Level.PROBLEM)
    assert told in problem.what
    assert problem.remedy == "hilum engines build --repository /models --model cxr_manet"
    with pytest.raises(ServerError, match="hilum engines build --repository /models"):
        refuse(check(facts))


def test_flags_that_are_those_of_the_build_plan_or_not_known_say_nothing() -> None:
    for flags in (BUILT.flags, None):
        engine = dataclasses.replace(CONTAINER.engines[0], flags=flags)
        assert set(levels(with_(CONTAINER, engines=(engine,)))) == {Level.OK}


@pytest.mark.parametrize(
    ("changes", "what", "remedy"),
    [
        ({"gpus": ()}, "no NVIDIA GPU found", "build where it is to be served"),
        (
            {"gpus": (dataclasses.replace(H200, driver="575.57.08"),)},
            "driver 575.57.08",
            "update the driver",
        ),
        ({"tensorrt": "10.11.0"}, "TensorRT 10.11.0", "26.07-py3 or newer"),
        ({"tensorrt": "12.0.1"}, "TensorRT 12.0.1", "with TensorRT before 12"),
        ({"gpus": (V100,), "triton": "2.50.0"}, "Tesla V100", "--target onnx"),
        ({"gpus": (V100,), "triton": "2.71.0", "tensorrt": None}, "Tesla V100", "24.09"),
    ],
)
def test_engines_are_not_built_where_they_would_not_run(
    changes: dict[str, object], what: str, remedy: str
) -> None:
    facts = with_(CONTAINER, **changes)
    (problem,) = [f for f in check_build(facts) if f.level is Level.PROBLEM]
    assert what in problem.what
    assert remedy in problem.remedy
    with pytest.raises(ExportError, match=rf"(?s){what}.*--ignore-doctor builds all the same"):
        refuse_build(check_build(facts))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tensorrt": "10.12.0"},
        {"tensorrt": "11.3.0"},
        {"tensorrt": None},
        {"gpus": (), "gpus_unread": True},
        # What matters to a running server alone:
        {"host": "0.0.0.0", "triton": None},  # noqa: S104
        {"server": None, "triton": None},
        {"shm_free": None},
        {"engines": (Engine("cxr_manet", None, problem="has no plan.json"),)},
    ],
)
def test_engines_are_built_whatever_else_the_machine_lacks(changes: dict[str, object]) -> None:
    refuse_build(check_build(with_(CONTAINER, **changes)))


def test_a_plan_outlives_its_driver_but_says_so() -> None:
    gpu = dataclasses.replace(H200, driver="585.10.01")
    note = only(with_(CONTAINER, gpus=(gpu,)), Level.NOTE)
    assert "driver 580.95.05, here is 585.10.01" in note.what
    assert "engines build" in note.remedy


def test_a_plan_without_a_record_or_gpu_or_with_other_bytes_is_refused() -> None:
    none = Engine("cxr_manet", None, problem="has no plan.json")
    assert "has no plan.json" in only(with_(CONTAINER, engines=(none,)), Level.PROBLEM).what
    damaged = dataclasses.replace(CONTAINER.engines[0], intact=False)
    assert "a plan is code" in only(with_(CONTAINER, engines=(damaged,)), Level.PROBLEM).why
    assert "--target onnx" in only(with_(CONTAINER, gpus=()), Level.PROBLEM).remedy


def test_every_part_of_a_fingerprint_is_in_its_key() -> None:
    keys = {BUILT.key()}
    for field in dataclasses.fields(Fingerprint):
        other = ("--other",) if field.name == "flags" else "other.1.2"
        keys.add(dataclasses.replace(BUILT, **{field.name: other}).key())
        assert differences(BUILT, dataclasses.replace(BUILT, **{field.name: None})) == []
    assert len(keys) == 7
    assert dataclasses.replace(BUILT).key() == BUILT.key()
    with pytest.raises(ServerError, match="without its TensorRT"):
        dataclasses.replace(BUILT, tensorrt=None).key()


def test_a_record_is_read_as_it_was_written_and_refused_when_parts_are_missing() -> None:
    assert PlanRecord.from_json(RECORD.as_json()) == RECORD
    read = json.loads(RECORD.as_json())
    del read["fingerprint"]["gpu"]
    with pytest.raises(ServerError, match=r"not the record of a plan.*gpu"):
        PlanRecord.from_json(json.dumps(read))
    read["fingerprint"]["gpu"] = None
    with pytest.raises(ServerError, match="part of the fingerprint"):
        PlanRecord.from_json(json.dumps(read))


def test_plans_of_a_repository_are_found_with_their_records(tmp_path: Path) -> None:
    folder = write_plan(tmp_path)
    (engine,) = find_engines(tmp_path)
    assert engine.model == "cxr_manet"
    assert engine.intact
    assert engine.record is not None
    assert engine.onnx_sha256 == engine.record.fingerprint.onnx_sha256
    (folder / "model.plan").write_bytes(b"PLAN")
    assert not find_engines(tmp_path)[0].intact
    assert find_engines(tmp_path, deep=False)[0].intact  # of the same size
    (folder / "model.onnx").write_bytes(b"another")
    assert find_engines(tmp_path)[0].onnx_sha256 != engine.onnx_sha256
    assert engine.flags is None
    for text, flags in (
        ('{"engines": {"cxr_manet": {"flags": ["level 4", "1×2"]}}}', ("level 4", "1×2")),
        ('{"engines": {"cxr_pan": {"flags": []}}}', None),
        ("half of a fi", None),
    ):
        (tmp_path / "engines.json").write_text(text, "utf-8")
        assert find_engines(tmp_path, deep=False)[0].flags == flags
    (folder / "plan.json").write_text("{}")
    assert "not the record" in find_engines(tmp_path)[0].problem
    (folder.parent / "config.pbtxt").write_text('backend: "onnxruntime"\n')
    assert find_engines(tmp_path) == []  # the plan lies there, but is not served


@pytest.mark.parametrize(
    ("free", "level"),
    [(63, Level.PROBLEM), (64, Level.NOTE), (1023, Level.NOTE), (1024, Level.OK)],
)
def test_shared_memory_is_compared_with_the_need(free: int, level: Level) -> None:
    last = check(with_(CONTAINER, shm_free=free * MiB))[-1]
    assert last.level is level
    if level is not Level.OK:
        assert "--shm-size=1024m" in last.remedy


def test_the_need_counts_the_tensors_of_python_processes() -> None:
    cxr = SYSTEMS["cxr-severity"]
    two, four = (Resources(True, 1, 1, 1, 1, count) for count in (2, 4))
    need = shared_memory_need(cxr.models(), two)
    assert 0 < need.least < need.full
    assert shared_memory_need(cxr.models(), four).full == 2 * need.full
    assert shared_memory_need(cxr.networks, two) == Need()  # a container's are not in Python
    clean = next(step for step in cxr.steps if step.model == "cxr_clean")
    (pixels,) = [t for t in clean.inputs if t.name == "raw"]
    side = clean.sizes["L"]
    own = shared_memory_need([clean], two)
    # mask in, mask out, both a byte each pixel, in batches of eight and two processes
    assert pixels.shape == ("L", "L")
    assert 2 * 8 * 2 * side * side < own.full - 2 * MiB < 2 * 8 * 2 * side * side * 1.01


def test_tensorrt_is_known_from_the_container(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRT_VERSION", "10.13.3.9+cuda13.0")
    assert tensorrt_version([]) == "10.13.3.9"
    monkeypatch.delenv("TRT_VERSION")
    assert tensorrt_version([str(tmp_path)]) is None
    for name in ("libnvinfer.so.10", "libnvinfer.so.9.12.0", "libnvinfer.so.10.13.3"):
        (tmp_path / name).touch()
    assert tensorrt_version([str(tmp_path)]) == "10.13.3"


def test_versions_compare_by_their_numbers() -> None:
    assert number("2.9") < number("2.71.0") < number("2.710")
    assert number("26.07-py3") == (26,)


def test_the_table_has_a_source_for_every_rule() -> None:
    rules = [rule for name in ("capability", "cuda") for rule in table()[name]]
    rules += [table()[name] for name in ("floor", "legacy", "tensorrt", "client_shared_memory")]
    assert all(url.startswith("https://") for rule in rules for url in rule["sources"])
    assert all(rule["sources"] for rule in rules)
    assert f":{table()['floor']['container']}-py3" in table()["floor"]["image"]


def test_steps_count_only_where_their_networks_are_there(tmp_path: Path) -> None:
    assert repository_models(tmp_path) == []
    for name in ("cxr_lung", "cxr_manet"):
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "1" / "model.onnx").touch()
    names = {m.model for m in repository_models(tmp_path)}
    assert names == {"cxr_lung", "cxr_manet", "cxr_clean", "cxr_zones"}
    assert {m.model for m in repository_models(tmp_path, ["cxr_lung"])} == {"cxr_lung"}
    assert {m.model for m in repository_models(tmp_path, ["cxr_severity_manet"])} == names


def test_this_machine_is_gathered(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering.machine, "gpus", lambda: 0)
    facts = gather(repository, deep=False)
    assert (facts.triton, facts.embedded) == ("2.51.0", True)
    assert facts.shm_free is not None
    monkeypatch.setenv(VARIABLE, "/nowhere/tritonserver")
    assert "not an executable" in gather(repository, deep=False).server_missing
