"""`pip install 'hilum[desk]'` in an empty environment: the page works without any network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ALONE = ("unshare", "--map-root-user", "--net")


def test_the_page_works_where_there_is_no_network(
    python_with_desk: Path, chest_repository: Path, tmp_path: Path
) -> None:
    try:
        subprocess.run([*ALONE, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no network of its own can be made here (unshare)")
    script = Path(__file__).with_name("offline_desk.py")
    done = subprocess.run(
        [*ALONE, sys.executable, script, python_with_desk, chest_repository, tmp_path],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["hilum"].startswith(str(python_with_desk.parents[1]))
    assert found["network"] is False
    assert found["viewer"] > 2_000_000
    assert found["state"] == "done"
    assert found["pdf"] == "%PDF"
    assert found["browser"] in ("Hilum", "no Chromium")
