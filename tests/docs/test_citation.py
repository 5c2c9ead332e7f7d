"""CITATION.cff names the papers that the catalog does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hilum import __version__
from hilum.catalog import SYSTEMS

yaml = pytest.importorskip("yaml")
CITATION = yaml.safe_load((Path(__file__).resolve().parents[2] / "CITATION.cff").read_text())


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_paper_of_each_system_is_cited(system: str) -> None:
    paper = SYSTEMS[system].paper
    author, year = paper.split()[0].strip(","), re.findall(r"\((\d{4})\)", paper)[0]
    (entry,) = [
        one
        for one in CITATION["references"]
        if one["authors"][0]["family-names"] == author and str(one["year"]) == year
    ]
    assert entry["title"]
    if doi := re.search(r"doi (\S+)", paper):
        assert entry["doi"] == doi[1]


def test_the_version_is_that_of_the_package() -> None:
    assert CITATION["version"] == __version__
