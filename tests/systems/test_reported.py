"""Every field of a report is documented, with its type, beside the system that writes it."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path
from typing import is_typeddict

import pytest

from hilum.catalog import SYSTEMS
from hilum.catalog.covid_mtl import HEADS

ROOT = Path(__file__).resolve().parents[2]


def _documented(name: str) -> dict[str, bool]:
    """Fields of every table of a system, and whether each has a docstring."""
    module = import_module(f"hilum.systems.{name}.reported")
    found: dict[str, bool] = {}
    for part in ast.parse(Path(str(module.__file__)).read_text()).body:
        if isinstance(part, ast.ClassDef):
            assert is_typeddict(getattr(module, part.name))
            for line, after in zip(part.body, [*part.body[1:], None], strict=True):
                if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                    said = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                    found[line.target.id] = said
    return found


@pytest.mark.parametrize("system", SYSTEMS)
def test_each_field_says_what_it_is(system: str) -> None:
    assert all(_documented(system.replace("-", "_")).values())


@pytest.mark.parametrize("system", SYSTEMS)
def test_no_field_is_documented_that_is_not_written(system: str) -> None:
    name = system.replace("-", "_")
    sources = [*(ROOT / "systems" / name).glob("*.py"), *(ROOT / "catalog").glob("*.py")]
    sources += (ROOT / "postprocessing" / name).glob("*.py")
    written = {
        node.value
        for path in sources
        if path.name != "reported.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    written |= {head.output for head in HEADS.values()}
    assert not _documented(name).keys() - written
