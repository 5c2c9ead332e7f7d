"""How long a study takes, from its first slabs; the flag of a window that is not to be trusted."""

from __future__ import annotations

from dataclasses import replace

from hilum.cli.console import duration
from hilum.cli.forecast import Forecast
from hilum.client.registry import INSTALLED
from hilum.systems.dlpe.options import Options


def test_the_first_slabs_say_how_long_a_study_takes() -> None:
    said: list[str] = []
    system = INSTALLED["dlpe"]
    forecast = Forecast(system, Options(), said.append)
    forecast.part("stage one", 8, 1536, now=100.0)
    forecast.part("stage one", 16, 1536, now=105.0)
    assert not said  # too short a time
    forecast.part("stage one", 24, 1536, now=116.0)
    # 16 slices in 16 s, 1536 of them, three of the eight networks: 1536 s · 8 / 3.
    assert said == [
        "a study takes 68 min at most on these servers, measured on its first 24 of 1536 slices "
        "of stage one"
    ]
    forecast.part("stage one", 1536, 1536, now=9000.0)
    forecast.part("stage two", 8, 1536, now=9001.0)
    assert len(said) == 1


def test_short_studies_begin_without_a_word() -> None:
    said: list[str] = []
    forecast = Forecast(INSTALLED["dlpe"], Options(grid=128), said.append)
    forecast.part("stage one", 8, 384, now=0.0)
    forecast.part("stage one", 100, 384, now=11.0)
    other = Forecast(INSTALLED["lungmask"], replace(Options()), said.append)
    other.part("slices", 1, 1000, now=0.0)
    other.part("slices", 2, 1000, now=100.0)
    assert not said


def test_times_are_for_reading() -> None:
    assert [duration(s) for s in (0.2, 40, 600, 12_000)] == ["1 s", "40 s", "10 min", "3 h 20 min"]
