"""Building engines without a GPU: targets, validity, publication, fallback.

The builder here writes the ONNX file itself as the "engine" and runs it with ONNX Runtime, so that
engines are compared with what was stored at export for real.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import standins

from hilum.catalog import SYSTEMS
from hilum.catalog.errors import ExportError, RepositoryError
from hilum.export.check import check_repository
from hilum.export.config import parse_config
from hilum.export.declarations import write_declarations
from hilum.export.repository import export_system
from hilum.export.tensorrt.build import Built, Machine, Tried, build_engines
from hilum.export.tensorrt.machine import TensorRT, parse_gpus
from hilum.export.tensorrt.plan import PLAN_FILE, Engine, read_plan
from hilum.export.tensorrt.reference import judge
from hilum.export.tensorrt.supervise import VARIABLE, Limits, Outcome
from hilum.server.doctor.checks import Facts, Gpu, Level, check_engines
from hilum.server.doctor.engines import PlanRecord, find_engines
from hilum.server.machine import gpus
from hilum.server.model_config import model_file, read_config
from hilum.server.runtime_repository import Resources, configure, stage

SYSTEM = SYSTEMS["cxr-severity"]
H200 = Machine("10.13.3.9", "NVIDIA H200", "9.0", "580.95.05")

CONTEXTS = (123 << 20, 234 << 20)
"""Bytes that an execution context of each engine takes."""


class OnnxBuilder:
    """Engines that are ONNX files."""

    def __init__(
        self, machine: Machine = H200, other: Path | None = None, problem: str = ""
    ) -> None:
        self._machine, self.other, self.problem = machine, other, problem
        self.built: list[str] = []

    def machine(self) -> Machine:
        return self._machine

    def build(self, engine: Engine, onnx: Path, plan: Path) -> Outcome:
        self.built.append(engine.model)
        if self.problem:
            return Outcome(None, self.problem, 1.0, 0)
        shutil.copyfile(self.other or onnx, plan)
        return Outcome({"stage": "done", "messages": []}, "", 1.0, 0)

    def run(self, plan: Path, reference: Path, prefix: str) -> Tried | None:
        session = ort.InferenceSession(plan, providers=["CPUExecutionProvider"])
        names = [o.name for o in session.get_outputs()]
        with np.load(reference) as stored:
            given = {i.name: stored[f"{prefix}{i.name}"] for i in session.get_inputs()}
        return Tried(dict(zip(names, session.run(names, given), strict=True)), CONTEXTS)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository for TensorRT with stand-ins for three networks."""
    folder = tmp_path_factory.mktemp("tensorrt")
    files = {"lung": standins.write_lung(folder / "lung.onnx", 96)}
    for name in ("fpn", "pan"):
        files[name] = standins.write_disease(folder / f"{name}.onnx", 64, 0.9)
    export_system(SYSTEM, repository=folder / "repository", onnx=files, target="tensorrt")
    return folder / "repository"


@pytest.fixture
def repository(exported: Path, tmp_path: Path) -> Path:
    shutil.copytree(exported, tmp_path / "repository")
    return tmp_path / "repository"


def build(repository: Path, builder: OnnxBuilder, **options: Any) -> dict[str, Built]:
    run = build_engines(repository, builder, **options)
    found = {built.model: built for built in run.results}
    assert len(found) == run.count
    return found


def backend(repository: Path, model: str) -> str:
    return parse_config((repository / model / "config.pbtxt").read_text()).backend


def findings(repository: Path) -> Iterator[tuple[str, str, str]]:
    for f in check_repository(repository, [SYSTEM]):
        if f.model in ("cxr_lung", "cxr_fpn", "cxr_pan"):
            yield f.model, f.severity, f.what


def test_an_export_for_tensorrt_writes_configurations_plan_and_references(
    exported: Path, tmp_path: Path
) -> None:
    assert set(read_plan(exported)) == {"cxr_lung", "cxr_fpn", "cxr_pan"}
    sizes = {"cxr_fpn": {"L": 96, "S": 64}}
    profile = read_plan(exported)["cxr_fpn"].profiles[0].inputs["image"]
    assert profile.least == (1, sizes["cxr_fpn"]["L"], 96, 3)
    assert profile.most == (8, 96, 96, 3)
    for model in read_plan(exported):
        assert backend(exported, model) == "tensorrt"
        assert {"model.onnx", "reference.npz"} <= {
            f.name for f in (exported / model / "1").iterdir()
        }
    # Everything but the networks is as it is for ONNX Runtime.
    shutil.copytree(exported, tmp_path / "onnx")
    (tmp_path / "onnx" / "engines.json").unlink()
    for path in write_declarations(tmp_path / "onnx", [SYSTEM]):
        relative = path.relative_to(tmp_path / "onnx")
        same = (exported / relative).read_text() == path.read_text()
        networks = {f"{model}/config.pbtxt" for model in read_plan(exported)}
        assert same == (str(relative) not in networks), relative


def test_engines_that_were_not_built_are_reported(exported: Path) -> None:
    told = set(findings(exported))
    missing = "1/model.plan is missing: the engine was not built"
    assert {(m, "note", missing) for m in read_plan(exported)} <= told
    assert not [f for f in told if f[1] == "error"]


def test_engines_are_built_once_and_recorded(repository: Path) -> None:
    builder = OnnxBuilder()
    first = build(repository, builder)
    assert {b.outcome for b in first.values()} == {"built"}
    assert builder.built == ["cxr_fpn", "cxr_lung", "cxr_pan"]
    record = PlanRecord.from_json((repository / "cxr_fpn/1/plan.json").read_text())
    assert record.fingerprint.gpu == "NVIDIA H200"
    assert record.fingerprint.tensorrt == "10.13.3.9"
    assert record.context_bytes == CONTEXTS
    told = json.loads((repository / "cxr_fpn/1/plan.json").read_text())
    assert set(told["parity"]["outputs"]) == {"mask", "disease", "ungated", "probability"}
    assert all(e.intact and e.record is not None for e in find_engines(repository))
    assert len(find_engines(repository)) == 3
    assert not [f for f in findings(repository) if f[1] == "error" or "plan" in f[2]]
    assert {b.outcome for b in build(repository, builder).values()} == {"valid"}
    assert len(builder.built) == 3
    assert not list(repository.glob(".engine-*"))


@pytest.mark.parametrize(
    "other",
    [
        replace(H200, gpu="NVIDIA A100-SXM4-80GB", capability="8.0"),
        replace(H200, tensorrt="11.0.0.1"),
        replace(H200, driver="590.1"),
    ],
)
def test_another_machine_needs_other_engines(repository: Path, other: Machine) -> None:
    build(repository, OnnxBuilder())
    builder = OnnxBuilder(other)
    assert {b.outcome for b in build(repository, builder, models=["cxr_pan"]).values()} == {"built"}
    assert builder.built == ["cxr_pan"]
    assert build(repository, OnnxBuilder())["cxr_fpn"].outcome == "valid"


@pytest.mark.parametrize("damaged", ["model.plan", "plan.json"])
def test_a_damaged_engine_is_built_again(repository: Path, damaged: str) -> None:
    build(repository, OnnxBuilder())
    with (repository / "cxr_fpn" / "1" / damaged).open("ab") as file:
        file.write(b"x")
    builder = OnnxBuilder()
    build(repository, builder)
    assert builder.built == ["cxr_fpn"]


def test_another_onnx_file_needs_another_engine(repository: Path, tmp_path: Path) -> None:
    build(repository, OnnxBuilder())
    file = standins.write_disease(tmp_path / "fpn.onnx", 64, 0.2)
    export_system(SYSTEM, repository=repository, onnx={"fpn": file}, target="tensorrt")
    assert not (repository / "cxr_fpn/1/model.plan").exists()
    builder = OnnxBuilder()
    build(repository, builder)
    assert builder.built == ["cxr_fpn"]


def test_the_same_file_exported_again_keeps_its_engine(repository: Path, tmp_path: Path) -> None:
    build(repository, OnnxBuilder())
    file = standins.write_disease(tmp_path / "fpn.onnx", 64, 0.9)
    export_system(SYSTEM, repository=repository, onnx={"fpn": file}, target="tensorrt")
    assert build(repository, OnnxBuilder())["cxr_fpn"].outcome == "valid"


def test_a_network_whose_engine_fails_is_served_by_onnx_runtime(repository: Path) -> None:
    failing = OnnxBuilder(problem="it took more than 9 s")
    failed = build(repository, failing, models=["cxr_fpn"])["cxr_fpn"]
    assert (failed.outcome, failed.reason) == ("failed", "it took more than 9 s")
    assert backend(repository, "cxr_fpn") == "onnxruntime"
    assert backend(repository, "cxr_pan") == "tensorrt"
    assert ("cxr_fpn", "note", "no TensorRT engine: it took more than 9 s") in set(
        findings(repository)
    )
    write_declarations(repository, [SYSTEM])
    assert backend(repository, "cxr_fpn") == "onnxruntime"
    # Not tried again for the same file and machine, but elsewhere, and when asked to.
    assert build(repository, failing, models=["cxr_fpn"])["cxr_fpn"].outcome == "failed"
    assert failing.built == ["cxr_fpn"]
    retried = build(repository, OnnxBuilder(), models=["cxr_fpn"], retry=True)["cxr_fpn"]
    assert retried.outcome == "built"
    assert backend(repository, "cxr_fpn") == "tensorrt"


def test_an_engine_that_does_not_agree_is_not_published(repository: Path) -> None:
    build(repository, OnnxBuilder())
    before = (repository / "cxr_fpn/1/plan.json").read_text()
    wrong = OnnxBuilder(replace(H200, driver="590.1"), other=repository / "cxr_pan/1/model.onnx")
    assert build(repository, wrong, models=["cxr_pan"])["cxr_pan"].outcome == "built"
    lung = repository / "cxr_lung/1/model.onnx"
    failed = build(repository, OnnxBuilder(wrong.machine(), other=lung), models=["cxr_fpn"])
    assert "does not agree" in failed["cxr_fpn"].reason
    assert (repository / "cxr_fpn/1/plan.json").read_text() == before
    assert backend(repository, "cxr_fpn") == "onnxruntime"


def test_an_export_for_onnx_runtime_takes_engines_back(repository: Path, tmp_path: Path) -> None:
    file = standins.write_disease(tmp_path / "fpn.onnx", 64, 0.9)
    export_system(SYSTEM, repository=repository, onnx={"fpn": file})
    assert "cxr_fpn" not in read_plan(repository)
    assert backend(repository, "cxr_fpn") == "onnxruntime"


def test_what_cannot_be_built_is_reported(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="hilum export --target tensorrt"):
        build_engines(tmp_path, OnnxBuilder())
    with pytest.raises(RepositoryError, match="no model 'cxr_manet'"):
        build_engines(repository, OnnxBuilder(), models=["cxr_manet"])
    (repository / "cxr_fpn/1/model.onnx").unlink()
    with pytest.raises(RepositoryError, match="--network fpn --target tensorrt"):
        build_engines(repository, OnnxBuilder())


def test_judgement_of_answers() -> None:
    network = SYSTEM.network("fpn")
    mask = np.full((2, 1, 8, 8), 0.3, np.float32)
    want = {"mask": mask, "disease": np.zeros((2, 8, 8), np.uint8)}
    assert judge(network, "fp32", want, want)[1] == ""
    near = {**want, "mask": mask + np.float32(1e-3)}
    assert "mask differs by 0.001" in judge(network, "fp32", near, want)[1]
    assert judge(network, "fp16", near, want)[1] == ""
    none = {**want, "mask": mask * np.float32(np.nan)}
    assert judge(network, "fp32", none, want)[1]
    assert judge(network, "fp16", none, want)[1]
    flipped = {**want, "disease": 1 - want["disease"]}
    assert "pixels of disease differ" in judge(network, "fp16", flipped, want)[1]
    assert "disease is nothing" in judge(network, "fp32", {"mask": mask}, want)[1]
    assert "float16" in judge(network, "fp32", {**want, "mask": mask.astype(np.float16)}, want)[1]


def test_gpus_as_nvidia_smi_reports_them() -> None:
    assert parse_gpus("NVIDIA H200, 9.0, 580.95.05\n" * 2) == ("NVIDIA H200", "9.0", "580.95.05")
    for text in ("", "NVIDIA H200, 9.0, 580\nNVIDIA A100, 8.0, 580\n", "No devices were found\n"):
        with pytest.raises(ExportError, match="one kind of GPU"):
            parse_gpus(text)


def test_a_server_is_given_engines_with_all_their_profiles(
    repository: Path, tmp_path: Path
) -> None:
    resources = Resources.of_machine(gpu=True)
    with pytest.raises(RepositoryError, match="hilum engines build"):
        stage(repository, tmp_path / "without", resources, ["cxr_fpn"])
    build(repository, OnnxBuilder())
    staged = stage(repository, tmp_path / "staged", resources, ["cxr_fpn"])
    assert "tensorrt" in staged.backends
    config = read_config(tmp_path / "staged" / "cxr_fpn" / "config.pbtxt")
    assert (config.platform, model_file(config)) == ("tensorrt_plan", "model.plan")
    config.instance_group[0].profile.extend(["0", "1", "2"])
    configure(config, resources)
    assert list(config.instance_group[0].profile) == ["0", "1", "2"]


def hilum(*arguments: object) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("hilum")
    return subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, timeout=120
    )


def test_a_plan_of_other_shapes_is_refused_until_it_is_built_again(repository: Path) -> None:
    build(repository, OnnxBuilder())
    gpu = Gpu(H200.gpu, H200.capability, H200.driver, 143771)

    def refused() -> list[str]:
        engines = tuple(find_engines(repository))
        facts = Facts(server="", triton=None, tensorrt="10.13.3", gpus=(gpu,), engines=engines)
        return [str(f) for f in check_engines(facts) if f.level is Level.PROBLEM]

    assert refused() == []
    # Somebody wants batches of 4, and edits the profile but not its words.
    plan = repository / PLAN_FILE
    told = json.loads(plan.read_text("utf-8"))
    told["engines"]["cxr_fpn"]["profiles"][0]["inputs"]["image"]["max"][0] = 4
    told["engines"]["cxr_fpn"]["profiles"][0]["inputs"]["image"]["opt"][0] = 4
    plan.write_text(json.dumps(told), "utf-8")
    failing = OnnxBuilder(problem="it took too long")
    assert build(repository, failing, models=["cxr_pan"])["cxr_pan"].outcome == "valid"
    (line,) = refused()
    assert "image 1×96×96×3 8×96×96×3 8×96×96×3, here is image 1×96×96×3 4×96" in line
    assert "hilum engines build --model cxr_fpn" in line
    builder = OnnxBuilder()
    build(repository, builder)
    assert builder.built == ["cxr_fpn"]
    assert refused() == []


@pytest.mark.skipif(gpus() > 0, reason="this machine has a GPU")
def test_the_command_refuses_to_build_where_doctor_says_no(repository: Path) -> None:
    ended = hilum("engines", "build", "--repository", repository)
    assert ended.returncode == 2
    assert "no NVIDIA GPU found; an engine is built on the GPU that is to run it" in ended.stderr
    assert "--ignore-doctor" in ended.stderr


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="TensorRT is installed here")
def test_without_tensorrt_the_command_says_where_to_run_it(repository: Path) -> None:
    ended = hilum("engines", "build", "--ignore-doctor", "--repository", repository)
    assert ended.returncode == 2
    assert "TensorRT is not installed here; build engines in the container" in ended.stderr
    assert "tritonserver:26.07-py3" in ended.stderr
    assert not list(repository.glob("*/1/model.plan"))


def test_the_command_exports_for_tensorrt(tmp_path: Path) -> None:
    file = standins.write_lung(tmp_path / "lung.onnx", 96)
    repository = tmp_path / "repository"
    ended = hilum(
        "export", "cxr-severity", "--onnx", f"lung={file}", "--target", "tensorrt",
        "--repository", repository,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert f"hilum engines build --repository {repository}" in ended.stdout
    assert backend(repository, "cxr_lung") == "tensorrt"


def test_building_needs_neither_torch_nor_onnx() -> None:
    code = (
        "import sys, hilum.export.tensorrt.machine, hilum.cli.engines\n"
        "print(sorted({'torch', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.stdout.strip(), ended.stderr) == ("[]", "")


@pytest.mark.skipif(find_spec("cupy") is not None, reason="CuPy is installed here")
@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("10.11.0.33", "TensorRT 10.11.0.33 is older than 10.12"),
        ("10.12.0.36", "CuPy is not installed"),
        ("11.0.0.1", "CuPy is not installed"),
    ],
)
def test_what_a_machine_lacks_is_reported_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, words: str
) -> None:
    (tmp_path / "tensorrt.py").write_text(f"__version__ = {version!r}")
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(ExportError, match=words):
        TensorRT(Limits(60, 1 << 34), tmp_path).machine()
