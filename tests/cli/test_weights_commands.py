"""`hilum fetch-weights`, `hilum weights list` and `hilum train` as one calls them."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from hilum.catalog.sources import SOURCES
from hilum.cli import app

RUNNER = CliRunner()


@pytest.mark.parametrize("system", SOURCES)
def test_where_the_checkpoints_are_is_printed(system: str) -> None:
    done = RUNNER.invoke(app, ["fetch-weights", system])
    assert done.exit_code == 0
    assert SOURCES[system].where in done.output
    assert SOURCES[system].licence in done.output


@pytest.mark.parametrize(
    ("system", "words"), [("covid-mtl", "ever published"), ("dlpe", "hilum weights import dlpe")]
)
def test_what_no_program_can_fetch_is_said(system: str, words: str, tmp_path: Path) -> None:
    done = RUNNER.invoke(app, ["fetch-weights", system, "--out", str(tmp_path / "here")])
    assert done.exit_code == 2
    assert words in done.output
    assert not (tmp_path / "here").exists()


def test_reference_weights_are_listed_beside_those_of_the_store(tmp_path: Path) -> None:
    done = RUNNER.invoke(app, ["weights", "list", "--store", str(tmp_path)])
    assert done.exit_code == 0
    assert "no weights in" in done.output
    assert "reference weights (seed 1)" in done.output


def test_what_cannot_be_trained_is_wrong_use(tmp_path: Path) -> None:
    for arguments, words in (
        (["lungmask", "--out", str(tmp_path)], "nothing is trained for lungmask"),
        (["dlpe"], "--out"),
        (["dlpe", "--network", "heart_x", "--out", str(tmp_path)], "nothing is trained as heart_x"),
    ):
        done = RUNNER.invoke(app, ["train", *arguments])
        assert done.exit_code == 2
        assert words in done.output
