"""Where a run meets its surroundings: folders, streams, names of files, earlier results."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import HILUM, called, hilum, report_of

from hilum.preprocessing.phantoms.xray import chest_xray, write_png
from hilum.server.launcher import TritonServer


@pytest.fixture
def xrays(tmp_path: Path) -> Path:
    folder = tmp_path / "xrays"
    folder.mkdir()
    for seed in range(2):
        phantom = chest_xray(seed, height=300, width=300, severity=seed / 2)
        write_png(phantom, folder / f"{seed}.png")
    return folder


def test_a_folder_that_cannot_be_made_is_refused_before_a_server_starts(
    xrays: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", Path("/proc/x"), tmp_path / "file" / "below"):
        done = called("run", "cxr-severity", xrays, "--out", out, "--repository", tmp_path / "none")
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: ")
        assert "--out" in line
        assert out.is_relative_to("/proc") or f"{tmp_path / 'file'} is a file, not a folder" in line


@pytest.mark.parametrize(
    ("words", "said"),
    [(("run", "cxr-severity", "x", "--nope"), "No such option: --nope"),
     (("run", "cxr-severity"), "Missing argument 'inputs'"),
     (("run", "cxr-severity", "x", "--out", "o", "--deadline", "soon"), "'--deadline'"),
     (("nothing",), "No such command 'nothing'")],
)  # fmt: skip
def test_wrong_words_get_one_line_that_names_the_help(words: tuple[str, ...], said: str) -> None:
    done = hilum(*words)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert line.endswith(" --help")
    assert not done.stdout


@contextmanager
def read_only(folder: Path) -> Iterator[Path]:
    """A folder to which not even root can write."""
    folder.mkdir()
    bound = ["mount", "--bind", str(folder), str(folder)]
    if os.getuid() or subprocess.run(bound, capture_output=True).returncode:
        pytest.skip("only root can mount a folder read-only")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_folder_that_is_read_only_is_refused_before_a_server_starts(
    xrays: Path, tmp_path: Path
) -> None:
    with read_only(tmp_path / "fixed") as fixed:
        for out in (fixed, fixed / "out"):
            done = called(
                "run", "cxr-severity", xrays, "--out", out, "--repository", tmp_path / "none"
            )
            assert done.returncode == 2
            (line,) = done.stderr.splitlines()
            assert line.startswith(f"error: {out.name} could not be written to {out.parent}: Read-")


@pytest.mark.parametrize("port", [80000, -1, "in use"])
def test_a_port_that_cannot_be_had_is_refused_before_a_server_starts(
    port: int | str, xrays: Path, tmp_path: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1] if port == "in use" else port
        done = hilum("run", "cxr-severity", xrays, "--out", tmp_path / "out", "--metrics-port",
                     port, "--repository", tmp_path / "none")  # fmt: skip
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    said = done.stderr.splitlines()[-1]
    assert str(port) in said or "'--metrics-port'" in said
    assert "starting" not in done.stderr
    assert not list((tmp_path / "out").glob("*"))


UNKNOWN_USER = [
    "setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", "--reset-env",
    "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search",
    "env", "-u", "HOME", "-u", "USER", "-u", "LOGNAME",
]  # fmt: skip
"""Words before a command; it may read the checkout, which may lie where only root looks."""


def test_a_user_whom_nobody_knows_and_who_has_no_home_can_run(
    xrays: Path, standin_repository: Path
) -> None:
    if os.getuid():
        pytest.skip("only root can run as somebody else")
    with tempfile.TemporaryDirectory() as place:  # unlike pytest's, one that others may enter
        Path(place).chmod(0o755)
        out = Path(place, "out")
        out.mkdir()
        os.chown(out, 54321, 54321)
        shutil.copytree(xrays, Path(place, "xrays"))
        shutil.copytree(standin_repository, Path(place, "models"))
        words = ["run", "cxr-severity", Path(place, "xrays"), "--out", out,
                 "--repository", Path(place, "models")]  # fmt: skip
        done = subprocess.run(
            [*UNKNOWN_USER, *HILUM, *map(str, words)],
            capture_output=True, text=True, timeout=120, cwd="/",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        assert len(report_of(out)["results"]) == 2


def test_inputs_are_never_replaced_by_results(xrays: Path, tmp_path: Path) -> None:
    (xrays / "0001").mkdir()
    (xrays / "0.png").rename(xrays / "0001" / "0.png")
    before = {p: p.read_bytes() for p in xrays.rglob("*.png")}
    for out, given in ((xrays, xrays), (xrays, xrays / "0001"), (xrays, xrays / "0001" / "0.png")):
        done = called("run", "cxr-severity", given, "--out", out, "--url", "127.0.0.1:1")
        assert done.returncode == 2
        assert "holds the input" in done.stderr
    assert before == {p: p.read_bytes() for p in xrays.rglob("*.png")}


def test_earlier_results_are_no_studies(
    xrays: Path, standin_server: TritonServer, tmp_path: Path
) -> None:
    for out in (xrays / "results", xrays / "again"):
        done = called("run", "cxr-severity", xrays, "--out", out, "--url", standin_server.grpc_url)
        assert done.returncode == 0, done.stderr
        assert len(report_of(out)["results"]) == 2
    refused = called("run", "cxr-severity", xrays, "--out", xrays / "again", "--url", "127.0.0.1:1")
    assert refused.returncode == 2
    assert "--resume" in refused.stderr


def test_overwriting_leaves_nothing_of_other_patients(
    xrays: Path, standin_server: TritonServer, tmp_path: Path
) -> None:
    out, url = tmp_path / "out", standin_server.grpc_url
    called("run", "cxr-severity", xrays, "--out", out, "--url", url)
    (tmp_path / "bad.png").write_text("junk")
    done = called("run", "cxr-severity", tmp_path / "bad.png", "--out", out, "--url", url,
                  "--overwrite")  # fmt: skip
    assert done.returncode == 1
    assert {p.name for p in out.iterdir()} == {"report.json", "summary.csv"}


def test_a_study_that_changed_is_computed_again(
    xrays: Path, standin_server: TritonServer, tmp_path: Path
) -> None:
    out, url = tmp_path / "out", standin_server.grpc_url
    called("run", "cxr-severity", xrays, "--out", out, "--url", url)
    write_png(chest_xray(9, height=300, width=300, severity=1.0), xrays / "1.png")
    done = called("run", "cxr-severity", xrays, "--out", out, "--url", url, "--resume")
    assert done.returncode == 0
    assert done.stderr.count("(kept)") == 1
    key = json.loads((out / "0002" / "result.json").read_text())["key"]
    again = called("run", "cxr-severity", xrays, "--out", out, "--url", url, "--resume",
                   "--zone-threshold", 0.5)  # fmt: skip
    assert "(kept)" not in again.stderr
    assert json.loads((out / "0002" / "result.json").read_text())["key"] != key


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "| true"])
def test_closed_streams_cost_no_result(
    closed: str, xrays: Path, standin_server: TritonServer, tmp_path: Path
) -> None:
    words = [*HILUM, "run", "cxr-severity", str(xrays), "--out", str(tmp_path / "out"),
             "--url", standin_server.grpc_url]  # fmt: skip
    script = f"set -o pipefail; {' '.join(words)} {closed}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert len(report_of(tmp_path / "out")["results"]) == 2


def test_names_of_files_do_not_move_the_cursor_and_ascii_is_enough(
    xrays: Path, standin_server: TritonServer, tmp_path: Path
) -> None:
    evil = os.fsencode(xrays) + b"/\x1b[31m\xe2\x80\x93\xff.png"
    os.rename(xrays / "0.png", evil)  # noqa: PTH104 - not of Unicode
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [*HILUM, "run", "cxr-severity", xrays, xrays / "none–×.png", "--out", tmp_path / "out",
         "--url", standin_server.grpc_url],
        capture_output=True, timeout=120, env=environment,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert b"Traceback" not in done.stderr
    for text in (done.stdout, done.stderr, (tmp_path / "out" / "summary.csv").read_bytes()):
        assert b"\x1b" not in text
    assert rb"\x1b[31m" in done.stdout


@pytest.mark.parametrize(
    ("whom", "file", "folder"), [("user", 0o600, 0o700), ("group", 0o640, 0o750)]
)
def test_results_are_readable_by_whom_they_are_for(
    xrays: Path, standin_server: TritonServer, tmp_path: Path, whom: str, file: int, folder: int
) -> None:
    out = tmp_path / "out"
    given = [] if whom == "user" else ["--permissions", whom]
    done = hilum(
        "run", "cxr-severity", xrays, "--out", out, "--url", standin_server.grpc_url,
        "--save-arrays", *given,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    modes = {p.relative_to(out): p.stat().st_mode & 0o777 for p in (out, *out.rglob("*"))}
    assert Path("0001/overlay.png") in modes
    wrong = {p: oct(m) for p, m in modes.items() if m != (folder if (out / p).is_dir() else file)}
    assert wrong == {}
