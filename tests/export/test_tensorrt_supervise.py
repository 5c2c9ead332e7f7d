"""Workers: what one may use, and what is told when it ends otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from hilum.export.tensorrt.supervise import VARIABLE, Limits, Outcome, run_worker

MODULES = {
    "hilum_fine": "__version__ = '1.2.3'",
    "hilum_slow": "import time\ntime.sleep(60)",
    "hilum_hungry": "import time\nheld = b'x' * (300 << 20)\ntime.sleep(60)",
    "hilum_killed": "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)",
    "hilum_broken": "raise RuntimeError('library does not fit the driver')",
}

PLENTY = Limits(60, 1 << 34)


@pytest.fixture
def probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Have a worker import one of the modules above, as it imports NVIDIA's."""
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setenv(VARIABLE, str(tmp_path))

    def run(name: str, limits: Limits = PLENTY) -> Outcome:
        return run_worker({"probe": [name]}, limits)

    return run


def test_a_module_in_a_folder_of_its_own_is_found(probe) -> None:
    outcome = probe("hilum_fine")
    assert outcome.result == {"hilum_fine": "1.2.3"}
    assert outcome.problem == ""
    assert outcome.peak > 0
    assert probe("hilum_nowhere").result == {"hilum_nowhere": None}


def test_a_worker_is_stopped_at_its_time(probe) -> None:
    outcome = probe("hilum_slow", Limits(1, 1 << 34))
    assert outcome.result is None
    assert outcome.problem == "it took more than 1 s"
    assert outcome.seconds < 30


def test_a_worker_is_stopped_at_its_memory(probe) -> None:
    outcome = probe("hilum_hungry", Limits(50, 200 << 20))
    assert outcome.result is None
    assert outcome.problem == "it took more than 0.2 GiB of memory"
    assert outcome.peak > 200 << 20


def test_a_worker_that_dies_is_reported(probe) -> None:
    assert "SIGSEGV" in probe("hilum_killed").problem
    told = probe("hilum_broken").problem
    assert told.endswith("code 1: RuntimeError: library does not fit the driver")
