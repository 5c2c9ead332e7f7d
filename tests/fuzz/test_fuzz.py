"""Some hundred spoilt inputs of all kinds; `make fuzz` reads tens of thousands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FUZZ = Path(__file__).with_name("fuzz.py")

MISBEHAVING = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
import fuzz, targets
from hilum.catalog.errors import InputError
def refuse(): raise InputError("no")
def ramble(): raise InputError("")
deeds = {
    "good": lambda: None, "refuses": refuse, "says nothing": ramble, "leaks": lambda: 1 / 0,
    "is large": lambda: b"x" * (2**31 + 2**29), "dies": lambda: os._exit(3),
    "starts": lambda: os.system("true"), "writes": lambda: open("new", "w").close(),
    "runs": lambda: os.mkdir(targets.RAN),
}
targets.kinds = lambda: {
    name: (1, lambda deed=deed: [targets.Sample({"a": b"abc"}, lambda data, rng: data,
                                                lambda folder: deed())])
    for name, deed in deeds.items()
}
found = fuzz.fuzz(fuzz.jobs(len(deeds)), seed=3, processes=1, until=time.monotonic() + 60)
print({name: (t.read, t.refused, t.violations) for name, t in found.items()})
"""


def test_spoilt_inputs_are_read_or_refused_and_nothing_else() -> None:
    command = [sys.executable, FUZZ, "--count", "400", "--processes", "1", "--seed", "5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.count("\n| ") == 11, "every kind has a row"


def test_whatever_a_reader_must_not_do_is_noticed() -> None:
    command = [sys.executable, "-c", MISBEHAVING, FUZZ.parent]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    found = eval(done.stdout)  # noqa: S307  printed by the lines above
    assert found.pop("good") == (1, 0, [])
    assert found.pop("refuses") == (0, 1, [])
    signs = {
        "leaks": "ZeroDivisionError", "is large": "takes 2", "dies": "ends the process (3)",
        "starts": "os.system", "writes": "write", "runs": "runs code",
        "says nothing": "message",
    }  # fmt: skip
    assert found.keys() == signs.keys()
    for name, (read, refused, violations) in found.items():
        assert (read, refused) == (0, 0)
        assert signs[name] in violations[0]
        assert f"--seed 3 --only {name!r} 0" in violations[0]
