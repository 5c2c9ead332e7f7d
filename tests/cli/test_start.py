"""How much the command line imports before it does anything: users wait for it every time."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, sys
from hilum.cli import app
try:
    app(json.loads(sys.argv[1]))
except SystemExit:
    pass
print(json.dumps(sorted(sys.modules)))
"""

HEAVY = {"torch", "scipy", "grpc", "tritonclient", "cv2", "pydicom", "onnx", "onnxruntime"}


def imported(*arguments: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(arguments)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "arguments",
    [("systems",), ("weights", "list"), ("export", "--help"), ("serve", "--help")],
    ids=" ".join,
)
def test_a_command_imports_no_library_that_it_does_not_need(arguments: tuple[str, ...]) -> None:
    assert not HEAVY & imported(*arguments)


def test_a_run_imports_its_own_pipeline_alone() -> None:
    found = imported("run", "cxr-severity", "--help")
    pipelines = "hilum.systems."
    assert f"{pipelines}cxr_severity.system" in found
    assert not {f"{pipelines}{name}" for name in ("dlpe", "covid_mtl", "lungmask")} & found
    assert not {"torch", "scipy", "nibabel"} & found
