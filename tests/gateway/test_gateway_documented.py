"""The settings that the page shows are settings; the try with folders is in tests/docs."""

from __future__ import annotations

from pathlib import Path

import pytest
from manual import shown

pytest.importorskip("msgspec")

from hilum.gateway.config import options_of, read_settings


def test_the_settings_of_the_page_are_read(tmp_path: Path) -> None:
    (written,) = shown("docs/how-to/pacs.md", "Write its settings", "toml")
    path = tmp_path / "gateway.toml"
    path.write_text(written)
    settings = read_settings(path)
    assert [rule.name for rule in settings.rule] == ["chest CT", "chest X-ray"]
    assert options_of(settings.rule[0], "dlpe").mode == "corrected"
