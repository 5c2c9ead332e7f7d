"""Stage after stage, each in a process with a limit of time; one that is done is not run again.

The record of a stage is written whole, by one rename, when it has ended. A run that was cut off
goes on with the same command.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from hilum.catalog.errors import HilumError, InputError
from hilum.client.registry import INSTALLED
from hilum.server.launcher import TritonServer
from hilum.systems.dlpe.options import Options

from .done import Say
from .setting import DISEASE, LIMIT_S, Setting
from .stages import STAGES

DONE, FAILED, CUT_OFF, WAITS = "done", "failed", "not ended", "waits for another"

Record = dict[str, Any]


def run(setting: Setting, names: Sequence[str], say: Say, limit_s: float = LIMIT_S) -> None:
    """Run the stages that are not done.

    Parameters
    ----------
    names
        Some stages; none: all.
    limit_s
        Of each stage, the start of the server included.

    Raises
    ------
    InputError
        For a stage that there is not, or a folder with a proof of another setting.
    """
    unknown = [name for name in names if name not in STAGES]
    if unknown:
        raise InputError(f"there is no stage {unknown[0]!r}; there are {', '.join(STAGES)}")
    _claim(setting)
    with _Server(setting) as server:
        for name in wanted(setting, names):
            missing = [n for n in STAGES[name].needs if _open(setting, n)]
            if is_done(setting, name):
                say(f"{name}: done before")
            elif missing:
                say(f"{name}: waits for {', '.join(missing)}")
                _keep(setting, name, {"status": WAITS, "error": f"of {', '.join(missing)}"})
            else:
                say(f"{name}: {STAGES[name].title}")
                record = _carry_out(setting, name, server, limit_s, say)
                _keep(setting, name, record)
                error = record.get("error", "")
                say(f"{name}: {record['status']}, {record['seconds']:.1f} s {error}".rstrip())


def wanted(setting: Setting, names: Sequence[str]) -> Iterator[str]:
    """The stages that belong to a proof, in their order."""
    for name, stage in STAGES.items():
        if (not names or name in names) and not (stage.exports and setting.given):
            yield name


def read(setting: Setting, name: str) -> Record | None:
    """The record of a stage; None before its first run."""
    try:
        return json.loads(_file(setting, name).read_text())
    except FileNotFoundError:
        return None


def _open(setting: Setting, name: str) -> bool:
    """Whether a stage belongs to the proof and is not done."""
    return name in wanted(setting, ()) and not is_done(setting, name)


def is_done(setting: Setting, name: str) -> bool:
    """Whether a stage ran to its end and its checks hold; else it runs again."""
    record = read(setting, name) or {}
    return record.get("status") == DONE and all(c["holds"] for c in record.get("checks", ()))


class _Server:
    """The server that stages share: started when one asks, and again when it died."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._server: TritonServer | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.stop()

    def url(self, limit_s: float, say: Say) -> str:
        """Its address; it is ready."""
        if self._server is None or not self._server.alive:
            say("start the server")
            self._server = TritonServer(
                self._setting.repository, models=models(), grace=0, timeout=limit_s
            ).start()
        return self._server.grpc_url

    def facts(self) -> dict[str, Any]:
        """What the page says of it."""
        found = self._server
        if found is None or found.binary is None or found.resources is None:
            return {}
        runtime = sorted(set(found.staged.backends if found.staged else ()) - {"python"})
        return {
            "name": "Triton", "version": found.binary.version, "networks_by": runtime,
            "on_gpu": found.resources.gpu, "instances": found.resources.instances,
        }  # fmt: skip


def models() -> tuple[str, ...]:
    """Triton models that the stages ask for."""
    xrays = INSTALLED["cxr-severity"]
    found = [m for n in DISEASE for m in xrays.models(xrays.options_type(network=n))]
    return (*dict.fromkeys(found), *INSTALLED["dlpe"].models(Options()))


def _carry_out(setting: Setting, name: str, server: _Server, limit_s: float, say: Say) -> Record:
    """Run a stage in a process; its record, which says why where it did not end well."""
    start = time.monotonic()

    def record(status: str, error: str = "", **more: Any) -> Record:
        seconds = time.monotonic() - start
        return {"status": status, "error": error, "seconds": seconds, **more}

    try:
        at = setting.at(server.url(limit_s, say)) if STAGES[name].served else setting
    except HilumError as failure:
        return record(FAILED, str(failure))
    with tempfile.TemporaryDirectory(prefix="hilum-proof-") as folder:
        target, said = Path(folder) / "done.json", Path(folder) / "said"
        command = [sys.executable, "-P", "-m", "hilum.proof.stage", name, str(target)]
        with said.open("w") as log:
            stage = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, text=True,
                start_new_session=True,
            )  # fmt: skip
            try:
                stage.communicate(at.text(), timeout=limit_s - (time.monotonic() - start))
            except subprocess.TimeoutExpired:
                return record(CUT_OFF, f"not within {limit_s:.0f} s: {_last(said)}")
            finally:
                with contextlib.suppress(ProcessLookupError):  # and what it started
                    os.killpg(stage.pid, signal.SIGKILL)
                stage.wait()
        if stage.returncode or not target.is_file():
            return record(FAILED, f"exit code {stage.returncode}: {_last(said)}")
        return record(DONE, **json.loads(target.read_text()), server=server.facts())


def _last(said: Path) -> str:
    """The last words of a stage."""
    lines = said.read_text(errors="replace").strip().splitlines()
    return lines[-1][:600] if lines else "it said nothing"


def _claim(setting: Setting) -> None:
    """Take the folder for this proof, or refuse one that holds another.

    Raises
    ------
    InputError
    """
    file = setting.out / "setting.json"
    if file.is_file():
        if json.loads(file.read_text()) != setting.key:
            raise InputError(
                f"{setting.out} holds a proof with other options; give the same ones, or another "
                "--out"
            )
        return
    if setting.out.is_dir() and any(setting.out.iterdir()):
        raise InputError(f"{setting.out} holds other files; give an empty or new folder")
    _write(file, setting.key)


def _keep(setting: Setting, name: str, record: Record) -> None:
    _write(_file(setting, name), record)


def _write(file: Path, content: Any) -> None:
    """Write a file whole: whoever looks sees the old one or the new one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    making = file.with_suffix(".making")
    making.write_text(json.dumps(content, indent=1) + "\n")
    making.replace(file)


def _file(setting: Setting, name: str) -> Path:
    return setting.out / "stages" / f"{name}.json"
