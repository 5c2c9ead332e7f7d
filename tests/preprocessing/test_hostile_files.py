"""Files that were found to break a reader: each gives one error, quickly and in little memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

READ = """
import resource
import sys
from pathlib import Path
from hilum.catalog.errors import HilumError
from hilum.preprocessing.reading.images import read_xray
from hilum.preprocessing.reading.series import open_series

def ct(path):
    found = open_series(path).volume()
    assert abs(found.voxels).max() < 40000, "no Hounsfield units"

resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))
for path in map(Path, sys.argv[1:]):
    for read in (read_xray, ct):
        try:
            read(path)
            print(path.name, "read")
        except HilumError as refused:
            print(path.name, "refused:", refused)
"""

SOUND = {"min-ct-intercept--1024.dcm"}
"""Files that one of the readers may take: this one is the others' sound counterpart."""


@pytest.fixture(scope="module")
def hostile(shared: Path) -> Path:
    folder = shared / "cases" / "hostile"
    if not folder.is_dir():
        pytest.skip("no folder with hostile files beside the checkout")
    return folder


def test_files_that_broke_a_reader_are_refused_in_one_sentence(hostile: Path) -> None:
    files = sorted(p for p in hostile.iterdir() if p.is_file() and p.suffix != ".md")
    assert len(files) > 10
    done = subprocess.run(
        [sys.executable, "-c", READ, *files], capture_output=True, text=True, timeout=30, check=True
    )
    assert "ZZ" not in done.stdout
    lines = [line.partition(" ") for line in done.stdout.splitlines()]
    assert [name for name, _, _ in lines] == [file.name for file in files for _ in range(2)]
    taken = {name for name, _, said in lines if not said.startswith("refused:")}
    assert taken <= SOUND


@pytest.mark.parametrize(
    ("name", "system"), [("keras-h5-001", "ct-classifier"), ("odd-meta", "dlpe"),
                         ("odd-sparse", "dlpe")],
)  # fmt: skip
def test_checkpoints_that_broke_the_import_are_refused(
    name: str, system: str, hostile: Path, tmp_path: Path
) -> None:
    program = "from hilum.cli import main; main()"
    words = ["weights", "import", system, hostile / name, "--allow-unknown"]
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, words)], capture_output=True, text=True,
        timeout=60, cwd=tmp_path, env={"XDG_DATA_HOME": str(tmp_path), "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode > 0, done.stdout  # not a signal's
    assert "error:" in done.stderr
    assert "Traceback" not in done.stderr
