"""The rooms: imports point down only and in no circle; modules and benchmarks stay small."""

from __future__ import annotations

import ast
import graphlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

grimp = pytest.importorskip("grimp", reason="import-linter is not installed (extra dev)")


def test_imports_point_down_the_list_of_rooms() -> None:
    """The contract of pyproject.toml; lazy and typing imports count."""
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()",
         "--no-cache"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "1 kept, 0 broken" in done.stdout


def test_imports_are_absolute_between_rooms_and_relative_inside_one() -> None:
    wrong = []
    for room in (path for path in (ROOT / "hilum").iterdir() if path.is_dir()):
        for path in room.rglob("*.py"):
            depth = len(path.relative_to(room).parts)
            alone = (
                path.name == "model.py" and "backends" in path.parts
            )  # Triton loads it by itself
            for node in ast.walk(ast.parse(path.read_bytes())):
                if not isinstance(node, ast.ImportFrom):
                    continue
                own = f"{node.module}.".startswith(f"hilum.{room.name}.") and not alone
                if node.level > depth or own:
                    wrong.append(f"{path}:{node.lineno}")
    assert wrong == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = grimp.build_graph("hilum", cache_dir=None)
    imports = {m: graph.find_modules_directly_imported_by(m) for m in graph.modules}
    assert len(imports) > 300
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as circle:
        pytest.fail(" → ".join(circle.args[1]))


def test_no_module_is_longer_than_400_lines() -> None:
    rooms = [path for path in (ROOT / "hilum").iterdir() if path.is_dir()]
    files = [path for room in (*rooms, ROOT / "tests") for path in room.rglob("*.py")]
    lengths = {path: len(path.read_bytes().splitlines()) for path in files}
    assert len(lengths) > 500
    assert {path: lines for path, lines in lengths.items() if lines > 400} == {}


def test_benchmarks_stay_below_9000_lines() -> None:
    files = list((ROOT / "benchmarks").rglob("*.py"))
    assert len(files) > 40
    assert sum(len(path.read_bytes().splitlines()) for path in files) < 9000
