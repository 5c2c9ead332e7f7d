"""Pages say of the authors' checkpoints and of the reference weights what the program says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from manual import shown

from hilum.catalog.sources import SOURCES
from hilum.export.certificate import sha256_of
from hilum.export.reference import FOLDER

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = sorted(FOLDER.rglob("*.safetensors"))


@pytest.mark.parametrize("system", SOURCES)
def test_each_page_says_where_the_checkpoints_are(system: str) -> None:
    page, source = (ROOT / "docs" / "background" / f"{system}.md").read_text(), SOURCES[system]
    for text in (source.where, source.licence, source.by_hand, source.missing):
        assert text in page
    for file in source.files:
        assert file.name in page
        assert file.sha256 in page


def test_the_page_of_dlpe_shows_what_the_program_says() -> None:
    (block,) = shown("docs/background/dlpe.md", "The authors' checkpoints", "text")
    assert block.strip() == SOURCES["dlpe"].by_hand


@pytest.mark.parametrize("system", SOURCES)
def test_the_readme_says_where_the_checkpoints_are(system: str) -> None:
    rows = [r for r in (ROOT / "README.md").read_text().splitlines() if f"[`{system}`]" in r]
    assert any(SOURCES[system].where.split(",")[0] in row for row in rows)


def test_reference_weights_are_small_and_each_has_its_card() -> None:
    assert WEIGHTS
    assert sum(path.stat().st_size for path in WEIGHTS) <= 30_000_000
    for path in WEIGHTS:
        if path.parent.name == "dlpe":
            assert path.stat().st_size <= 600_000
        card = json.loads(path.with_suffix(".json").read_text())
        assert card["sha256"] == sha256_of(path)
        page = path.with_suffix(".md").read_text()
        for word in ("data", "licence", "trained by", "seed, steps", "limits", "## Figures"):
            assert word in page
        assert not re.search(r"/(work|home|tmp|root)/", page)


def test_the_notice_attributes_the_public_xrays() -> None:
    notice = (ROOT / "NOTICE").read_text()
    for words in ("10.6084/m9.figshare.12275009", "Attribution 3.0", "V7 Labs", "Attribution 4.0"):
        assert words in notice
