"""The notebooks of the manual run, and show what is stored in them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
NOTEBOOKS = sorted((DOCS / "start").glob("*.ipynb"))


def _printed(cells: list[Any]) -> list[list[str]]:
    """What each cell prints, but for figures, which depend on the processor; what it shows."""
    found = []
    for cell in cells:
        outputs = cell.get("outputs", [])
        # One output or several: how a kernel cuts what is printed depends on time.
        text = "".join("".join(one.get("text", "")) for one in outputs)
        kinds = sorted(kind for one in outputs for kind in one.get("data", {}))
        found.append([re.sub(r"\d[\d.e-]*", "#", text), *kinds])
    return found


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(p, id=p.stem, marks=[pytest.mark.load] * (p.stem == "notebook-ct"))
        for p in NOTEBOOKS
    ],
)
def test_a_notebook_shows_what_is_stored(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nbclient", reason="the extra docs is not installed")
    monkeypatch.syspath_prepend(str(DOCS / "making"))
    import pictures

    stored = json.loads(path.read_text())["cells"]
    executed = pictures.executed(path).cells
    assert _printed(executed) == _printed(stored)
    assert any("text/html" in line for line in _printed(stored))


def test_there_is_one_for_each_kind_of_image() -> None:
    assert {path.stem for path in NOTEBOOKS} == {"notebook-ct", "notebook-xray"}
    assert all(path.stat().st_size < 1_500_000 for path in NOTEBOOKS)
