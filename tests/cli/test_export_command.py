"""`hilum export`, used wrongly."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import called


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--onnx", "lung"], "write NAME=VALUE"),
        (["--onnx", "resnet=x.onnx"], "resnet"),
        (["--onnx", "lung=missing.onnx"], "missing.onnx"),
        (["--option", "colour=1"], "colour"),
        (["--network", "resnet"], "resnet"),
    ],
)
def test_export_refuses_wrong_use(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = called("export", "cxr-severity", "--repository", tmp_path, *arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_export_refuses_a_file_that_is_no_network(tmp_path: Path) -> None:
    (tmp_path / "notes.onnx").write_text("not a network")
    done = called("export", "cxr-severity", "--repository", tmp_path / "r",
                  "--onnx", f"lung={tmp_path / 'notes.onnx'}")  # fmt: skip
    assert done.returncode == 2
    assert "notes.onnx" in done.stderr
