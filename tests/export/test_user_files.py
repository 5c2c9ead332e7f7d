"""ONNX files of the user's in a network's place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import standins
from onnx import ModelProto, TensorProto, helper

from hilum.catalog import SYSTEMS
from hilum.catalog import cxr_severity as catalog
from hilum.catalog.errors import ExportError
from hilum.export.repository import export_system
from hilum.export.systems.cxr_severity.recipe import core_signature
from hilum.export.user_file import read_user_file

SYSTEM = SYSTEMS["cxr-severity"]
FPN = SYSTEM.network("fpn")

Change = Callable[[ModelProto], None]


def changed(tmp_path: Path, change: Change) -> Path:
    path = standins.write_disease(tmp_path / "fpn.onnx", 64, 0.9)
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)
    return path


def dim(index: int, value: int | str, *, output: bool = False, which: int = 0) -> Change:
    def change(model: ModelProto) -> None:
        info = (model.graph.output if output else model.graph.input)[which]
        target = info.type.tensor_type.shape.dim[index]
        if isinstance(value, int):
            target.dim_value = value
        else:
            target.dim_param = value

    return change


def rename(old: str, new: str) -> Change:
    def change(model: ModelProto) -> None:
        for info in (*model.graph.input, *model.graph.output):
            info.name = new if info.name == old else info.name
        for node in model.graph.node:
            for names in (node.input, node.output):
                for position, name in enumerate(names):
                    names[position] = new if name == old else name

    return change


def drop_cls(model: ModelProto) -> None:
    del model.graph.output[1]


def element(kind: int) -> Change:
    def change(model: ModelProto) -> None:
        model.graph.input[0].type.tensor_type.elem_type = kind

    return change


def opset(version: int) -> Change:
    def change(model: ModelProto) -> None:
        model.opset_import[0].version = version

    return change


def flat_input(model: ModelProto) -> None:
    del model.graph.input[0].type.tensor_type.shape.dim[3]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (rename("image", "x"), ["inputs are 'x'", "'image'"]),
        (rename("mask", "y"), ["no output 'mask'", "'y'"]),
        (drop_cls, ["no output 'cls'"]),
        (element(TensorProto.FLOAT16), ["'image' is FP16", "FP32"]),
        (element(TensorProto.DOUBLE), ["'image' is FP64", "FP32"]),
        (element(TensorProto.UNDEFINED), ["'image' is UNDEFINED", "FP32"]),
        (element(99), ["'image' is #99", "FP32"]),
        (flat_input, ["3 axes"]),
        (dim(1, 1), ["[?, 1, 64, 64]"]),
        (dim(3, 32), ["[?, 3, 64, 32]"]),
        (dim(2, "H"), ["height and width must be fixed"]),
        (dim(0, 1), ["fixed batch of 1", "dynamic_axes"]),
        (dim(0, 4), ["fixed batch of 4"]),
        (dim(2, 32, output=True), ["'mask'", "S = 64"]),
        (opset(26), ["operator set 26", "opset_version=18"]),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, change: Change, words: list[str]) -> None:
    path = changed(tmp_path, change)
    with pytest.raises(ExportError) as error:
        read_user_file(path, FPN, core_signature(FPN))
    for word in [str(path), *words]:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "without a network|not a valid ONNX"), (b"not onnx at all" * 50, "not an ONNX file")],
)
def test_what_is_not_onnx(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "file.onnx"
    path.write_bytes(content)
    with pytest.raises(ExportError, match=words):
        read_user_file(path, FPN, core_signature(FPN))
    with pytest.raises(ExportError, match="no such file"):
        read_user_file(tmp_path / "nothing.onnx", FPN, core_signature(FPN))


def test_a_truncated_file(tmp_path: Path) -> None:
    path = standins.write_disease(tmp_path / "fpn.onnx", 64, 0.9)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ExportError, match=r"not an ONNX file|not a valid ONNX"):
        read_user_file(path, FPN, core_signature(FPN))


def test_sizes_are_read_from_the_file(tmp_path: Path) -> None:
    files = {
        "lung": standins.write_lung(tmp_path / "lung.onnx", 96),
        "fpn": standins.write_disease(tmp_path / "fpn.onnx", 64, 0.9),
    }
    lung, fpn = export_system(SYSTEM, repository=tmp_path / "repository", onnx=files)
    assert (lung["sizes"], fpn["sizes"]) == ({"L": 96}, {"L": 96, "S": 64})
    assert fpn["weights"]["source"] == "user file fpn.onnx"
    assert fpn["parity"]["reference"] == "the user's file in ONNX Runtime"
    config = (tmp_path / "repository" / "cxr_severity_fpn" / "config.pbtxt").read_text()
    assert "dims: [96, 96, 3]" in config
    session = ort.InferenceSession(tmp_path / "repository" / "cxr_fpn" / "1" / "model.onnx")
    shapes = {t.name: t.shape for t in (*session.get_inputs(), *session.get_outputs())}
    assert shapes == {
        "image": ["N", 96, 96, 3],
        "lung": ["N", 96, 96],
        "box": ["N", 4],
        "mask": ["N", 1, 64, 64],
        "disease": ["N", 512, 512],
        "ungated": ["N", 512, 512],
        "probability": ["N", 1],
    }


def test_the_lung_network_in_the_repository_decides_for_later_ones(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    lung = standins.write_lung(tmp_path / "lung.onnx", 96)
    export_system(SYSTEM, repository=repository, onnx={"lung": lung})
    fpn = standins.write_disease(tmp_path / "fpn.onnx", 64, 0.9)
    (found,) = export_system(SYSTEM, repository=repository, onnx={"fpn": fpn})
    assert found["sizes"] == {"L": 96, "S": 64}


def test_a_served_file_is_taken_as_it_is(tmp_path: Path) -> None:
    core = standins.write_disease(tmp_path / "core.onnx", 64, 0.9)
    export_system(SYSTEM, repository=tmp_path / "first", onnx={"fpn": core})
    made = tmp_path / "first" / "cxr_fpn" / "1" / "model.onnx"
    (found,) = export_system(SYSTEM, repository=tmp_path / "second", onnx={"fpn": made})
    copy = tmp_path / "second" / "cxr_fpn" / "1" / "model.onnx"
    assert copy.read_bytes() == made.read_bytes()
    assert found["parity"] is None
    assert found["sizes"] == {"L": catalog.LUNG_SIZE, "S": 64}
    assert "nothing was compared" in (copy.parent / "README.md").read_text()


def test_a_served_file_of_another_size_than_the_lungs(tmp_path: Path) -> None:
    core = standins.write_disease(tmp_path / "core.onnx", 64, 0.9)
    export_system(SYSTEM, repository=tmp_path / "first", onnx={"fpn": core})
    files = {
        "fpn": tmp_path / "first" / "cxr_fpn" / "1" / "model.onnx",
        "lung": standins.write_lung(tmp_path / "lung.onnx", 96),
    }
    with pytest.raises(ExportError, match=r"L = 512.*96.*must agree"):
        export_system(SYSTEM, repository=tmp_path / "second", onnx=files)


def test_logits_are_no_probabilities(tmp_path: Path) -> None:
    def no_sigmoid(model: ModelProto) -> None:
        (sigmoid,) = (n for n in model.graph.node if n.op_type == "Sigmoid")
        sigmoid.op_type = "Identity"

    path = changed(tmp_path, no_sigmoid)
    with pytest.raises(ExportError, match=r"'mask'.*leaves 0…1.*sigmoid"):
        export_system(SYSTEM, repository=tmp_path / "repository", onnx={"fpn": path})
    assert not (tmp_path / "repository" / "cxr_fpn").exists()


def test_an_older_operator_set_is_converted(tmp_path: Path) -> None:
    shape = ["N", 3, 64, 64]
    axes = {"axes": [1], "keepdims": 1}
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], **axes),
        helper.make_node("Sigmoid", ["mean"], ["mask"]),
        helper.make_node("ReduceMean", ["mask"], ["all"], axes=[2, 3], keepdims=0),
        helper.make_node("Identity", ["all"], ["cls"]),
    ]
    graph = helper.make_graph(
        nodes,
        "old",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [
            helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["N", 1, 64, 64]),
            helper.make_tensor_value_info("cls", TensorProto.FLOAT, ["N", 1]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    onnx.save(model, tmp_path / "old.onnx")
    (found,) = export_system(
        SYSTEM, repository=tmp_path / "repository", onnx={"fpn": tmp_path / "old.onnx"}
    )
    assert found["file"]["opset"] == 18
    assert found["parity"]["largest_difference"]["core mask"] <= 1e-6


def test_the_session_never_sees_where_the_file_lay(tmp_path: Path) -> None:
    path = standins.write_disease(tmp_path / "fpn.onnx", 64, 0.9)
    repository = tmp_path / "repository"
    export_system(SYSTEM, repository=repository, onnx={"fpn": path})
    for file in (repository / "cxr_fpn" / "1").iterdir():
        assert str(tmp_path).encode() not in file.read_bytes(), file.name
    found = json.loads((repository / "cxr_fpn" / "1" / "certificate.json").read_text())
    assert found["weights"]["kind"] == "user file"
    assert np.isfinite(found["parity"]["largest_difference"]["mask"])
