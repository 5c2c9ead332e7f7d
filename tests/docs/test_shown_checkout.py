"""What pages show for a checkout: make, pytest, the proof's rehearsal (make test-load)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from manual import ROOT, Typist, inline, shown

pytestmark = pytest.mark.load

HERE = {"make ": "make -o install "}
"""What `make install` makes is there: these tests run in it."""

PRINTED = {"make ": "make --dry-run -o install "}
"""Of what takes hours, or writes into the checkout, make prints the commands."""


@pytest.fixture
def reader() -> Typist:
    return Typist(ROOT, OMP_NUM_THREADS="1")


def test_make_demo(reader: Typist, tmp_path: Path) -> None:
    (block,) = shown("README.md", "Two commands", "sh")
    demo, everything = block.splitlines()
    reader.type(demo, {"make demo": f"make -o install demo OUT={tmp_path}"})
    assert (tmp_path / "results/report.json").is_file()
    assert "pytest" in reader.type(everything, PRINTED)


def test_the_environment_is_made_and_entered(reader: Typist) -> None:
    (block,) = shown("docs/start/xray.md", "1. Install", "sh")
    if not (ROOT / ".venv/bin/activate").is_file():
        pytest.skip("the environment of these tests is another one than .venv")
    reader.type(f"{block}hilum --version", PRINTED)


def test_one_test_is_run(reader: Typist) -> None:
    (block,) = shown("CONTRIBUTING.md", "How to run one test", "sh")
    install, one, words, lint, everything = block.splitlines()
    for line in (install, everything):
        reader.type(line, PRINTED)
    own = {".venv/bin/pytest": "python -m pytest"}
    assert "passed" in reader.type(one, own)
    assert "passed" in reader.type(words, own)
    reader.type(lint, HERE)


def test_licences_are_written(reader: Typist) -> None:
    """`make licences` without `--write` is part of every build, and tests/installs has its code."""
    inline("docs/background/supply.md", "make licences WRITE=--write")
    command = inline("docs/background/licences.md", "make licences WRITE=--write")
    assert "constraints/licences.py --write" in reader.type(command, PRINTED)


def test_tests_on_a_gpu_are_chosen(reader: Typist) -> None:
    for command in (
        inline("docs/background/architecture.md", "pytest -m gpu"),
        inline("docs/how-to/gpu-proof.md", "pytest -m gpu"),
        inline("docs/how-to/servers-and-gpus.md", "pytest -m gpu tests/client"),
    ):
        said = reader.type(f"{command} --collect-only --quiet", None, 0, 5)
        assert re.search(r"\d+ deselected|\d+ tests", said)


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="this machine has a GPU")
def test_the_proof_is_rehearsed(reader: Typist, tmp_path: Path) -> None:
    (block,) = shown("docs/how-to/gpu-proof.md", "Prove Hilum on a GPU", "sh")
    checkout, anywhere, rehearsal = block.splitlines()
    assert "bench gpu-proof" in reader.type(checkout, PRINTED)
    elsewhere = Typist(tmp_path, OMP_NUM_THREADS="1")
    assert "GPU" in elsewhere.type(anywhere, None, 2)
    elsewhere.type(rehearsal, {"--rehearse": "--rehearse --stage hardware"}, 0, 1)
    assert (tmp_path / "DIR/bench.html").is_file()


def test_a_bundle_for_a_machine_without_registries(reader: Typist, tmp_path: Path) -> None:
    """What is packed is in tests/benchmarks/test_gpu_bundle.py, from a folder of wheels."""
    here, _ = shown("docs/how-to/gpu-proof.md", "A machine without package registries", "sh", "sh")
    listing, packing = here.splitlines()
    Typist(tmp_path).type(listing)
    assert "numpy==" in (tmp_path / "there.txt").read_text()
    assert "hilum.proof.bundle pack --have there.txt" in reader.type(packing, PRINTED)
