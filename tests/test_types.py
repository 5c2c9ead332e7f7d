"""What type checkers find in programs that use Hilum: each planted mistake, and no other."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import get_type_hints

import pytest

from hilum.client.device import Device
from hilum.client.registry import INSTALLED

PROGRAM = """
from hilum import AsyncClient, Client
from hilum.systems.cxr_severity.system import SYSTEM

def right(client: Client) -> None:
    score: int | None = client.run("cxr-severity", "a.png", network="manet", mode="corrected").score
    for outcome in client.run_many("dlpe", ["a"], in_flight=2, grid=64):
        if outcome.result is not None:
            print(outcome.result.window, score)
    for name in client.run_many("dlpe", ["a"], finish=lambda outcome: outcome.name):
        print(name.upper())
    print(client.run(SYSTEM, "a.png").score)

async def also_right(client: AsyncClient) -> None:
    print((await client.run("lungmask", "a")).volumes_ml)

def wrong(client: Client) -> None:
    client.run("cxr-severety", "a.png")  # mistake
    client.run("cxr-severity", "a.png", netwrok="manet")  # mistake
    client.run("cxr-severity", "a.png", mode="correct")  # mistake
    print(client.run("cxr-severity", "a.png").scor)  # mistake
    for outcome in client.run_many("dlpe", ["a"]):
        if outcome.result is not None:
            print(outcome.result.windo)  # mistake
    client.run_many("dlpe", ["a"], gridd=3)  # mistake
    print(client.run(SYSTEM, "a.png").scor)  # mistake

async def also_wrong(client: AsyncClient) -> None:
    print((await client.run("lungmask", "a")).volumes)  # mistake
    await client.run("lungmask", "a", claen=True)  # mistake
"""

ROOT = Path(__file__).resolve().parents[1]

PLACE = ("spacing", "affine")
"""Keywords that belong to the study."""

PLANTED = {n for n, line in enumerate(PROGRAM.splitlines(), 1) if line.endswith("# mistake")}


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


@pytest.fixture(scope="module")
def pyright() -> Path:
    tool = Path(sys.executable).with_name("basedpyright")
    if not tool.exists():
        pytest.skip("basedpyright is not installed (extra dev)")
    return tool


def test_pyright_finds_each_mistake(program: Path, pyright: Path) -> None:
    (program.parent / "pyrightconfig.json").write_text(
        json.dumps({"typeCheckingMode": "standard", "pythonVersion": "3.11"})
    )
    found = subprocess.run(
        [pyright, "--outputjson", "--pythonpath", sys.executable, "--project", program.parent],
        capture_output=True, text=True, cwd=program.parent,
    )  # fmt: skip
    errors = json.loads(found.stdout)["generalDiagnostics"]
    assert {e["range"]["start"]["line"] + 1 for e in errors if e["severity"] == "error"} == PLANTED


@pytest.mark.load
@pytest.mark.skipif(find_spec("mypy") is None, reason="mypy is not installed (extra dev)")
def test_mypy_finds_each_mistake(program: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", ROOT / ".pytest_cache/mypy",
         "--follow-imports=silent", "--ignore-missing-imports", program],
        capture_output=True, text=True, cwd=program.parent,
    )  # fmt: skip
    lines = re.findall(r"^program\.py:(\d+): error", found.stdout, re.MULTILINE)
    assert {int(line) for line in lines} == PLANTED, found.stdout


@pytest.mark.parametrize("name", list(INSTALLED))
def test_keywords_are_the_options(name: str) -> None:
    options = INSTALLED[name].options_type
    keywords = getattr(sys.modules[options.__module__], "Keywords")  # noqa: B009
    hints = get_type_hints(options)
    expected = {f.name: hints[f.name] for f in fields(options)}
    expected = {n: Device | str if t is Device else t for n, t in expected.items()}
    assert {n: t for n, t in get_type_hints(keywords).items() if n not in PLACE} == expected
