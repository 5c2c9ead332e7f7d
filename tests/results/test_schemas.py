"""The published schemas are those of the files that runs write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hilum.results import schema

msgspec = pytest.importorskip("msgspec")

DOCS = Path(__file__).resolve().parents[2] / "docs" / "schema"


@pytest.mark.parametrize("name", schema.FILES)
def test_published_schemas_are_current(name: str) -> None:
    """``python -m hilum.results.schema`` writes them."""
    assert json.loads((DOCS / name).read_text()) == schema.json_schema(schema.FILES[name])


def test_a_report_without_a_field_does_not_fit() -> None:
    with pytest.raises(msgspec.ValidationError, match="missing required field"):
        msgspec.json.decode(b'{"schema": "hilum-report/1"}', type=schema.ReportFile)
    with pytest.raises(msgspec.ValidationError, match="schema"):
        msgspec.json.decode(b'{"schema": "hilum-report/2"}', type=schema.ReportFile)
